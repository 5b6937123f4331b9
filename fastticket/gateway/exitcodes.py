"""Exit codes of the commands and of the processes that they start; 0: done."""

FAILED = 1
BAD_USAGE = 2  #: or a bad configuration
