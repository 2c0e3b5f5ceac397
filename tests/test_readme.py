"""The README's promises: its Python runs, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest

from ckbd.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PAGES = ("docs/batches.md", "docs/pictures.md")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT + "".join((ROOT / page).read_text() for page in PAGES), re.S)


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, capsys):
    exec(compile(block, "a page", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)#]+)", TEXT) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    wanted = set(re.findall(r"make ([a-z-]+)", TEXT + (ROOT / "CONTRIBUTING.md").read_text()))
    assert wanted and wanted <= set(targets)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^ +ckbd ([a-z]+)", TEXT, re.M))))
def test_commands_have_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0 and "usage" in capsys.readouterr().out


def test_nothing_is_left_to_fill_in():
    assert re.findall(r"```python\n", TEXT) and re.findall(r"^ +ckbd ", TEXT, re.M)
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")]:
        assert "@@" not in path.read_text(), path
