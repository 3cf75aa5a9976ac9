"""`python -m lookout`."""

import sys

from lookout.cli import main

sys.exit(main())
