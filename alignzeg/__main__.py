"""``python -m alignzeg`` is the command ``alignzeg``."""

import sys

from .cli import main

if __name__ == '__main__':
    sys.exit(main())
