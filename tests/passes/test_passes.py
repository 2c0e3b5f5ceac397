"""ckbd._passes against plain twins, to the bit, in every instruction set that the machine has."""

from itertools import product

import numpy as np
import pytest
import torch

from ckbd import _passes

SIZES = ((1, 1, 1), (1, 1, 9), (9, 9, 1), (6, 3, 5), (6, 2, 4), (10, 5, 3), (5, 1, 6), (8, 4, 2))
# Rows of all pictures, height of one, width; and which rows: all, those in the middle, the last one, none.
MAPS = [(n, h, w, *r) for n, h, w in SIZES for r in {(0, n), (n // 3, n - n // 4), (n - 1, n), (n // 2, n // 2)}]
SPARE = 67  # elements on either side of an array: an odd number of them
FLOATS = [0, 1e-45, 1e-38, 1e-3, 0.5, 1, 1 - 2**-24, 1 + 2**-23, 3, 255, 2**23, 2**31, 3.4e38, np.inf, np.nan]
FLOATS = np.array(FLOATS + [-one for one in FLOATS], np.float32)


def pytest_generate_tests(metafunc):
    """What tests go through, by the names of their arguments."""
    values = {"isa": [None, *_passes.isas()], "C": [1, 3, 7, 33, 66, 100, 256], "sites": [0, 1, 2, 31]}
    values |= {"halves": [False, True], "gray": [False, True], "case": list(arguments())}
    for name in metafunc.fixturenames:
        metafunc.parametrize(name, values[name])


def room(dtype, *shape):
    """An array amid bytes of 255, and full of them itself: no number, -1, or a value that is seldom right."""
    size, n = np.dtype(dtype).itemsize, int(np.prod(shape))
    return np.full((n + 2 * SPARE) * size, 255, np.uint8).view(dtype)[SPARE : SPARE + n].reshape(shape)


def placed(a, dtype=None):
    """A copy of a amid other memory."""
    out = room(dtype or a.dtype, *a.shape)
    out[...] = a
    return out


def check(*pairs):
    """What was found is what is wanted, to the bit (but all NaNs are alike), and nothing is written around it."""
    for found, want in pairs:
        around = SPARE * found.itemsize
        assert (found.base[:around] == 255).all() and (found.base[-around:] == 255).all()
        if found.dtype == np.float32:
            found, want = (np.where(np.isnan(a), np.float32(np.nan), a).view(np.int32) for a in (found, want))
        assert found.dtype == want.dtype and np.array_equal(found, want)


def test_gather(C, isa):
    rng = np.random.default_rng(C)
    for n, (all_rows, height, width, first, last) in enumerate(MAPS):
        x, outside = (placed(rng.integers(0, 256, s, np.uint8)) for s in ((all_rows, width, C), (C,)))
        taps = rng.choice([-(2**24), -5, -2, -1, 0, 0, 1, 2, 5, 2**24], (n % 13, 3)).astype(np.int32)
        for at, more in ((0, 0), (0, 5), (9, 0), (2, 3)):
            found, want = (room(np.uint8, (last - first) * width, at + len(taps) * C + more) for _ in range(2))
            _passes.gather(x, height, placed(taps), outside, (first, last), found, at=at, isa=isa)
            for site in range(len(want)):
                (picture, row), column = divmod(first + site // width, height), site % width
                for t, (down, even, odd) in enumerate(taps.tolist()):
                    i, j = row + down, column + (odd if row % 2 else even)
                    there = 0 <= i < height and 0 <= j < width
                    want[site, at + t * C : at + (t + 1) * C] = x[picture * height + i, j] if there else outside
            check((found, want))


def edgy(seed, sites, N, low=0, high=127):
    """Sums of any size, near 2^24, within the limits and where they are passed; biases, shifts; what they become."""
    rng, shape = np.random.default_rng(seed), (sites, N)
    bias = rng.choice([0, 1, -1, 5000, -5000, 2**24, -(2**24), 2**31 - 1, -(2**31)], N)
    shift = rng.permutation(np.arange(N) % 32) if N > 7 else rng.integers(0, 32, N)
    near = rng.choice([-1, 1], shape) * 2**24 + rng.integers(-9, 10, shape)
    within = rng.integers(low - 2, high + 2, shape) * 2**shift + rng.integers(0, 2**shift, shape) - bias
    at = rng.choice([low, low + 1, high, high + 1], shape) * 2**shift - rng.integers(0, 2, shape) - bias
    sums = np.choose(rng.integers(0, 4, shape), (rng.integers(-(2**31), 2**31, shape), near, within, at))
    given = [placed((a + 2**31) % 2**32 - 2**31, np.int32) for a in (sums, bias, shift)]
    wrapped = (sums + bias + 2**31) % 2**32 - 2**31
    return *given, (wrapped // 2**shift).clip(low, high)


def test_requantise_rows_and_output(sites, C, isa):
    *given, want = edgy(C, sites, C)
    found, mean, k = room(np.uint8, sites, C), room(np.int16, sites, C), room(np.uint8, sites, C)
    _passes.requantise(*given, found, isa=isa)
    both = zip(edgy(C, sites, C, -16383, 16383), edgy(C + 1, sites, C, 0, 63), strict=True)
    *given, wants = (placed(np.concatenate(two, -1)) for two in both)
    _passes.output(*given, mean, k, isa=isa)
    means, indices = np.split(wants, 2, -1)
    check((found, want.astype(np.uint8)), (mean, means.astype(np.int16)), (k, indices.astype(np.uint8)))


def test_requantise_a_map(halves, C, isa):
    for all_rows, _, width, first, last in MAPS:
        *given, wants = edgy(C, (last - first) * width, 4 * C)
        want = np.full((2 * all_rows, 2 * width, C), 255, np.uint8)
        for site, corner in np.ndindex(len(wants), 4):
            at = 2 * (first + site // width) + corner // 2, 2 * (site % width) + corner % 2
            want[at] = wants[site, corner * C : (corner + 1) * C]
        if halves:
            want = np.array([[row[(i + odd) % 2 :: 2] for i, row in enumerate(want)] for odd in range(2)])
        found = room(np.uint8, *want.shape)
        _passes.requantise(*given, found, rows=(first, last), isa=isa)
        check((found, want))


def test_assemble(C, isa):
    """Of every latent, in three ways; of any int16; of few sites where few channels have something in far."""
    rng, y = np.random.default_rng(C), np.resize(np.arange(-32751, 32752), (-(-65503 // C), C))
    ways = [np.clip(way, -1023, 1023) for way in (-(-(y - 16383) // 16), (y + 16383) // 16, y // 16)]
    assert all(abs(y - 16 * r).max() <= 16383 for r in ways)
    cases = [(r, y - 16 * r) for r in ways] + [rng.choice([-32768, -32767, -1, 0, 1, 2047, 32767], (2, 50, C))]
    few = [rng.choice([-32751, -322, 318] + [-321, -258, 253, 317] * 15, (n, C)) for n in range(9)]
    for r, mean in cases + [(y // 16, y % 16) for y in few]:
        v = (16 * r + mean + 2) // 4  # docs/numerics.md
        c = np.where(abs(v) <= 64, v, np.sign(v) * np.minimum(127, 64 + (abs(v) - 64) // 16))
        close, was, shape = np.clip(c, -64, 64), np.arange(C) % 3 == 2, r.shape
        whole, near, far, any_ = *(room(np.uint8, *shape) for _ in range(3)), placed(was, np.uint8)
        _passes.assemble(placed(r, np.int16), placed(mean, np.int16), whole, isa=isa)
        _passes.assemble(placed(r, np.int16), placed(mean, np.int16), near, far, any_, isa=isa)
        check(*((a, b.astype(np.uint8)) for a, b in ((whole, c + 127), (near, close + 64), (far, c - close + 63))))
        check((any_, (was | (c != close).any(0)).astype(np.uint8)))


def test_merge(C, isa):
    rng = np.random.default_rng(C)
    for all_rows, height, width, first, last in MAPS:
        r = placed(rng.choice([-32768, -1023, -5, 0, 1, 7, 1023, 32767], (2, all_rows, width, C)), np.int16)
        mean = placed(rng.choice([-32768, -16383, -3, 0, 2, 9, 16383, 32767], r.shape), np.int16)
        found, want = (room(np.float32, all_rows, 2 * width, C) for _ in range(2))
        for g, column in np.ndindex(want.shape[:2]):
            if first <= g < last:
                at = (g % height + column) % 2, g, column // 2
                want[g, column] = 16 * r[at].astype(int) + mean[at]
        _passes.merge(r, mean, height, (first, last), found, isa=isa)
        check((found, want))


def check_depthwise(x, weight, bias, part, isa):
    """Sums row by row from the bias on; a row's three products are summed first."""
    (H, W, C), x, weight, bias = x.shape, *(placed(a, np.float32) for a in (x, weight, bias))
    around, want = np.zeros((H + 2, W + 2, C), np.float32), np.tile(bias, (H, W, 1))
    around[1:-1, 1:-1] = x
    with np.errstate(all="ignore"):
        for v in range(3):
            left, middle, right = (around[v : v + H, u : u + W] * weight[3 * v + u] for u in range(3))
            want = want + ((left + middle) + right)
    want = want[part[0] : part[1], part[2] : part[3]].copy()
    found, narrow = room(np.float32, *want.shape), room(np.int16, *want.shape)
    _passes.depthwise(x, weight, bias, part, found, isa=isa)
    _passes.depthwise(x, weight, bias, part, narrow, isa=isa)
    low, rest = want.view(np.uint32) >> 16, want.view(np.uint32) & 0xFFFF  # half to even
    rounded = np.where(np.isnan(want), 0x7FC0, low + ((rest > 0x8000) | ((rest == 0x8000) & (low % 2 == 1))))
    check((found, want), (narrow, rounded.astype(np.uint16).view(np.int16)))


def test_depthwise(C, isa):
    rng = np.random.default_rng(C)
    for H, W in ((1, 1), (1, 9), (9, 1), (2, 2), (5, 8), (4, 11)):
        x, weight, bias = (rng.normal(size=s) * 10.0 ** rng.integers(-3, 3, s) for s in ((H, W, C), (9, C), C))
        for part in ((0, H, 0, W), (H // 2, H, W // 2, W), (0, H, 1, W - W // 4), (H, H, 0, W), (0, H, W, W)):
            check_depthwise(x, weight, bias, part, isa)
        for special in (weight, rng.choice(FLOATS, (9, C))):
            check_depthwise(rng.choice(FLOATS, (H, W, C)), special, rng.choice(FLOATS, C), (0, H, 0, W), isa)


def test_bfloat16_of_random_bits(isa):
    bits = np.random.default_rng(3).integers(0, 1 << 32, (1, 1, 20000), dtype=np.uint32)
    bits[..., ::2] &= 0xFFFF8000  # ties
    bits[..., -3:] = 0x7F7F8000, 0xFF7FFFFF, 0x7FFFFFFF  # to infinity; no number
    values = bits.view(np.float32)
    centre = (np.arange(9) == 4)[:, None] * np.ones(20000)
    check_depthwise(values, centre, np.full(20000, -0.0), (0, 1, 0, 1), isa)
    check_depthwise(np.zeros((1, 1, 20000)), centre, values[0, 0], (0, 1, 0, 1), isa)


def test_add(isa):
    for n in (0, 1, 7, 8, 9, 31, 900):
        bits = np.random.default_rng(n).integers(0, 1 << 32, (2, n), dtype=np.uint32)
        special = (a.ravel()[:n] for a in np.meshgrid(FLOATS, FLOATS))
        for x, more in (bits.view(np.float32), bits.view(np.int32).astype(np.float32), special):
            more, out = torch.from_numpy(more).bfloat16(), room(np.float32, n)
            _passes.add(placed(x), placed(more.view(torch.int16).numpy()), out, isa=isa)
            with np.errstate(all="ignore"):
                check((out, x + more.float().numpy()))


def test_paint(gray, isa):
    rng, ties = np.random.default_rng(0), (np.arange(511) / 510).astype(np.float32)  # all k / 255 among them
    edges = np.concatenate((FLOATS, ties, np.nextafter(ties, np.float32(-1)), np.nextafter(ties, np.float32(2))))
    sizes = ((1, 1), (1, 3), (3, 1), (2, 5), (0, 2), (2, 0))
    for (down, across), n in product(sizes, (8, 4, 2, 1)):
        shape = down, across, n, n, 3
        alike, wild = np.resize(np.repeat(ties, 3), shape), rng.normal(0.5, 0.4, shape).astype(np.float32)
        for squares in (wild, np.resize(rng.permutation(edges), shape), alike):
            values = np.where(np.isnan(squares), np.float32(0), squares).clip(0, 1)
            if gray:
                values[...] = ((values[..., :1] + values[..., 1:2]) + values[..., 2:]) / np.float32(3)
            found, want = (room(np.uint8, n * down, n * across, 3) for _ in range(2))
            for i, j in np.ndindex(want.shape[:2]):
                want[i, j] = np.rint(values[i // n, j // n, i % n, j % n] * np.float32(255))
            _passes.paint(placed(squares.reshape(down * across, 3 * n * n)), found, gray=gray, isa=isa)
            check((found, want))


def arguments():
    """Such as each function takes."""
    Z, rows = np.zeros, {"height": 3, "rows": (1, 5)}
    site = {"x": Z((6, 2, 3), "B"), "taps": Z((2, 3), "i"), "outside": Z(3, "B")}
    sums = {"sums": Z((6, 8), "i"), "bias": Z(8, "i"), "shift": Z(8, "i")}
    latents = {"r": Z((5, 3), "h"), "mean": Z((5, 3), "h"), "near": Z((5, 3), "B")}
    mix = {"x": Z((4, 5, 3), "f"), "weight": Z((9, 3), "f"), "bias": Z(3, "f"), "part": (1, 4, 0, 5)}
    return {
        "gather": rows | site | {"out": Z((8, 6), "B")},
        "requantise": sums | {"out": Z((6, 8), "B")},
        "requantise map": sums | {"out": Z((8, 6, 2), "B"), "rows": (1, 3)},
        "requantise halves": sums | {"out": Z((2, 8, 3, 2), "B"), "rows": (1, 3)},
        "output": sums | {"mean": Z((6, 4), "h"), "k": Z((6, 4), "B")},
        "assemble": latents,
        "assemble far": latents | {"far": Z((5, 3), "B"), "any": Z(3, "B")},
        "merge": rows | {"r": Z((2, 6, 2, 3), "h"), "mean": Z((2, 6, 2, 3), "h"), "out": Z((6, 4, 3), "f")},
        "depthwise": mix | {"out": Z((3, 5, 3), "f")},
        "depthwise narrow": mix | {"out": Z((3, 5, 3), "h")},
        "add": {"x": Z(7, "f"), "more": Z(7, "h"), "out": Z(7, "f")},
        "paint": {"squares": Z((2, 192), "f"), "out": Z((8, 16, 3), "B")},
    }


def arrays(case):
    """All of a function's, and the names of those that it writes."""
    found = {name: value for name, value in arguments()[case].items() if isinstance(value, np.ndarray)}
    return found, [one for one in found if one in ("out", "near", "far", "any", "k") or case + one == "outputmean"]


def call(case, **other):
    getattr(_passes, case.split()[0])(**arguments()[case] | other)


def refused(names, case, **other):
    with pytest.raises(ValueError, match=f"^({names}): expected .*, got "):
        call(case, **other)


def test_arrays_that_will_not_do(case):
    given, writes = arrays(case)
    for name, a in given.items():
        tensor, odd = torch.from_numpy(a), np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        wrong = [a[None], np.repeat(a, 2, -1)[..., ::2], a.tolist(), "text", np.float32(1), tensor.to("meta")]
        wrong += [tensor.float().requires_grad_(), tensor.bfloat16()] + [None] * (name != "far")
        wrong += [a.astype(t) for t in "?bHeIqdD" + {"i": "f", "f": "i"}.get(a.dtype.char, "")]
        wrong += [odd, a.astype(a.dtype.newbyteorder())] if a.itemsize > 1 else []
        for one in wrong + [np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)] * (name in writes):  # read-only
            refused(name, case, **{name: one})
        for axis in range(name == "taps", a.ndim):  # of taps there may be any number
            refused(r"\w+", case, **{name: np.delete(a, 0, axis)})


def test_outputs_are_apart_from_all_else(case):
    given, writes = arrays(case)
    for name, other in ((one, other) for one in writes for other in given if other != one):
        a, b = given[name], given[other]
        for start in (0, b.nbytes - 1, b.nbytes + a.itemsize - 1):
            memory, start = np.zeros(b.nbytes + a.nbytes + 4, np.uint8), start // a.itemsize * a.itemsize
            parts = {name: memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)}
            parts[other] = memory[: b.nbytes].view(b.dtype).reshape(b.shape)
            if start < b.nbytes:
                refused(rf"([\w, ]+, )?{name}(, [\w, ]+)?", case, **parts)
            else:
                call(case, **parts)


def test_values_that_will_not_do():
    no_rows = (-1, 3), (0, 7), (3, 1), (7, 7), (1,), (1, 2, 3), (0.0, 2), "ab", 5, None, {1, 2}, (0, 2**70)
    no_parts = (0, 5, 0, 5), (-1, 2, 0, 5), (3, 1, 0, 5), (1, 4, 0, 6), (1, 4, -1, 4), (1, 4, 3, 1), (1, 4, 0)
    cases = [("rows", case, rows) for case in arguments() if "rows" in arguments()[case] for rows in no_rows]
    cases += [("height", c, h) for c in ("gather", "merge") for h in (0, -3, 4, 12, 1.5, None, 2**24 + 1, 2**70)]
    cases += [("part", "depthwise", one) for one in (*no_parts, (1, 4, 0, 5, 6), 7, None, (1, 4, 0, 5.0))]
    cases += [("at", "gather", one) for one in (-1, 2**24 + 1, 0.5, None)]
    cases += [("out", "paint", np.zeros(one, np.uint8)) for one in ((7, 16, 3), (8, 15, 3), (4, 32, 3), (8, 16, 4))]
    cases += [
        ("squares", "paint", np.zeros(one, np.float32)) for one in ((2, 191), (2, 0), (2, 27), (1, 192), (3, 192))
    ]
    cases += [("squares", "paint", np.zeros((2, one), np.float32)) for one in (3, 12, 48)]  # too few for this out
    cases += [("out", "requantise map", np.zeros(one, np.uint8)) for one in ((7, 6, 2), (8, 5, 2), (8, 6, 1), 96)]
    cases += [("out", "requantise halves", np.zeros((2, 7, 3, 2), np.uint8))]
    cases += [("isa", case, isa) for case in arguments() for isa in ("avx9", "", 3)]
    for one in (-1, 32, 2**31 - 1, -(2**31)):
        for case, i in ((case, i) for case in arguments() if "shift" in arguments()[case] for i in (0, 7)):
            cases.append(("shift", case, np.insert(np.zeros(7, np.int32), i, one)))
    for one in np.diag((-(2**24) - 1, 2**24 + 1, 2**31 - 1)):
        cases.append(("taps", "gather", np.array([[0, 0, 0], one], np.int32)))
    for name, case, value in cases:
        refused(name, case, **{name: value})
    refused("out", "gather", at=1)
    six = np.zeros((7, 6), np.int32)
    refused("sums", "requantise map", sums=six[1:], bias=six[0], shift=six[0])
    refused("sums", "output", sums=six.reshape(6, 7))


def test_tensors_and_bytes_do_as_well_as_arrays(case):
    results = []
    for of in (np.asarray, torch.from_numpy, memoryview):
        (given, writes), rng = arrays(case), np.random.default_rng(5)
        for a in given.values():
            a[...] = rng.integers(0, 2, a.shape)
        call(case, **{name: of(a) for name, a in given.items()})
        results.append(np.concatenate([given[name].ravel() for name in writes]))
    assert all(np.array_equal(one, results[0]) for one in results) and results[0].any()
