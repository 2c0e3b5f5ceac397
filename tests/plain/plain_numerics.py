"""The exact zone and the model file of the plain decoder, written from docs/ alone.

Every number is a Python int or an int64, so nothing here leans on the bounds that `check_model` checks.
"""

import hashlib
from pathlib import Path

import numpy as np
from safetensors import safe_open

Model = dict[str, np.ndarray]
Table = list[tuple[int, int, int, bool]]  # of each of the 4096 slots: symbol, f, bias, is it an escape

H_S, G_EP = ("h_s.0", "h_s.1"), ("first", "hidden", "output")
MAX_GROUPS = 16
PARTS = ("weight", "bias", "shift")


class PlainError(ValueError):
    """A broken "must": `field` breaks it, at byte `offset` of the stream (None for a tensor of the model)."""

    def __init__(self, field: str, offset: int | None, why: str):
        super().__init__(f"{field}{'' if offset is None else f' at byte {offset}'}: {why}")
        self.field, self.offset = field, offset


def require(holds: bool, field: str, offset: int | None, why: str) -> None:
    if not holds:
        raise PlainError(field, offset, why)


def load_model(path: str | Path) -> Model:
    """The integer tensors of a model file, checked."""
    with safe_open(path, framework="numpy") as file:
        names = [name for name in file.keys() if name.startswith(("exact.", "table."))]
        model = {name: file.get_tensor(name) for name in names}
    check_model(model)
    return model


