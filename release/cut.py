"""A release as one command: nothing leaves this machine.

    python -m release.cut VERSION [--python 3.10 ...] [--pip-args "torch==2.13.0"]

Of a clean checkout: writes the version into ckbd/__init__.py and, with today's date, over the changes that
CHANGELOG.md has as unreleased, commits both, makes dist/ (release/wheels.py), tries a wheel in a fresh environment
(release/fresh.py) and tags the commit vVERSION. If a step fails the commit is taken back and there is no tag; dist/
is then of no use. Ends with the command that would upload.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from release import fresh, pythons, wheels

ROOT = Path(__file__).resolve().parents[1]
INIT, CHANGES = Path("ckbd/__init__.py"), Path("CHANGELOG.md")
UNRELEASED = "## Unreleased"
NEXT = f"{UNRELEASED}\n\nBitstream: unchanged.\n"


class Refused(Exception):
    """Why there can be no release."""


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def numbers(version: str) -> tuple[int, ...]:
    """Of a version of three numbers. Raises Refused."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise Refused(f"version {version!r}: expected three numbers, such as 1.2.0")
    return tuple(map(int, version.split(".")))


def changed(text: str, version: str, day: datetime.date) -> str:
    """A changelog whose unreleased changes are that version's. Raises Refused."""
    if re.search(rf"^## {re.escape(version)} ", text, flags=re.M):
        raise Refused(f"{CHANGES} has a version {version} already")
    before, heading, rest = text.partition(f"{UNRELEASED}\n")
    if not heading:
        raise Refused(f"{CHANGES} has no {UNRELEASED!r}")
    changes = re.split(r"^## ", rest, maxsplit=1, flags=re.M)[0]
    if not re.search(r"^- ", changes, flags=re.M):
        raise Refused(f"{CHANGES}: nothing is unreleased")
    if not re.match(r"\s*Bitstream: ", changes):
        raise Refused(f"{CHANGES}: the unreleased changes do not begin with what happens to the bitstream")
    return f"{before}{NEXT}\n## {version} ({day.isoformat()})\n{rest}"


def versioned(text: str, version: str) -> str:
    """The package's text with another version. Raises Refused unless it is a later one, or the first."""
    found = re.findall(r'^__version__ = "(.*)"$', text, flags=re.M)
    if len(found) != 1:
        raise Refused(f"{INIT} has {len(found)} lines of __version__")
    if numbers(version) < numbers(found[0]):
        raise Refused(f"version {version}: {found[0]} is later")
    return re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', text, flags=re.M)


def prepared(root: Path, version: str, day: datetime.date) -> dict[Path, str]:
    """The files as they are in a release. Raises Refused."""
    numbers(version)
    if git(root, "status", "--porcelain"):
        raise Refused("the checkout has changes that are not committed")
    if git(root, "tag", "--list", f"v{version}"):
        raise Refused(f"there is a tag v{version}")
    return {
        INIT: versioned((root / INIT).read_text(), version),
        CHANGES: changed((root / CHANGES).read_text(), version, day),
    }


def cut(root: Path, version: str, day: datetime.date, make: Callable[[], None]) -> None:
    """Commits the version, calls make() and tags; if anything of that raises, the commit is taken back.

    Raises Refused. What somebody changed or committed meanwhile is not touched; the commit may stay then: it is said.
    """
    texts = prepared(root, version, day)
    before, kept, ours = git(root, "rev-parse", "HEAD"), {path: (root / path).read_text() for path in texts}, ""
    try:
        for path, text in texts.items():
            (root / path).write_text(text)
        git(root, "commit", "-q", "-m", f"ckbd {version}", "--", *map(str, texts))
        ours = git(root, "rev-parse", "HEAD")
        make()
        if git(root, "rev-parse", "HEAD") != ours or git(root, "status", "--porcelain"):
            raise Refused("the checkout changed meanwhile")
        git(root, "tag", "-a", f"v{version}", "-m", f"ckbd {version}", ours)
    except BaseException as error:
        try:
            if not ours:
                for path, text in kept.items():
                    (root / path).write_text(text)
            elif git(root, "rev-parse", "HEAD") == ours:
                git(root, "reset", "-q", "--keep", before)
            else:
                raise Refused(f"{error}; HEAD is another commit by now, so {ours[:12]} stays") from error
        except subprocess.CalledProcessError:
            raise Refused(f"{error}; its commit {ours[:12]} stays, since its files were changed after it") from error
        raise


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m release.cut", description=__doc__.split("\n")[0])
    parser.add_argument("version")
    parser.add_argument("--python", nargs="+", default=[], metavar="VERSION", help="of the wheels (default: all)")
    parser.add_argument("--pip-args", default="", help="for the fresh environment: requirements, an index")
    args = parser.parse_args(argv)
    lacking = [version for version in args.python or wheels.PYTHONS if not there(version)]

    def make() -> None:
        wheels.main(["--python", *(args.python or wheels.PYTHONS)])
        fresh.main(["--pip-args", args.pip_args, *(["--python", args.python[0]] if args.python else [])])

    try:
        if lacking:
            raise Refused(f"no Python {', '.join(lacking)} here; --python says which are wanted")
        cut(ROOT, args.version, datetime.date.today(), make)
    except Refused as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        command = shlex.join(str(word) for word in error.cmd)
        said = (error.stderr or "").strip()
        print(f"no release: this ended with {error.returncode}: {command}\n{said}".rstrip(), file=sys.stderr)
        return 1
    print(f"tagged v{args.version}; nothing was uploaded. That would be:\n    git push origin HEAD v{args.version}")
    print("    python -m twine upload --skip-existing dist/ckbd_models-*\n    python -m twine upload dist/ckbd-*")
    return 0


def there(version: str) -> bool:
    try:
        return bool(pythons.find(version))
    except LookupError:
        return False


if __name__ == "__main__":
    sys.exit(main())
