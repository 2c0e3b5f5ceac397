"""Sizes and numbers on the benchmarks' command lines."""

import argparse

import pytest

from bench.arguments import count, size


@pytest.mark.parametrize("text", ["foo", "768", "0x64", "64x-1", "64x64x64", ""])
def test_sizes_that_are_none_are_refused(text):
    assert size("768x512") == (768, 512)
    with pytest.raises(argparse.ArgumentTypeError, match="expected WxH"):
        size(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "1e3"])
def test_numbers_that_are_none_are_refused(text):
    assert count("64") == 64
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number above 0"):
        count(text)
