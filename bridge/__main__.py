"""`python -m bridge …`: the same commands as the installed `datafast-bridge …`."""

import sys


def _start() -> int:
    """Ctrl-C while the code is still being loaded ends as it does later."""
    try:
        from bridge.cli import main  # noqa: PLC0415 - that is what may be interrupted

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(_start())
