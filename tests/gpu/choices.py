"""Kernel choices of a test's own."""

import pytest

from ckbd.kernels import tune


@pytest.fixture(autouse=True)
def own_choices(monkeypatch, tmp_path):
    """What is measured here neither reads nor changes the user's choices."""
    monkeypatch.setenv("CKBD_TUNE_CACHE", str(tmp_path / "tune"))
    monkeypatch.setattr(tune, "_chosen", {})
    monkeypatch.setattr(tune, "_known", {})
    monkeypatch.setattr(tune, "_thorough", set())
    monkeypatch.setattr(tune, "_left", [1e9])
