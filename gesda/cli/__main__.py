"""``python -m gesda.cli``: the same as the ``gesda`` command."""

import sys

from gesda.cli import main

sys.exit(main())
