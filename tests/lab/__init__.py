"""What tests are made with: real servers, plain twins, models, corpora."""
