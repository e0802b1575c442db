"""``python -m jaxfair``: the command ``jaxfair``, where it is not on the path."""

import sys

from jaxfair import cli

if __name__ == "__main__":
    sys.exit(cli.main())
