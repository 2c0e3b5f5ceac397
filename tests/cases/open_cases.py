"""Streams for Batch, good and bad, and what Python makes of them: the chain of parse, check_fits and Decoder."""

import functools
import json
import struct
from pathlib import Path

import numpy as np
import torch
from rans_cases import TABLES, check_margins, room

import ckbd
from ckbd import _rans
from ckbd._rans import crc32c
from ckbd.codec import batches, checks, container, limits
from ckbd.codec.container import FormatError, Header, Stream, pack, varint
from ckbd.codec.tables import coder_tables
from ckbd.kernels import numerics

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = tuple(json.loads((GOLDEN / "golden.json").read_text())["streams"])
STREAMS = {path.stem: path.read_bytes() for path in sorted(GOLDEN.glob("*.ckbd"))}
CODEC = ckbd.load(GOLDEN / "model.safetensors", threads=1)
MODEL, NZ, M = CODEC.decoder.model.identity, CODEC.decoder.model.config.Nz, CODEC.decoder.model.config.M
GOLDEN_TABLES = coder_tables(CODEC.decoder.model.tables)
MOST = (1 << 64) - 1
OTHER = {"tables": TABLES, "model": b"modelx", "channels": 3}  # tables of rans_cases.py, for streams of our own


def batch(streams, *, tables=GOLDEN_TABLES, max_pixels=limits.MAX_PIXELS, model=MODEL, channels=M, **options):
    return _rans.Batch(tables, streams, model=model, channels=channels, max_pixels=max_pixels, **options)


class Chain:
    """One stream by Python: the error's triple, or what it says of itself; then its symbols or the triple."""

    def __init__(self, data, max_pixels=limits.MAX_PIXELS, tables=GOLDEN_TABLES, model=MODEL, channels=M):
        self.error, self.header, self.n_z, self.n_r = None, (0,) * 8, 0, 0
        try:
            s = self.stream = container.parse(data, max_pixels)
            h, (down, across) = s.header, batches.patches(s.header.height, s.header.width)
            checks.check_fits(s, model, down * across, tables)
            kinds = {"lanes_log2": h.lanes_log2, "skip_max": h.skip_max, "tail": h.tail}
            self.coder = _rans.Decoder(tables, s.payload, **kinds)
        except FormatError as error:
            self.error = error.field, error.offset, error.reason
        except _rans.StreamError as error:
            self.fail(error)
        else:
            places = s.payload_offset, len(s.payload), len(s.sections)
            self.header = (1, h.width, h.height, h.quality2, int(h.gray), *places)
            self.n_z, self.n_r = down * across * tables.channels, down * across * 8 * channels

    def fail(self, error):
        found = checks.damage(self.stream, error)
        self.error = found.field, found.offset, found.reason

    def step(self, name, limit, out, *args):
        """A step of the decoder, unless one has failed; out is zeroed if this one does."""
        if self.error is None:
            try:
                getattr(self.coder, "z" if name == "z symbol" else "phase")(*args, out)
                checks.check_range([self.stream], out[None], name, limit)
            except FormatError as error:
                self.error = error.field, error.offset, error.reason
            except _rans.StreamError as error:
                self.fail(error)
        if self.error is not None:
            out[:] = 0
        return out

    def symbols(self, ks):
        if self.n_z == 0:
            return [np.zeros(0, np.int16)] * 3
        found = [self.step("z symbol", numerics.ACT_MAX, np.empty(self.n_z, np.int16))]
        for k in ks:
            found.append(self.step("residual", numerics.R_MAX, np.empty(self.n_r, np.int16), k))
        if self.error is None:
            try:
                self.coder.finish()
            except _rans.StreamError as error:
                self.fail(error)
        return found


def opened(made, n):
    headers = np.full((n, 8), -1, np.int64)
    made.headers(headers)
    return headers


def errors_of(chains):
    return [(i, *one.error) for i, one in enumerate(chains) if one.error is not None]


def check_opening(streams, max_pixels=limits.MAX_PIXELS, **options):
    """Batch's outcome of each is the chain's; returns the fields in which they fail."""
    chains = [Chain(data, max_pixels, **options) for data in streams]
    made = batch(streams, max_pixels=max_pixels, **options)
    assert made.errors() == errors_of(chains)
    assert [tuple(row) for row in opened(made, len(streams)).tolist()] == [one.header for one in chains]
    return [one.error and one.error[0] for one in chains]


