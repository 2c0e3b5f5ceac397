"""Damaged pictures through `ckbd encode`: python fuzz/pictures.py [FILES].

Files of twelve formats, each from the seed and its own number, are damaged in one way or two, and encoded a folder
at a time. One in ten is whole: it must be encoded, and decode to its size. Some are of other kinds under a picture's
name. What must hold, of every file: it is encoded, or refused with one line on stderr that names it; nothing else is
printed there but warnings of what is encoded; no program is started; it takes no longer than --seconds, and what its
pixels take; it is not refused if Pillow reads it. Exit status 1 if anything does not. Files that broke something are
kept, with what was printed, in --to.
"""

import argparse
import math
import os
import re
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "fuzz")]

import damage  # noqa: E402
import runs  # noqa: E402
import whole  # noqa: E402

WHOLE = 0.1  # of all files
BLOCK = 64  # to whole ones of which pictures are made up before they are coded
A_MEGAPIXEL, MEMORY = 2.0, 30  # seconds on a slow core, and MiB, that a megapixel of blocks may take
LARGE = 4  # megapixels, from which a picture may be refused for want of memory
WANT = re.compile("memory|allocate", re.IGNORECASE)
WEBP_WANT = "could not create decoder object"  # Pillow's way to say so, of damage too


class Made(NamedTuple):
    """A file's name and bytes; (width, height) of what must come of it, None where nothing must; what it is."""

    name: str
    data: bytes
    size: tuple[int, int] | None
    what: str


class Maker:
    """Files by their numbers; the same from one seed, whatever was made before."""

    def __init__(self, seed, others=0.06, large=0.0):
        self.seed, self.others, self.large = seed, others, large
        self.wholes, self.foreign = whole.everything(seed)

    def make(self, number):
        rng = np.random.default_rng([self.seed, number])
        suffixes = list(whole.FORMATS)
        suffix, kind = suffixes[number % len(suffixes)], rng.random()
        if rng.random() < self.large:
            return Made(f"{number:06}-large.{suffix}", whole.large(rng, suffix), None, "one colour")
        other_kind, whole_one = kind < self.others, self.others <= kind < self.others + WHOLE
        of_kind = self._foreign(rng) if other_kind else self.wholes[suffix]
        base, other = (of_kind[int(rng.integers(len(of_kind)))] for _ in range(2))
        data, done, size = base.data, ["whole"], base.size
        if not whole_one and (not other_kind or rng.random() < 0.5):
            format = "" if other_kind else whole.FORMATS[suffix]
            (data, done), size = damage.damaged(rng, base.data, format, other.data), None
        if rng.random() < 0.05:  # contents say what a file is, not its name
            suffix = str(rng.choice(suffixes))
        label = ("other" if other_kind else base.name.split()[0]) + "-" + "-".join(done)
        return Made(f"{number:06}-{label}.{suffix}", data, size, f"{base.name}: {', '.join(done)}")

    def _foreign(self, rng):
        """Files of one other kind; often of one that has done harm."""
        return self.foreign[str(rng.choice(whole.HARMFUL if rng.random() < 0.3 else sorted(self.foreign)))]


@contextmanager
def silent():
    """Nothing of what is written to stderr meanwhile, by whatever library, is seen."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def taken(path):
    """(width, height) if Pillow reads the file as one of the formats that are looked for, in pixels that we promise
    to take; None otherwise."""
    with warnings.catch_warnings(), silent():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=sorted(set(whole.FORMATS.values()))) as image:
                image.load()
                low, high = image.getextrema() if image.mode.startswith("I") else (0, 0)
                promised = image.mode != "F" and low >= 0 and high <= 65535
                promised &= image.mode != "P" or image.palette is not None  # which some PNG files lack
                return image.size if promised else None
        except Exception:  # whatever it is that Pillow raises
            return None


def judge(made, run, path, args):
    """[(class of failure, text)] of one file, from what the run says of it."""
    lines, encoded = run.refused.get(made.name, []), made.name in run.encoded
    found = [(one.kind, one.text) for one in run.problems if one.name == made.name]
    found += [(f"beside the refusal: {one.kind}", one.text) for one in run.others.get(made.name, []) if not encoded]
    if len(lines) + encoded > 1:
        found.append(("more than one verdict", "\n".join(lines)))
    took, grown = run.seconds.get(made.name, 0), run.grown.get(made.name, 0) / 1024
    size = taken(path) if lines or took > args.seconds or grown > args.grown else None
    pixels = math.prod(-(-side // BLOCK) * BLOCK for side in size) / 1e6 if size else 0
    if lines and made.size:
        found.append(("a whole picture is refused", lines[0]))
    elif lines and size and not (pixels > LARGE and (WANT.search(lines[0]) or WEBP_WANT in lines[0])):
        found.append((f"refused, but Pillow reads it: {runs.blurred(lines[0])}", lines[0]))
    if took > args.seconds + A_MEGAPIXEL * pixels:
        found.append(("slow", f"{took:.1f} s, {size}"))
    if grown > args.grown + MEMORY * pixels:
        found.append(("much memory", f"{grown:.0f} MiB more, {size}"))
    return found


def sizes(folder):
    """{stem: (width, height)} of a folder's pictures."""
    found = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            found[path.stem] = image.size
    return found


