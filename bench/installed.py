"""A folder from which `import ckbd` finds all of it, kernels inside, without an installation: links to this checkout.

    python -m bench.installed FOLDER

The extension must have been built in place. Such a folder has to come before the checkout on sys.path.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def link(folder: Path) -> Path:
    """Makes folder/ckbd anew, of links to everything in ckbd/ as it is now and to kernels/."""
    package = folder / "ckbd"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for path in [*(ROOT / "ckbd").iterdir(), ROOT / "kernels"]:
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    return folder


if __name__ == "__main__":
    link(Path(sys.argv[1]).absolute())
