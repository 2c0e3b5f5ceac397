"""fuzz/beside.py: some cases of CompressAI's coder and its plain twin, and that a difference is told."""

import re
import sys
from pathlib import Path

import plain_ans

sys.path.append(str(Path(__file__).parent.parent.parent / "fuzz"))

import beside  # noqa: E402


def test_the_coder_and_its_twin_agree(capsys):
    assert beside.main(["--cases", "300"]) == 0, capsys.readouterr().out
    told = capsys.readouterr().out
    assert told.startswith("300 cases in ")
    for what in ("encoded", "decoded", "rows made", *(f"refused {name}" for name in REFUSED)):
        assert re.search(rf"\d{{2,}} {what}\b", told), told


REFUSED = ("cdfs", "indexes", "pmf", "sizes", "stream", "symbols")


def test_a_difference_is_told_and_can_be_repeated(capsys, monkeypatch):
    monkeypatch.setattr(plain_ans, "MOST_DIGITS", 9)
    assert beside.main(["--cases", "3000"]) == 1
    told = capsys.readouterr().out
    number = re.match(r"case (\d+) of seed 0: ", told)[1]
    assert beside.main(["--first", number, "--cases", "1"]) == 1
    assert capsys.readouterr().out == told
    monkeypatch.undo()
    assert beside.main(["--first", number, "--cases", "1"]) == 0
