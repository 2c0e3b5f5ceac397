"""A folder from which Python finds ckbd, kernels inside, and its models, uninstalled: links to this checkout.

    python -m bench.installed FOLDER

The extension must have been built in place. Such a folder has to come before the checkout on sys.path.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def link(folder: Path) -> Path:
    """Makes folder/ckbd anew, of links to everything in ckbd/ as it is now and to kernels/; the models beside it."""
    package, models = folder / "ckbd", folder / "ckbd_models"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    models.unlink(missing_ok=True)
    models.symlink_to(ROOT / "models" / models.name)
    for path in [*(ROOT / "ckbd").iterdir(), ROOT / "kernels"]:
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    return folder


if __name__ == "__main__":
    link(Path(sys.argv[1]).absolute())
