"""``python -m gesda``: the same as the ``gesda`` command."""

import sys

from gesda.cli import main

if __name__ == "__main__":
    sys.exit(main())
