"""What the table of versions says of runs that went well, and of others."""

import pytest

from release import matrix


@pytest.mark.parametrize(
    "line, status, bad",
    [
        ("4283 passed, 13 skipped, 6 warnings in 494.99s (0:08:14)", 0, []),
        ("5 failed, 4283 passed in 494.99s", 1, ["**5 failed**"]),
        ("1 failed, 3 passed, 2 errors in 1.00s", 1, ["**1 failed**", "**2 errors**"]),
        ("3 passed in 1.00s", 2, ["**1 errors**"]),
        ("3 passed in 1.00s", -9, ["**1 errors**"]),
        ("ImportError while loading conftest", 4, ["**1 errors**"]),
        ("3 deselected in 1.00s", 5, ["**1 errors**"]),
        ("no tests ran in 0.01s", 0, ["**1 errors**"]),
    ],
)
def test_runs(line, status, bad):
    counts = matrix.counted(line, status)
    row = matrix.Row("oldest", dict.fromkeys(("python", "torch", "triton", "numpy", "pillow"), "1"), counts, "today")
    assert row.bad == bad
    passed = ", ".join([str(counts.get("passed", 0)), *bad])
    assert row.markdown() == f"| oldest | 1 | 1 | 1 | 1 | 1 | {passed} | {counts.get('skipped', 0)} | today |"


def test_the_oldest_are_the_lower_bounds():
    names = {pin.partition("==")[0] for pin in matrix.oldest()}
    assert names == {"torch", "numpy", "pillow", "safetensors", "tqdm"}
