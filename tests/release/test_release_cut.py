"""A release: what it writes, what it refuses, and that a failed one leaves nothing."""

import datetime
import subprocess

import pytest

from release import cut

DAY = datetime.date(2026, 12, 24)
CHANGES = """# Changelog

Each entry opens with what happens to the stream.

## Unreleased

Bitstream: version 1, unchanged.

- One thing.
- Another.

## 0.1.0 (2026-01-02)

Bitstream: version 1.

- The first.
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    (tmp_path / "ckbd").mkdir()
    (tmp_path / cut.INIT).write_text('"""x"""\n\n__version__ = "0.1.0"\n__all__ = []\n')
    (tmp_path / cut.CHANGES).write_text(CHANGES)
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        cut.git(tmp_path, *words)
    return tmp_path


def test_a_release_is_a_commit_and_a_tag(checkout):
    seen = []

    def make():
        seen.append((checkout / cut.INIT).read_text())

    cut.cut(checkout, "0.2.0", DAY, make)
    assert '\n__version__ = "0.2.0"\n' in seen[0], "dist/ is made of the new version"
    text = (checkout / cut.CHANGES).read_text()
    assert (
        "## Unreleased\n\nBitstream: unchanged.\n\n## 0.2.0 (2026-12-24)\n\nBitstream: version 1, unchanged.\n\n- One"
        in text
    )
    assert text.endswith(CHANGES.partition("- Another.")[2]), "what was released before stays"
    assert cut.git(checkout, "describe") == "v0.2.0" and not cut.git(checkout, "status", "--porcelain")
    assert cut.git(checkout, "log", "--format=%s") == "ckbd 0.2.0\nfirst"


def test_the_first_release_may_keep_its_version(checkout):
    (checkout / cut.CHANGES).write_text(CHANGES.partition("## 0.1.0")[0])
    cut.git(checkout, "commit", "-q", "-a", "-m", "second")
    cut.cut(checkout, "0.1.0", DAY, lambda: None)
    assert cut.git(checkout, "describe") == "v0.1.0"


def failing():
    raise subprocess.CalledProcessError(1, ["x"])


@pytest.mark.parametrize("error", [failing, lambda: [][1]])
def test_a_failed_one_leaves_nothing(checkout, error):
    before = cut.git(checkout, "rev-parse", "HEAD")
    with pytest.raises((subprocess.CalledProcessError, IndexError)):
        cut.cut(checkout, "0.2.0", DAY, error)
    assert cut.git(checkout, "rev-parse", "HEAD") == before and not cut.git(checkout, "tag", "--list")
    assert (checkout / cut.CHANGES).read_text() == CHANGES and not cut.git(checkout, "status", "--porcelain")


def test_edits_of_other_files_meanwhile_are_kept(checkout):
    (checkout / "other").write_text("before")
    for words in (["add", "other"], ["commit", "-q", "-m", "second"]):
        cut.git(checkout, *words)
    before = cut.git(checkout, "rev-parse", "HEAD")
    with pytest.raises(cut.Refused, match="the checkout changed meanwhile$"):
        cut.cut(checkout, "0.2.0", DAY, lambda: (checkout / "other").write_text("mine"))
    assert (checkout / "other").read_text() == "mine" and cut.git(checkout, "rev-parse", "HEAD") == before
    assert not cut.git(checkout, "tag", "--list") and (checkout / cut.CHANGES).read_text() == CHANGES


def test_edits_of_its_own_files_meanwhile_are_kept(checkout):
    with pytest.raises(cut.Refused, match="the checkout changed meanwhile; its commit .* stays"):
        cut.cut(checkout, "0.2.0", DAY, lambda: (checkout / cut.INIT).write_text("mine"))
    assert (checkout / cut.INIT).read_text() == "mine" and not cut.git(checkout, "tag", "--list")


def test_commits_meanwhile_are_kept(checkout):
    with pytest.raises(cut.Refused, match="HEAD is another commit by now, so .* stays"):
        cut.cut(checkout, "0.2.0", DAY, lambda: cut.git(checkout, "commit", "-q", "--allow-empty", "-m", "mine"))
    assert cut.git(checkout, "log", "--format=%s") == "mine\nckbd 0.2.0\nfirst" and not cut.git(
        checkout, "tag", "--list"
    )


HOOKS = {"pre-commit": "exit 1", "reference-transaction": "! grep -q refs/tags"}  # against the commit, and the tag


@pytest.mark.parametrize("hook", HOOKS)
def test_a_git_that_refuses_leaves_nothing(checkout, hook):
    path = checkout / ".git" / "hooks" / hook
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{HOOKS[hook]}\n")
    path.chmod(0o755)
    before = cut.git(checkout, "rev-parse", "HEAD")
    with pytest.raises(subprocess.CalledProcessError):
        cut.cut(checkout, "0.2.0", DAY, lambda: None)
    assert cut.git(checkout, "rev-parse", "HEAD") == before and not cut.git(checkout, "status", "--porcelain")
    assert not cut.git(checkout, "tag", "--list") and (checkout / cut.CHANGES).read_text() == CHANGES


@pytest.mark.parametrize("version", ["0.2", "1.2.3.4", "v1.0.0", "01.0.0", "1.0.0rc1", "", "1.0.0\n"])
def test_versions_are_three_numbers(checkout, version):
    with pytest.raises(cut.Refused, match="expected three numbers"):
        cut.cut(checkout, version, DAY, lambda: None)


def release(checkout, version="0.2.0"):
    cut.cut(checkout, version, DAY, lambda: None)


def test_what_is_refused(checkout):
    with pytest.raises(cut.Refused, match=r"version 0\.0\.9: 0\.1\.0 is later"):
        release(checkout, "0.0.9")
    (checkout / "new").write_text("")
    with pytest.raises(cut.Refused, match="not committed"):
        release(checkout)
    (checkout / "new").unlink()
    release(checkout)
    with pytest.raises(cut.Refused, match=r"there is a tag v0\.2\.0"):
        release(checkout)
    with pytest.raises(cut.Refused, match="nothing is unreleased"):
        release(checkout, "0.10.0")
    cut.git(checkout, "tag", "-d", "v0.2.0")
    with pytest.raises(cut.Refused, match=r"CHANGELOG.md has a version 0\.2\.0 already"):
        release(checkout)
    cut.git(checkout, "tag", "v0.2.0")
    assert cut.git(checkout, "tag", "--list") == "v0.2.0"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("# Changelog\n", "has no '## Unreleased'"),
        ("## Unreleased\n\n- A thing.\n", "do not begin with what happens to the bitstream"),
        ("## Unreleased\n\nBitstream: unchanged.\n\n## 0.1.0\n\n- Before.\n", "nothing is unreleased"),
    ],
)
def test_changelogs_that_are_refused(text, reason):
    with pytest.raises(cut.Refused, match=reason):
        cut.changed(text, "0.2.0", DAY)


def test_this_checkout_could_be_released():
    """Its version and changelog are what a release expects; right after one there is nothing to release."""
    text, changes = ((cut.ROOT / path).read_text() for path in (cut.INIT, cut.CHANGES))
    assert '__version__ = "999.0.0"' in cut.versioned(text, "999.0.0")
    if f"{cut.NEXT}\n## " in changes:
        changes = changes.replace(cut.NEXT, f"{cut.NEXT}\n- A change.\n")
    assert "## 999.0.0 (2026-12-24)" in cut.changed(changes, "999.0.0", DAY)
