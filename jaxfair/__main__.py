"""``python -m jaxfair``: the command ``jaxfair``, where it is not on the path."""

import sys

from jaxfair.cli import main

if __name__ == "__main__":
    sys.exit(main())
