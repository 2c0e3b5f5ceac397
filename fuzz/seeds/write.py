"""What each file of fuzz/seeds ends with."""

from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "corpus"


def write(file, seeds):
    """The seeds as fuzz/corpus/TARGET/00, 01, ...; `file` is TARGET.py. What fuzzers have found there, under names
    that are longer, stays."""
    folder = CORPUS / Path(file).stem
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]"):
        old.unlink()
    for i, seed in enumerate(seeds):
        (folder / f"{i:02}").write_bytes(seed)
