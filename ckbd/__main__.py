"""`python -m ckbd` is the command `ckbd`."""

from __future__ import annotations

import sys

from ckbd.cli import main

if __name__ == "__main__":
    sys.exit(main())
