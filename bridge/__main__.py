"""`python -m bridge …`: the same commands as the installed `datafast-bridge …`."""

import sys

from bridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
