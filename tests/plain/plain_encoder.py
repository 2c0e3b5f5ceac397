"""An encoder of latents into .ckbd streams, from docs/format.md alone, so that tests can make any stream.

The exact zone is the decoder's own (plain_numerics.py); everything from there to the bytes is written again.
"""

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
import plain_numerics as exact
from plain_decoder import crc32c

NZ, M, C1, C_PSI, H1, H2 = 3, 4, 2, 4, 8, 8  # of the tiny model
Slot = tuple[int, int, int]  # of a symbol in its table: f, first slot, distance between its slots


@dataclass
class Parts:
    """A stream taken apart; a test may change any of it before `join`."""

    model: bytes
    width: int
    height: int
    states: list[int]
    exceptions: list[list[tuple[int, int]]]  # of each phase: elements skipped with r = 0 before it, r
    escapes: list[int]
    words: list[int]
    tail: int
    lanes: int
    skip_max: int
    quality: int = 100
    gray: bool = False
    sections: list[bytes] = field(default_factory=list)
    version: int = 1
    b: int = 2  # of both phases' exceptions


def varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32c(data))


def section(kind: int, body: bytes) -> bytes:
    return with_crc(bytes([kind]) + varint(len(body)) + body)


def alpha_section(alpha: np.ndarray) -> bytes:
    rows = [bytes((b - a) % 256 for a, b in zip(b"\0" + row, row, strict=False)) for row in map(bytes, alpha)]
    return section(2, zlib.compress(b"".join(rows)))


def exception_bits(exceptions: list[tuple[int, int]], b: int) -> str:
    """0 and 1 in the order in which they are read."""
    bits = ""
    for gap, r in exceptions:
        m = abs(r).bit_length() - 1
        bits += "1" * (gap >> b) + "0" + "".join(str(gap >> i & 1) for i in range(b))
        bits += str(int(r < 0)) + "1" * m + "0" + "".join(str(abs(r) >> i & 1) for i in range(m))
    return bits


def bits_bytes(bits: str) -> bytes:
    return int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")


