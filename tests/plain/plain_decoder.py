"""A slow, clear decoder of .ckbd streams, from bytes to latents, written from docs/ alone.

It imports nothing of ckbd, so that where the two agree it is the documents that made them agree. This file
follows docs/format.md: container, payload, phases; plain_numerics.py has the model and docs/numerics.md.

    python tests/plain/plain_decoder.py MODEL FILE
"""

import hashlib
import math
import sys
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import plain_numerics as exact
from plain_numerics import Model, PlainError, Table, load_model, model_identity, require, y_table, z_table


@dataclass
class Latents:
    width: int
    height: int
    gray: bool
    quality: int  # the header's byte: twice the quality
    lanes: int
    skip_max: int
    tail: int
    z: np.ndarray  # (Hz, Wz, Nz) int16
    mean: list[np.ndarray]  # of each phase (H, W/2, M) int16, in 1/16
    k: list[np.ndarray]  # of each phase (H, W/2, M) uint8
    r: list[np.ndarray]  # of each phase (H, W/2, M) int16
    y_hat: np.ndarray  # (M, H, W) int16, in 1/16
    icc: bytes | None
    alpha: np.ndarray | None  # (height, width) uint8


CRC_TABLE = list(range(256))
for _ in range(8):
    CRC_TABLE = [(c >> 1) ^ (0x82F63B78 if c & 1 else 0) for c in CRC_TABLE]  # 0x1EDC6F41, its bits reversed


def crc32c(data: bytes) -> int:
    c = 0xFFFFFFFF
    for byte in data:
        c = (c >> 8) ^ CRC_TABLE[(c ^ byte) & 255]
    return c ^ 0xFFFFFFFF


class Reader:
    """Takes fields off data[at:end]; `at` moves on."""

    def __init__(self, data: bytes, at: int, end: int):
        self.data, self.at, self.end = data, at, end

    def take(self, field: str, n: int) -> bytes:
        require(self.at + n <= self.end, field, self.at, f"needs {n} bytes, {self.end - self.at} are left")
        self.at += n
        return self.data[self.at - n : self.at]

    def byte(self, field: str) -> int:
        return self.take(field, 1)[0]

    def varint(self, field: str) -> int:
        start, value = self.at, 0
        for i in range(5):
            byte = self.byte(field)
            value |= (byte & 127) << 7 * i
            if byte < 128:
                require(byte > 0 or i == 0, field, start, "is not the shortest form of its value")
                require(value < 2**32, field, start, "is 2^32 or more")
                return value
        raise PlainError(field, start, "is a varint of more than 5 bytes")

    def crc(self, field: str, start: int) -> None:
        """Checks the CRC that stands here against the bytes from `start` up to here."""
        at, want = self.at, crc32c(self.data[start : self.at])
        got = int.from_bytes(self.take(field, 4), "little")
        require(got == want, field, at, f"is {got:08x}, the bytes give {want:08x}")


class Bits:
    """Takes numbers off the bits of the bytes from where `reader` stands, least significant bits first."""

    def __init__(self, reader: Reader, field: str):
        self.reader, self.field, self.byte, self.left = reader, field, 0, 0

    def number(self, n: int) -> int:
        """Of the next n bits."""
        value = 0
        for i in range(n):
            if self.left == 0:
                self.byte, self.left = self.reader.byte(self.field), 8
            value |= (self.byte & 1) << i
            self.byte, self.left = self.byte >> 1, self.left - 1
        return value

    def ones(self) -> int:
        """How many one-bits stand before the next zero-bit."""
        n = 0
        while self.number(1) == 1:
            n += 1
        return n

    def finish(self) -> None:
        require(self.byte == 0, self.field, self.reader.at - 1, "are padded with a bit that is not 0")


