"""The stored results that a GPU is held against are those of the twin of today."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "gpu"))

import vectors  # noqa: E402


@pytest.mark.parametrize("case", [*vectors.PHASES[::5], *vectors.HYPERS[::7], *vectors.POINTWISE[::9]], ids=str)
def test_stored_results_are_the_twin_s(case):
    assert vectors.digests(case) == vectors.stored()[str(case)]


def test_every_case_is_stored_and_nothing_else():
    assert set(vectors.stored()) == {str(case) for case in vectors.CASES}


def test_one_bit_is_noticed():
    case = vectors.PHASES[0]
    other = type(case)(case.widths, case.sizes, case.parity, not case.extreme)
    assert vectors.digests(other) != vectors.digests(case)
