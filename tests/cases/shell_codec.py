"""Fixtures of the tests of the command: a codec that is quick, and a folder to be in."""

import pytest
from jpeg_codec import JpegCodec


@pytest.fixture
def loads(monkeypatch):
    """Stands in for ckbd.load; the list of its calls. Its streams name no model, so decoding them takes --model."""
    calls = []

    def load(model, **options):
        calls.append((model, options))
        return JpegCodec()

    monkeypatch.setattr("ckbd.load", load, raising=False)
    return calls


@pytest.fixture
def here(tmp_path, monkeypatch, loads):
    monkeypatch.chdir(tmp_path)
    return tmp_path