def payload_bytes(parts: Parts) -> bytes:
    bits = used = 0
    for x in parts.states:
        e = x.bit_length() - 17
        bits |= e << used | (x - (1 << 16 + e)) << used + 4
        used += 20 + e
    data = bits.to_bytes(-(-used // 8), "little")
    for exceptions in parts.exceptions:
        data += varint(len(exceptions))
        if exceptions:
            data += bytes([parts.b]) + bits_bytes(exception_bits(exceptions, parts.b))
    data += varint(len(parts.escapes)) + b"".join(map(varint, parts.escapes))
    return data + struct.pack(f"<{len(parts.words)}H", *parts.words)


def header_bytes(parts: Parts, payload_length: int) -> bytes:
    head = b"\xcbkb" + bytes([parts.version]) + parts.model
    head += bytes([parts.gray | (len(parts.sections) > 0) << 1, parts.quality])
    head += bytes([parts.lanes.bit_length() - 1 | parts.skip_max << 3])
    head += b"".join(map(varint, (parts.width, parts.height, parts.tail, payload_length)))
    return head + (varint(len(parts.sections)) if parts.sections else b"")


def join(parts: Parts, payload: bytes | None = None) -> bytes:
    payload = payload_bytes(parts) if payload is None else payload
    return with_crc(header_bytes(parts, len(payload))) + with_crc(payload) + b"".join(parts.sections)


def z_slot(model: exact.Model, c: int, value: int, escapes: list[int]) -> Slot:
    low, size = int(model["table.z.low"][c]), int(model["table.z.size"][c])
    i = value - low
    if not 0 <= i < size:
        escapes.append(2 * (i - size) if i >= size else 2 * (low - 1 - value) + 1)
        i = size
    freq = model["table.z.freq"][c].tolist()
    return freq[i], sum(freq[:i]), 1


def y_slot(model: exact.Model, k: int, r: int, escapes: list[int]) -> Slot:
    freq, last = model["table.y.freq"][k].tolist(), int(model["table.y.max"][k]) + 1
    m = min(abs(r), last)
    if m == last:
        escapes.append(abs(r) - last)
    if m == 0:
        return freq[0], 0, 1
    return freq[m], freq[0] + 2 * sum(freq[1:m]) + (r < 0), 2


def put(x: int, slot: Slot, words: list[int]) -> int:
    """The state from which a decoder gets the symbol of `slot` and then x: steps 1 to 3 backwards."""
    f, first, step = slot
    if x >= f << 20:  # the new state would be 2^32 or more
        words.append(x & 0xFFFF)
        x >>= 16
    return (x // f << 12) + first + step * (x % f)


def encode(
    model: exact.Model,
    width: int,
    height: int,
    z: np.ndarray,
    r: list[np.ndarray],
    *,
    lanes: int = 1,
    skip_max: int = 0,
    quality: int = 100,
    b: int = 2,
    longer_tail: int = 0,
    unfilled: int = 0,
    floors: tuple[int, int] = (1 << 16, 1 << 16),
) -> Parts:
    """z (Hz, Wz, Nz) and r of both phases (H, W/2, M) as a stream's parts.

    Takes fewer lanes where phase 1 has too few symbols to fill them. `longer_tail` more symbols than need be
    go into the tail. For streams that are wrong: `unfilled` lanes get no word of the tail; `floors` are the
    state of lane 0 after the last symbol and the smallest of the other lanes before the tail.
    """
    escapes: list[int] = []
    nz = z.shape[-1]
    groups = [[z_slot(model, i % nz, n, escapes) for i, n in enumerate(z.ravel().tolist())]]
    exceptions = []
    psi = exact.hyper_synthesis(model, z, quality)
    y_hat = np.zeros((r[0].shape[-1], *psi.shape[1:]), np.int64)
    for p in (0, 1):
        mean, k = exact.phase_parameters(model, psi, y_hat, p)
        row, column = exact.sites(*psi.shape[1:], p)
        y_hat[:, row, column] = (16 * r[p].astype(np.int64) + mean).transpose(2, 0, 1)
        skipped, narrow, wide = [], [], []
        scales, values = k.ravel().tolist(), r[p].ravel().tolist()
        for scale, value in zip(scales, values, strict=True):
            if scale > skip_max:
                (narrow if scale <= 22 else wide).append((scale, value))
            else:
                skipped.append(value)
        listed = [(i, value) for i, value in enumerate(skipped) if value != 0]
        before = [-1] + [i for i, _ in listed]
        exceptions.append([(i - last - 1, n) for (i, n), last in zip(listed, before, strict=False)])
        for group in (narrow, wide):
            groups.append([y_slot(model, scale, value, escapes) for scale, value in group])

    while True:
        states, words, tail = [floors[0]], [], 0
        coded = [(i % lanes, slot) for group in groups for i, slot in enumerate(group)]
        phase_1 = len(groups[3]) + len(groups[4])
        while len(words) < lanes - 1 - unfilled and tail < phase_1:
            tail += 1
            states[0] = put(states[0], coded[-tail][1], words)
        if len(words) == max(lanes - 1 - unfilled, 0):
            break
        lanes //= 2
    for _ in range(longer_tail if lanes > 1 else 0):
        tail += 1
        states[0] = put(states[0], coded[-tail][1], words)
    if len(words) > lanes - 1:
        raise ValueError(f"longer_tail = {longer_tail} needs more words than the {lanes} lanes take")
    states += [floors[1] | word for word in words[::-1] + [0] * (lanes - 1 - len(words))]
    words = []
    for lane, slot in reversed(coded[: len(coded) - tail]):
        states[lane] = put(states[lane], slot, words)
    identity = exact.model_identity(model)
    lists = (states, exceptions, escapes, words[::-1])
    return Parts(identity, width, height, *lists, tail, lanes, skip_max, quality, b=b)


def tiny_model(seed: int = 0) -> dict[str, np.ndarray]:
    """Integers at random, so scaled that mean and k are spread over their ranges."""
    rng = np.random.default_rng(seed)
    shapes = {"h_s.0": (4 * C1, NZ + 1, 3, 3), "h_s.1": (4 * C_PSI, C1, 3, 3), "first": (H1, C_PSI + 12 * M),
              "hidden": (H2, H1), "output": (2 * M, H2)}  # fmt: skip
    model = {}
    for (layer, shape), shift in zip(shapes.items(), (7, 8, 8, 8, 8), strict=True):
        n = shape[0]
        bias = (2, n) if layer == "first" else (n,)
        model[f"exact.{layer}.weight"] = rng.integers(-127, 128, shape).astype(np.int8)
        model[f"exact.{layer}.bias"] = (rng.integers(0, 80, bias) << shift).astype(np.int32)
        model[f"exact.{layer}.shift"] = np.full(n, shift, np.uint8)
    model["exact.output.weight"][M:] //= 4
    model["exact.output.bias"][M:] = np.array([0, 12, 25, 40]) << 8
    model["exact.output.shift"][:M] = np.arange(M)
    low = np.array([-3, 0, -127])
    size = np.array([7, 1, 255])
    z_freq = np.zeros((NZ, 256), np.int64)
    for c in range(NZ):
        z_freq[c, : size[c] + 1] = 3
        z_freq[c, size[c] // 2] += 4096 - z_freq[c].sum()
    last = [max(1, k // 4) if k <= 22 else min(126, 3 * k - 60) for k in range(64)]
    y_freq = np.zeros((64, 128), np.int64)
    for k, max_k in enumerate(last):
        spread = 1 + k * k // 4
        raw = [1000 * spread // (spread + m * m) for m in range(1, max_k + 2)]
        y_freq[k, 1 : max_k + 2] = [1 + (200 + 20 * k) * n // sum(raw) for n in raw]
        y_freq[k, 0] = 4096 - 2 * y_freq[k].sum()
    tables = {"y.freq": y_freq, "y.max": last, "z.freq": z_freq, "z.low": low, "z.size": size}
    for name, a in tables.items():
        model[f"table.{name}"] = np.asarray(a, np.uint8 if name == "y.max" else np.int16)
    return model


def latents(width: int, height: int, seed: int = 0, reach: int = 40) -> tuple[np.ndarray, list[np.ndarray]]:
    """z and r of both phases; r is often 0, and beyond every table now and then."""
    rng = np.random.default_rng((seed, width, height))
    hz, wz = -(-height // 64), -(-width // 64)
    z = rng.integers(-30, 31, (hz, wz, NZ))
    shape = (2, 4 * hz, 2 * wz, M)
    r = (rng.integers(-reach, reach + 1, shape) / rng.choice([1, 5, 20, reach + 1], shape)).astype(int)
    return z, list(np.where(rng.random(shape) < 0.02, rng.choice([-1023, 1023], shape), r))