def check_decoding(streams, all_ks, *, isa=None, threads=1, **options):
    """So are its symbols and errors in decoding, by these table indices; returns the fields of errors."""
    chains = [Chain(data, **options) for data in streams]
    ks = [k if one.n_r else [np.zeros(0, np.uint8)] * 2 for one, k in zip(chains, all_ks, strict=True)]
    symbols = [one.symbols(k) for one, k in zip(chains, ks, strict=True)]
    made = batch(streams, isa=isa, threads=threads, **options)
    parts = [np.concatenate(part) if streams else np.zeros(0, np.int16) for part in zip(*symbols, strict=True)]
    z, outs = room(sum(one.n_z for one in chains), np.int16), []
    made.z(z, threads=threads)
    assert np.array_equal(z, parts[0])
    for p in range(2):
        k = np.concatenate([k[p] for k in ks])
        out = room(len(k), np.int8)
        places, values = made.phase(k, out, threads=threads)
        places, values = np.frombuffer(places, np.int64), np.frombuffer(values, np.int16)
        far = np.abs(parts[p + 1].astype(int) + 0.5) > 128
        assert np.array_equal(places, np.flatnonzero(far)) and np.array_equal(values, parts[p + 1][far])
        assert np.array_equal(out, np.where(far, 0, parts[p + 1]))
        outs.append((k, out))
    made.finish()
    check_margins(z, outs)
    assert made.errors() == errors_of(chains)
    return [one.error and one.error[0] for one in chains]


@functools.cache
def true_indices(name):
    """k of both phases of a golden stream."""
    d = CODEC.decoder
    with torch.inference_mode():
        opened = d.open([d.parse(STREAMS[name])])
        state, ks = d.h_s(opened, d.z(opened)), []
        for p in (0, 1):
            k = d.phase(state, p).contiguous().numpy()
            ks.append(k.reshape(-1).copy())
            d.assemble(state, p, d.residuals(opened, k))
    return ks


def flip(data, bit):
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def flips(data, bits):
    return [flip(data, bit) for bit in bits]


def with_crc(data):
    return data + struct.pack("<I", crc32c(data))


def head(flags=0, quality=100, coder=0x08, sizes=(64, 64, 0, 4), more=b"", magic=b"\xcbkb", version=1, model=MODEL):
    sizes = b"".join(n if isinstance(n, bytes) else varint(n) for n in sizes)
    return with_crc(magic + bytes([version]) + model + bytes([flags, quality, coder]) + sizes + more)


def whole(payload=b"abcd", sections=b"", **changes):
    return head(**changes) + with_crc(payload) + sections


def sections(*all_of, count=None):
    """A stream with these, each (type, body)."""
    made = b"".join(with_crc(bytes([kind]) + varint(len(body)) + body) for kind, body in all_of)
    return whole(flags=2, more=varint(len(all_of) if count is None else count), sections=made)


def varints(at):
    """Wrong numbers in the place of one."""
    big = b"\xff" * 4
    for wrong in (b"\x80\0", b"\xff\0", b"\x80\x80\x80\x80\0", big + b"\x10", big + b"\x7f", big + b"\xff\xff"):
        sizes = [64, 64, 0, 4]
        sizes[at] = wrong
        yield whole(sizes=sizes)


def own(phases, z, width, height, lanes=None):
    """A stream of OTHER."""
    payload, lanes_log2, skip_max, tail = _rans.encode(TABLES, z, phases, lanes=lanes)
    header = Header(b"modelx", 100, width, height, lanes_log2=lanes_log2, skip_max=skip_max, tail=tail)
    return pack(Stream(header, payload))


def ready(streams, **options):
    """A batch, and arrays for it."""
    made = batch(streams, **options)
    headers = opened(made, len(streams))
    sites = sum(-(-w // 64) * -(-h // 64) for _, w, h, *_ in headers.tolist())
    return made, np.zeros(sites * NZ, np.int16), np.zeros(sites * 8 * M, np.uint8), np.zeros(sites * 8 * M, np.int8)
