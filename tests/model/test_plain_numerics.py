"""The plain decoder's exact zone against one in scalars, and its refusal of models."""

import hashlib

import numpy as np
import pytest
from plain_decoder import decode
from plain_encoder import encode, join, latents, tiny_model
from plain_numerics import PlainError, check_model, model_identity

MODEL = tiny_model(1)


def clamp_shift(a: int, s: int, low: int, high: int) -> int:
    """Requantise of numerics.md, by floor division."""
    half = 2 ** (s - 1) if s > 0 else 0
    return max(low, min(high, (a + half) // 2**s))


def scalar_zone(model: dict, z: np.ndarray, r: list[np.ndarray], quality: int) -> np.ndarray:
    """mean, k and y_hat, (3, M, H, W), one number at a time from the sentences of numerics.md."""
    t = {name: a.tolist() for name, a in model.items()}
    hz, wz, nz = z.shape
    f = [[[int(z[i, j, c]) for j in range(wz)] for i in range(hz)] for c in range(nz)]
    f.append([[quality // 2] * wz for _ in range(hz)])
    for name in ("exact.h_s.0.", "exact.h_s.1."):
        weight, bias, shift = t[name + "weight"], t[name + "bias"], t[name + "shift"]
        h, w = len(f[0]), len(f[0][0])
        up = [[[0] * (2 * w) for _ in range(2 * h)] for _ in range(len(bias) // 4)]
        for n in range(len(bias)):
            for i in range(h):
                for j in range(w):
                    a = bias[n]
                    for c in range(len(f)):
                        for u in range(3):
                            for v in range(3):
                                if 0 <= i + u - 1 < h and 0 <= j + v - 1 < w:
                                    a += weight[n][c][u][v] * f[c][i + u - 1][j + v - 1]
                    channel, a2, b2 = n // 4, n // 2 % 2, n % 2
                    up[channel][2 * i + a2][2 * j + b2] = clamp_shift(a, shift[n], 0, 127)
        f = up

    def dense(name: str, x: list[int], bias: list[int]) -> list[int]:
        rows = zip(t[f"exact.{name}.weight"], bias, strict=True)
        return [b + sum(w * v for w, v in zip(row, x, strict=False)) for row, b in rows]

    def compand(y: int) -> int:
        v = (y + 2) // 4
        return v if abs(v) <= 64 else (1 if v > 0 else -1) * min(127, 64 + (abs(v) - 64) // 16)

    m, h, w = r[0].shape[-1], 4 * hz, 4 * wz
    out = np.zeros((3, m, h, w), np.int64)
    for p in (0, 1):
        for row in range(h):
            for j in range(w // 2):
                column = 2 * j + (row % 2 if p == 0 else 1 - row % 2)
                x = [f[c][row][column] for c in range(len(f))]
                for i in range(1, 25, 2) if p == 1 else ():
                    there = row + i // 5 - 2, column + i % 5 - 2
                    inside = 0 <= there[0] < h and 0 <= there[1] < w
                    x += [compand(int(out[2, c, there[0], there[1]])) if inside else 0 for c in range(m)]
                for name, high in (("first", 127), ("hidden", 127)):
                    bias = t["exact.first.bias"][p] if name == "first" else t["exact.hidden.bias"]
                    shift = t[f"exact.{name}.shift"]
                    x = [clamp_shift(a, s, 0, high) for a, s in zip(dense(name, x, bias), shift, strict=True)]
                o, s = dense("output", x, t["exact.output.bias"]), t["exact.output.shift"]
                for c in range(m):
                    mean = clamp_shift(o[c], s[c], -16383, 16383)
                    k = clamp_shift(o[m + c], s[m + c], 0, 63)
                    out[:, c, row, column] = mean, k, 16 * int(r[p][row, j, c]) + mean
    return out


@pytest.mark.parametrize("seed", range(3))
def test_exact_zone_is_the_scalar_one(seed):
    model, (z, r) = tiny_model(seed), latents(129, 65, seed)
    got = decode(join(encode(model, 129, 65, z, r, quality=7)), model)
    mean, k, y_hat = scalar_zone(model, z, r, 7)
    assert np.array_equal(got.y_hat, y_hat)
    for p in (0, 1):
        row, column = np.nonzero(np.add.outer(np.arange(8), np.arange(12)) % 2 == p)
        for packed, plane in ((got.mean[p], mean), (got.k[p], k)):
            assert np.array_equal(packed, plane[:, row, column].T.reshape(packed.shape))


def test_model_identity():
    tensors = {
        "g_s.0.weight": np.ones(3, np.float32),
        "table.b": np.array([[1, -2]], np.int16),
        "exact.a": np.array([3], np.uint8),
    }
    data = b"exact.a\0uint8\0\1\1\0\0\0\3" + b"table.b\0int16\0\2\1\0\0\0\2\0\0\0\1\0\xfe\xff"
    assert model_identity(tensors) == hashlib.sha256(data).digest()[:6]


@pytest.mark.parametrize(
    "name, index, value",
    [
        ("exact.h_s.0.weight", (0, 0, 0, 0), -128),
        ("exact.hidden.shift", 0, 24),
        ("exact.first.bias", (1, 7), 2**24 - 128),
        ("exact.first.bias", (0, 7), 128 - 2**24),
        ("exact.output.bias", 0, -(2**31)),
        ("table.y.freq", (0, 0), 4094),
        ("table.y.max", 0, 0),
        ("table.y.max", 22, 7),
        ("table.y.max", 63, 127),
        ("table.z.freq", (0, 0), 0),
        ("table.z.size", 1, 0),
        ("table.z.size", 1, 256),
        ("table.z.low", 2, -128),
        ("table.z.low", 2, -126),
    ],
)
def test_refused_models(name, index, value):
    model = {key: a.copy() for key, a in MODEL.items()}
    model[name][index] = value
    with pytest.raises(PlainError) as refusal:
        check_model(model)
    parts = 3 if name.startswith("table.") else -1  # a bound of a layer is reported for the layer's weights
    assert refusal.value.field.split(".")[:parts] == name.split(".")[:parts]
    assert refusal.value.offset is None


@pytest.mark.parametrize("m, left", [(0, 0), (1, 0), (1, -1), ("escape", 0), ("beyond", 1)])
def test_refused_y_frequencies(m, left):
    freq, escape = MODEL["table.y.freq"].astype(int), int(MODEL["table.y.max"][30]) + 1
    m = {"escape": escape, "beyond": escape + 1}.get(m, m)
    freq[30, m] = left
    rest = 2 if m == 0 else 0  # takes what m lost, so that only f_m is wrong
    freq[30, rest] += (4096 - freq[30, 0] - 2 * freq[30, 1:].sum()) // (2 if rest > 0 else 1)
    assert freq[30, 0] + 2 * freq[30, 1:].sum() == 4096
    with pytest.raises(PlainError, match="table.y.freq: of scale 30"):
        check_model(MODEL | {"table.y.freq": freq.astype(np.int16)})


@pytest.mark.parametrize("name", sorted(MODEL))
def test_refused_tensors(name):
    missing = {key: a for key, a in MODEL.items() if key != name}
    for model in (missing, MODEL | {name: MODEL[name].astype(np.int64)}, MODEL | {name: MODEL[name][1:]}):
        with pytest.raises(PlainError):
            check_model(model)


def test_bound_is_reached_and_never_passed():
    model = {key: a.copy() for key, a in MODEL.items()}
    model["exact.hidden.shift"][3] = 23
    rest = 127 * int(np.abs(model["exact.hidden.weight"][3].astype(int)).sum()) + 2**22
    model["exact.hidden.bias"][3] = rest - 2**24 + 1
    check_model(model)
    model["exact.hidden.bias"][3] -= 1
    with pytest.raises(PlainError, match="hidden"):
        check_model(model)
