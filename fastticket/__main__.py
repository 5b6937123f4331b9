"""`python -m fastticket`."""

import sys

from fastticket.cli import main

sys.exit(main())
