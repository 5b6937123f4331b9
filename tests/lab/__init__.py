"""Material of tests: real servers, plain twins, models, corpora."""