def model_identity(tensors: Model) -> bytes:
    """The six bytes that name the model in a header."""
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if name.startswith(("exact.", "table."))):
        a = tensors[name]
        digest.update(name.encode("ascii") + b"\0" + a.dtype.name.encode("ascii") + b"\0")
        digest.update(bytes([a.ndim]) + b"".join(n.to_bytes(4, "little") for n in a.shape))
        digest.update(a.astype(a.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:6]


def prefixes(model: Model) -> list[str]:
    """What the names of each channel group's layers begin with, behind "exact."; without groups an empty one."""
    names = [g for g in range(MAX_GROUPS + 2) if f"exact.{g}.first.weight" in model]
    if not names:
        return [""]
    require(2 <= len(names) <= MAX_GROUPS, "exact.0.first.weight", None, f"is of {len(names)} channel groups")
    allowed = [f"{g}.{layer}" for g in range(len(names)) for layer in (("channel",) if g > 0 else ()) + G_EP]
    for name in model:
        layer = name.removeprefix("exact.").rpartition(".")[0]
        ours = layer in G_EP or layer[:1].isdigit()
        require(not name.startswith("exact.") or not ours or layer in allowed, name, None, "is of no channel group")
    return [f"{g}." for g in range(len(names))]


def layers_of(model: Model) -> list[str]:
    """The names of all layers."""
    found = list(H_S)
    for prefix in prefixes(model):
        found += [prefix + layer for layer in (("channel",) if prefix not in ("", "0.") else ()) + G_EP]
    return found


def expected_tensors(model: Model) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of every integer tensor; the free sizes are taken from the shifts and the tables."""

    def rows(layer: str) -> int:
        return model[f"exact.{layer}.shift"].size

    c1, c_psi, nz = rows("h_s.0") // 4, rows("h_s.1") // 4, model["table.z.low"].size
    expected = {
        "table.y.freq": ("int16", (64, model["table.y.freq"].size // 64)),
        "table.y.max": ("uint8", (64,)),
        "table.z.freq": ("int16", (nz, model["table.z.freq"].size // max(nz, 1))),
        "table.z.low": ("int16", (nz,)),
        "table.z.size": ("int16", (nz,)),
        "exact.h_s.0.weight": ("int8", (4 * c1, nz + 1, 3, 3)),
        "exact.h_s.1.weight": ("int8", (4 * c_psi, c1, 3, 3)),
    }
    before = 0
    for prefix in prefixes(model):
        h1, h2, m, seen = rows(prefix + "first"), rows(prefix + "hidden"), rows(prefix + "output") // 2, c_psi
        if before > 0:
            seen += rows(prefix + "channel")
            expected[f"exact.{prefix}channel.weight"] = ("int8", (rows(prefix + "channel"), before, 3, 3))
        expected[f"exact.{prefix}first.weight"] = ("int8", (h1, seen + 12 * m))
        expected[f"exact.{prefix}hidden.weight"] = ("int8", (h2, h1))
        expected[f"exact.{prefix}output.weight"] = ("int8", (2 * m, h2))
        before += m
    for layer in layers_of(model):
        n = expected[f"exact.{layer}.weight"][1][0]
        expected[f"exact.{layer}.bias"] = ("int32", (2, n) if layer.endswith("first") else (n,))
        expected[f"exact.{layer}.shift"] = ("uint8", (n,))
    return expected


def check_model(model: Model) -> None:
    """Raises PlainError unless every integer tensor is there, in its dtype, shape and bounds."""
    names = [f"exact.{layer}.{part}" for layer in layers_of(model) for part in PARTS]
    for name in names + ["table.y.freq", "table.y.max", "table.z.freq", "table.z.low", "table.z.size"]:
        require(name in model and model[name].size > 0, name, None, "is missing or empty")
    for name, expected in expected_tensors(model).items():
        got = (model[name].dtype.name, model[name].shape)
        require(got == expected, name, None, f"is {got}, expected {expected}")
    wide = {name: a.astype(np.int64) for name, a in model.items()}
    for layer in layers_of(model):
        weight, bias, shift = (wide[f"exact.{layer}.{part}"] for part in PARTS)
        require(weight.min() >= -127, f"exact.{layer}.weight", None, "holds -128")
        require(shift.max() <= 23, f"exact.{layer}.shift", None, "is above 23")
        largest = np.abs(bias).reshape(-1, len(shift)).max(axis=0)
        bound = 127 * np.abs(weight).reshape(len(shift), -1).sum(axis=1) + largest + (1 << shift >> 1)
        require(bound.max() < 1 << 24, f"exact.{layer}.weight", None, f"reaches {bound.max()}, over 2^24")
    z_tables = zip(*(wide[f"table.z.{part}"] for part in ("freq", "low", "size")), strict=True)
    for c, (freq, low, size) in enumerate(z_tables):
        require(1 <= size <= 255 and size < len(freq), "table.z.size", None, f"of channel {c} is {size}")
        good = -127 <= low and low + size - 1 <= 127
        require(good, "table.z.low", None, f"of channel {c} is {low} with size {size}")
        good = freq[: size + 1].min() >= 1 and not freq[size + 1 :].any() and freq.sum() == 4096
        require(good, "table.z.freq", None, f"of channel {c} is no distribution of 4096")
    for k, (freq, last) in enumerate(zip(wide["table.y.freq"], wide["table.y.max"] + 1, strict=True)):
        good = 2 <= last <= (7 if k <= 22 else 127) and last < len(freq)
        require(good, "table.y.max", None, f"of scale {k} is {last - 1}")
        good = freq[: last + 1].min() >= 1 and freq[0] % 2 == 0 and not freq[last + 1 :].any()
        good = good and freq[0] + 2 * freq[1:].sum() == 4096
        require(good, "table.y.freq", None, f"of scale {k} is no distribution of 4096, even at 0")


def z_table(model: Model, c: int) -> Table:
    """Of channel c; the escape stands as low + size."""
    low, size = int(model["table.z.low"][c]), int(model["table.z.size"][c])
    freq = model["table.z.freq"][c, : size + 1].tolist()
    return [(low + i, f, bias, i == size) for i, f in enumerate(freq) for bias in range(f)]


def y_table(model: Model, k: int) -> Table:
    """Of scale k; the escapes stand as +-(max_k + 1)."""
    last = int(model["table.y.max"][k]) + 1
    f_0, *freq = model["table.y.freq"][k, : last + 1].tolist()
    table = [(0, f_0, bias, False) for bias in range(f_0)]
    for m, f in enumerate(freq, 1):
        table += [(-m if d & 1 else m, f, d >> 1, m == last) for d in range(2 * f)]
    return table


def requantise(a: np.ndarray, s: np.ndarray, low: int, high: int) -> np.ndarray:
    s = s.astype(np.int64)
    return np.clip((a + (1 << s >> 1)) >> s, low, high)


def compand(y_hat: np.ndarray) -> np.ndarray:
    v = (y_hat + 2) >> 2
    size = np.abs(v)
    return np.where(size <= 64, v, np.sign(v) * np.minimum(127, 64 + ((size - 64) >> 4)))


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (N, h, w)"""
    _, h, w = x.shape
    x, weight = np.pad(x, ((0, 0), (1, 1), (1, 1))), weight.astype(np.int64)
    out = np.zeros((len(weight), h, w), np.int64) + bias[:, None, None]
    for u in range(3):
        for v in range(3):
            out += np.tensordot(weight[:, :, u, v], x[:, u : u + h, v : v + w], axes=1)
    return out


def shuffle(x: np.ndarray) -> np.ndarray:
    """(4N, h, w) -> (N, 2h, 2w)"""
    n, h, w = len(x) // 4, x.shape[1], x.shape[2]
    return x.reshape(n, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(n, 2 * h, 2 * w)


def hyper_synthesis(model: Model, z: np.ndarray, quality: int) -> np.ndarray:
    """z (Hz, Wz, Nz) and the header's quality byte -> psi (C_psi, H, W) int64"""
    plane = np.full((1, *z.shape[:2]), quality >> 1)
    f = np.concatenate([z.transpose(2, 0, 1), plane]).astype(np.int64)
    for layer in ("exact.h_s.0", "exact.h_s.1"):
        a = conv(f, model[f"{layer}.weight"], model[f"{layer}.bias"])
        f = shuffle(requantise(a, model[f"{layer}.shift"][:, None, None], 0, 127))
    return f


def sites(h: int, w: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (h, 1) and columns (h, w/2) of the sites of phase p."""
    row, j = np.arange(h)[:, None], np.arange(w // 2)
    return row, 2 * j + ((row & 1) if p == 0 else 1 - (row & 1))


def channel_features(model: Model, psi: np.ndarray, y_hat: np.ndarray, prefix: str) -> np.ndarray:
    """psi_g of a channel group but the first: psi, and what it sees of y_hat (channels, H, W) of those before it."""
    weight, bias, shift = (model[f"exact.{prefix}channel.{part}"] for part in PARTS)
    e = requantise(conv(compand(y_hat), weight, bias), shift[:, None, None], 0, 127)
    return np.concatenate([psi, e])


def phase_parameters(
    model: Model, psi: np.ndarray, y_hat: np.ndarray, p: int, prefix: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """mean and k of phase p, (H, W/2, M) int64, from psi and in phase 1 the anchors in y_hat (M, H, W); of a channel
    group psi is psi_g, y_hat its own channels and p 0 or 1.
    """
    row, column = sites(*psi.shape[1:], p)
    parts = [psi[:, row, column]]
    if p == 1:
        c = np.pad(compand(y_hat), ((0, 0), (2, 2), (2, 2)))
        parts += [c[:, row + i // 5, column + i % 5] for i in range(1, 25, 2)]
    x, m = np.concatenate(parts).transpose(1, 2, 0), len(y_hat)
    weight, bias, shift = ([model[f"exact.{prefix}{layer}.{part}"] for layer in G_EP] for part in PARTS)
    weight = [w.astype(np.int64).T for w in weight]
    h1 = requantise(x @ weight[0][: x.shape[-1]] + bias[0][p], shift[0], 0, 127)
    h2 = requantise(h1 @ weight[1] + bias[1], shift[1], 0, 127)
    o, s = h2 @ weight[2] + bias[2], shift[2]
    return requantise(o[..., :m], s[:m], -16383, 16383), requantise(o[..., m:], s[m:], 0, 63)