class Report:
    """Counts, and what went wrong: classes of failure with their files."""

    def __init__(self, to):
        self.to, self.start = to, time.perf_counter()
        self.files = self.whole = self.encoded = self.refused = self.foreign = self.for_memory = self.peak = 0
        self.slowest, self.hungriest = (0.0, ""), (0, "")
        self.failures, self.warned = defaultdict(list), 0

    def fail(self, kind, text, made):
        if made.name in self.failures[kind]:
            return
        if len(self.failures[kind]) < 3:
            self.to.mkdir(parents=True, exist_ok=True)
            (self.to / made.name).write_bytes(made.data)
            with open(self.to / "report.txt", "a") as file:
                print(f"{kind}\n{made.name} ({made.what}), {len(made.data)} bytes\n{text}\n", file=file)
        self.failures[kind].append(made.name)

    def add(self, mades, run):
        self.files += len(mades)
        self.whole += sum(one.size is not None for one in mades)
        self.encoded += len(run.encoded)
        self.refused += len(run.refused)
        self.foreign += sum("-other-" in name for name in run.encoded)
        self.for_memory += sum(bool(WANT.search(lines[0])) for lines in run.refused.values())
        self.warned += sum(name in run.encoded for name in run.others)
        self.peak = max(self.peak, run.peak)
        self.slowest = max([self.slowest, *((took, name) for name, took in run.seconds.items())])
        self.hungriest = max([self.hungriest, *((grown, name) for name, grown in run.grown.items())])

    def show(self):
        took = time.perf_counter() - self.start
        print(
            f"{self.files} files, {self.whole} of them whole: {self.encoded} encoded ({self.foreign} of other kinds),"
        )
        print(f"{self.refused} refused ({self.for_memory} for memory); {took:.0f} s, peak {self.peak / 1024:.0f} MiB")
        print(f"slowest: {self.slowest[0]:.2f} s, {self.slowest[1]}")
        print(f"most memory: {self.hungriest[0] / 1024:.0f} MiB more, {self.hungriest[1]}")
        for kind, names in sorted(self.failures.items(), key=lambda item: -len(item[1])):
            print(f"FAILED {len(names)}: {kind}\n    {' '.join(names[:3])}")
        if self.failures:
            print(f"these files, and what was printed: {self.to}")


def one_folder(mades, place, args, report):
    """Encodes some files, and decodes what must come of the whole ones."""
    folder, out, judged = place / "in", place / "out", place / "judged"
    for one in (folder, out, judged):
        one.mkdir(parents=True)
    for made in mades:
        (folder / made.name).write_bytes(made.data)
    limits = runs.Limits(args.memory, args.patience)
    run = runs.encode(folder, out, judged, ["--model", args.model], limits)
    report.add(mades, run)
    good = place / "good"
    good.mkdir()
    for made in mades:
        for kind, text in judge(made, run, judged / made.name, args):
            report.fail(kind, text, made)
        if made.size and made.name in run.encoded:
            (out / made.name).with_suffix(".ckbd").rename(good / f"{Path(made.name).stem}.ckbd")
    complaints = runs.decode(good, place / "decoded", ["--model", args.model], limits)
    decoded = sizes(place / "decoded") if any(good.iterdir()) else {}
    for made in mades:
        if made.size and made.name in run.encoded and decoded.get(Path(made.name).stem) != made.size:
            report.fail("decodes to another size, or not at all", complaints or f"{made.size}", made)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=int, nargs="?", default=10_000, metavar="FILES")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--folder", type=int, default=300, help="files a folder, each a process of its own")
    parser.add_argument("--model", default="small")
    parser.add_argument("--seconds", type=float, default=3, help="for a small picture")
    parser.add_argument("--grown", type=float, default=200, help="MiB that a small picture may take")
    parser.add_argument("--others", type=float, default=0.06, metavar="SHARE", help="of files of other kinds")
    parser.add_argument("--large", type=float, default=0, metavar="SHARE", help="of pictures of 10 to 80 megapixels")
    parser.add_argument("--patience", type=float, default=120, help="seconds without a file, after which it hangs")
    parser.add_argument("--memory", type=float, default=4, help="GiB of address space that the program may have")
    parser.add_argument("--to", type=Path, default=ROOT / "build/fuzz/pictures", help="for what broke something")
    parser.add_argument("--write", action="store_true", help="only write the files to --to")
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse(arguments)
    warnings.simplefilter("ignore")  # Pillow's, of what we write
    maker, report = Maker(args.seed, args.others, args.large), Report(args.to)
    for start in range(args.first, args.first + args.files, args.folder):
        numbers = range(start, min(start + args.folder, args.first + args.files))
        mades = [maker.make(number) for number in numbers]
        if args.write:
            args.to.mkdir(parents=True, exist_ok=True)
            for made in mades:
                (args.to / made.name).write_bytes(made.data)
                print(args.to / made.name, made.what)
            continue
        with tempfile.TemporaryDirectory() as place:
            one_folder(mades, Path(place).resolve(), args, report)
    if not args.write:
        report.show()
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
