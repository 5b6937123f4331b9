"""`python -m fastticket`."""

import sys

from fastticket.cli import main

if __name__ == "__main__":
    sys.exit(main())
