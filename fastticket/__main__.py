"""`python -m fastticket`."""

import sys

from fastticket_start import main

if __name__ == "__main__":
    sys.exit(main())
