"""That instruction sets which the processor has are used: a fall back to plain loops would be right, and slow."""

import platform
from pathlib import Path

import pytest

from ckbd import _ans, _passes, _rans

AVX2 = {"avx2", "bmi1", "sse4_2", "popcnt"}
AVX512 = AVX2 | {"bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vbmi2"}


def flags():
    """What Linux says that the processor has."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next(line for line in lines if line.startswith("flags")).partition(":")[2].split())


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(), reason="needs Linux on x86-64"
)
def test_all_that_the_processor_has_is_used():
    found = flags()
    sets = [name for name, wanted in (("avx2", AVX2), ("avx512", AVX512)) if wanted <= found]
    assert _rans.isas() == ("plain", "scalar", *sets)
    assert _passes.isas() == ("scalar", *sets)
    assert _ans.isas() == ("scalar", *sets)[:2]


@pytest.mark.skipif(platform.machine() in ("x86_64", "AMD64", "i686"), reason="needs another processor")
def test_other_processors_have_plain_loops():
    assert _rans.isas() == ("plain", "scalar") and _passes.isas() == _ans.isas() == ("scalar",)