def decode(stream: bytes, model: Model, max_pixels: int = 2**27) -> Latents:
    """The latents in `stream`. Raises PlainError where the stream or the model breaks a must."""
    exact.check_model(model)
    file = Reader(stream, 0, len(stream))
    require(file.take("magic", 3) == b"\xcbkb", "magic", 0, "is not CB 6B 62")
    require(file.byte("version") == 1, "version", 3, "is not 1")
    identity = file.take("model", 6)
    flags, quality, coder = file.byte("flags"), file.byte("quality"), file.byte("coder")
    value, at = {}, {}
    for name in ["width", "height", "tail", "payload_length"] + ["section_count"] * (flags >> 1 & 1):
        at[name], value[name] = file.at, file.varint(name)
    file.crc("header_crc", 0)
    require(flags < 4, "flags", 10, "has a reserved bit set")
    require(2 <= quality <= 200, "quality", 11, f"is {quality}, not in 2..200")
    require(coder < 128 and coder & 7 <= 5, "coder", 12, f"is {coder:#04x}")
    width, height, lanes, skip_max = value["width"], value["height"], 1 << (coder & 7), coder >> 3
    for name in value:
        require(value[name] > 0 or name in ("tail", "payload_length"), name, at[name], "is 0")
    require((value["tail"] > 0) == (lanes > 1), "tail", at["tail"], f"is {value['tail']}, L = {lanes}")
    ours = model_identity(model)
    require(identity == ours, "model", 4, f"is {identity.hex()}, the model given is {ours.hex()}")
    require(width * height <= max_pixels, "width", at["width"], f"x height is above {max_pixels} pixels")

    start = file.at
    file.take("payload", value["payload_length"])
    end = file.at
    file.crc("payload_crc", start)
    icc, alpha = read_sections(file, value.get("section_count", 0), height, width)
    require(file.at == len(stream), "file", file.at, f"goes on for {len(stream) - file.at} bytes")

    hz, wz = -(-height // 64), -(-width // 64)
    # Near 2^16 a state may pay a little less than log2(4096 / f) for a symbol, but never less than 7/8 of it.
    least = hz * wz * sum(math.log2(4096 / f) for f in model["table.z.freq"].max(axis=1).tolist()) * 7 / 8
    require(8 * (end - start) >= least, "payload_length", at["payload_length"], "is too short for z")
    groups = exact.prefixes(model)
    payload = Payload(Reader(stream, start, end), lanes, 2 * len(groups))
    z = decode_z(model, payload, hz * wz).reshape(hz, wz, -1)
    psi = exact.hyper_synthesis(model, z, quality)
    y_hat = np.zeros((0, 4 * hz, 4 * wz), np.int64)  # of the groups so far
    means, ks, rs = [], [], []
    for g, prefix in enumerate(groups):
        psi_g = exact.channel_features(model, psi, y_hat, prefix) if g > 0 else psi
        own = np.zeros((len(model[f"exact.{prefix}output.shift"]) // 2, 4 * hz, 4 * wz), np.int64)
        for p in (0, 1):
            mean, k = exact.phase_parameters(model, psi_g, own, p, prefix)
            last = g + 1 == len(groups) and p == 1
            tail, exceptions = value["tail"] if last else 0, payload.exceptions[2 * g + p]
            r = decode_phase(model, payload, k, exceptions, skip_max, tail, at["tail"])
            row, column = exact.sites(4 * hz, 4 * wz, p)
            own[:, row, column] = (16 * r + mean).transpose(2, 0, 1)
            means.append(mean.astype(np.int16))
            ks.append(k.astype(np.uint8))
            rs.append(r.astype(np.int16))
        y_hat = np.concatenate([y_hat, own])
    payload.finish()
    header = (width, height, bool(flags & 1), quality, lanes, skip_max, value["tail"])
    return Latents(*header, z.astype(np.int16), means, ks, rs, y_hat.astype(np.int16), icc, alpha)


def read_sections(file: Reader, count: int, height: int, width: int) -> tuple:
    """ICC profile (bytes) and alpha plane (array) of `count` sections, None where there is none."""
    icc, alpha, seen = None, None, set()
    for _ in range(count):
        start = file.at
        kind = file.byte("section type")
        require(kind in (1, 2) or kind >= 128, "section type", start, f"is {kind}, which is unknown")
        require(kind not in seen, "section type", start, f"{kind} occurs twice")
        seen.add(kind)
        length = file.varint("section length")
        at, body = file.at, file.take("section body", length)
        file.crc("section crc", start)
        if kind == 1:
            icc = body
        elif kind == 2:
            expander = zlib.decompressobj()
            try:
                plane = expander.decompress(body, height * width + 1)
            except zlib.error as error:
                raise PlainError("alpha", at, str(error)) from error
            whole = expander.eof and not expander.unused_data and len(plane) == height * width
            require(whole, "alpha", at, f"is not one zlib stream of {height * width} bytes")
            alpha = np.cumsum(np.frombuffer(plane, np.uint8).reshape(height, width), axis=1, dtype=np.uint8)
    return icc, alpha


class Payload:
    """The parts of a payload and the lanes that read it. The reader stands at the next word."""

    def __init__(self, reader: Reader, lanes: int, phases: int = 2):
        self.reader, self.start, self.states = reader, reader.at, []
        bits = Bits(reader, "lane states")
        for _ in range(lanes):
            e = bits.number(4)
            self.states.append((1 << (16 + e)) + bits.number(16 + e))
        bits.finish()
        self.exceptions = [self.read_exceptions() for _ in range(phases)]
        count = reader.varint("escape count")
        self.escapes = [(reader.at, reader.varint("escape value")) for _ in range(count)][::-1]
        require((reader.end - reader.at) % 2 == 0, "words", reader.at, "are an odd number of bytes")
        self.tail_words: list[int] | None = None  # of the tail, once it has begun

    def read_exceptions(self) -> list[tuple[int, int, int]]:
        """Of a phase: index in the skipped group, r, offset in the file."""
        count, index, exceptions = self.reader.varint("exception count"), -1, []
        if count == 0:
            return exceptions
        b = self.reader.byte("exception b")
        require(b <= 24, "exception b", self.reader.at - 1, f"is {b}, not in 0..24")
        bits = Bits(self.reader, "exceptions")
        for _ in range(count):
            at = self.reader.at - (bits.left > 0)
            index += 1 + (bits.ones() << b) + bits.number(b)
            sign = -1 if bits.number(1) == 1 else 1
            m = bits.ones()
            require(m <= 15, "exception value", at, f"has {m} bits")
            size = (1 << m) + bits.number(m)
            require(size <= 1023, "exception value", at, f"gives |r| = {size}")
            exceptions.append((index, sign * size, at))
        bits.finish()
        return exceptions

    def symbol(self, lane: int, table: Table) -> tuple[int, bool]:
        """The next symbol of `lane`, and whether it is an escape."""
        x = self.states[lane]
        symbol, f, bias, escape = table[x & 4095]
        x = f * (x >> 12) + bias
        if x < 2**16:
            if self.tail_words is None:
                word = int.from_bytes(self.reader.take("words", 2), "little")
            else:
                require(len(self.tail_words) > 0, "tail", self.start, "needs more words than there are lanes")
                word = self.tail_words.pop(0)
            x = (x << 16) + word
        self.states[lane] = x
        return symbol, escape

    def escape(self) -> tuple[int, int]:
        """Offset in the file and value of the next escape."""
        require(len(self.escapes) > 0, "escape count", self.start, "is less than the symbols need")
        return self.escapes.pop()

    def begin_tail(self) -> None:
        for lane, x in enumerate(self.states[1:], 1):
            require(x < 2**17, "lane states", self.start, f"leave lane {lane} at {x:#x} before the tail")
        self.tail_words = [x & 0xFFFF for x in self.states[1:]]

    def finish(self) -> None:
        require(not self.escapes, "escape count", self.start, "is more than the symbols need")
        require(self.reader.at == self.reader.end, "words", self.reader.at, "are not all used")
        require(not self.tail_words, "tail", self.start, "does not use all words of the other lanes")
        require(self.states[0] == 2**16, "lane states", self.start, f"end with lane 0 at {self.states[0]:#x}")


def decode_z(model: Model, payload: Payload, positions: int) -> np.ndarray:
    """z, (positions * Nz,) int64."""
    low = model["table.z.low"].tolist()
    tables = [z_table(model, c) for c in range(len(low))]
    z = np.zeros(positions * len(low), np.int64)
    for i in range(len(z)):
        c, at = i % len(low), payload.start
        symbol, escape = payload.symbol(i % len(payload.states), tables[c])
        if escape:
            at, u = payload.escape()
            symbol = low[c] - 1 - (u - 1) // 2 if u & 1 else symbol + u // 2
        require(-127 <= symbol <= 127, "z", at, f"holds {symbol}")
        z[i] = symbol
    return z


def decode_phase(
    model: Model,
    payload: Payload,
    k: np.ndarray,
    exceptions: list[tuple[int, int, int]],
    skip_max: int,
    tail: int,
    tail_at: int,
) -> np.ndarray:
    """r of a phase, (H, W/2, M) int64, from its k. `tail` is 0 in a phase or a stream that has none."""
    flat, lanes = k.ravel(), len(payload.states)
    r = np.zeros(len(flat), np.int64)
    skipped = np.flatnonzero(flat <= skip_max)
    for index, value, at in exceptions:
        require(index < len(skipped), "exception gap", at, f"leads to {index} of {len(skipped)} skipped")
        r[skipped[index]] = value
    coded = []
    for group in ((flat > skip_max) & (flat <= 22), (flat > skip_max) & (flat > 22)):
        coded += [(i % lanes, position) for i, position in enumerate(np.flatnonzero(group).tolist())]
    require(tail <= len(coded), "tail", tail_at, f"is {tail}, symbols are {len(coded)}")
    tables = {scale: y_table(model, scale) for scale in np.unique(flat).tolist()}
    for n, (lane, position) in enumerate(coded):
        if tail == len(coded) - n:
            payload.begin_tail()
        symbol, escape = payload.symbol(0 if payload.tail_words is not None else lane, tables[flat[position]])
        if escape:
            at, u = payload.escape()
            symbol += u if symbol > 0 else -u
            require(abs(symbol) <= 1023, "escape value", at, f"gives r = {symbol}")
        r[position] = symbol
    return r.reshape(k.shape)


def main() -> None:
    model, stream = load_model(sys.argv[1]), Path(sys.argv[2]).read_bytes()
    latents = decode(stream, model)
    for field in fields(Latents)[:7]:
        print(field.name, getattr(latents, field.name))
    print("y_hat", hashlib.sha256(latents.y_hat.astype("<i2").tobytes()).hexdigest())


if __name__ == "__main__":
    main()
