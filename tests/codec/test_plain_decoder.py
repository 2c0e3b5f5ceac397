"""The plain decoder: round trips through the plain encoder, and a named refusal of all that is forbidden."""

import hashlib
import sys
import zlib
from dataclasses import replace

import numpy as np
import plain_decoder
import pytest
from plain_decoder import Payload, PlainError, Reader, crc32c, decode, load_model, model_identity
from plain_encoder import (
    Parts,
    alpha_section,
    encode,
    header_bytes,
    join,
    latents,
    payload_bytes,
    section,
    tiny_model,
    varint,
    with_crc,
)
from safetensors.numpy import save_file

MODEL = tiny_model(1)


def check_round_trip(width: int, height: int, model: dict = MODEL, seed: int = 0, **settings) -> Parts:
    z, r = latents(width, height, seed)
    parts = encode(model, width, height, z, r, **settings)
    got = decode(join(parts), model)
    assert (got.width, got.height, got.quality, got.lanes) == (width, height, parts.quality, parts.lanes)
    assert np.array_equal(got.z, z)
    assert all(np.array_equal(a, b) for a, b in zip(got.r, r, strict=True))
    assert (got.z.dtype, got.y_hat.dtype, got.y_hat.flags.c_contiguous) == (np.int16, np.int16, True)
    return parts


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 130), (200, 3)])
def test_round_trip(size, lanes):
    parts = check_round_trip(*size, lanes=lanes)
    assert parts.lanes == lanes or size != (65, 130)


@pytest.mark.parametrize("skip_max", range(16))
def test_skip_max(skip_max):
    parts = check_round_trip(100, 65, lanes=4, skip_max=skip_max, quality=2 + 13 * skip_max)
    assert all(parts.exceptions)


@pytest.mark.parametrize("b", [0, 1, 4, 8, 9, 23, 24])
def test_exception_parameter(b):
    z, r = latents(129, 65)
    rare = np.random.default_rng(0).random((2, *r[0].shape)) < 0.1
    r = [np.where(keep, a, 0) for keep, a in zip(rare, r, strict=True)]
    parts = encode(MODEL, 129, 65, z, r, skip_max=15, b=b)
    assert np.array_equal(decode(join(parts), MODEL).r, r)
    assert all(max(listed)[0] >= 2**4 for listed in parts.exceptions)


@pytest.mark.parametrize("seed", range(6))
def test_models(seed):
    check_round_trip(65, 65, tiny_model(seed), seed, lanes=2, quality=200)


def test_tail_may_be_longer():
    lengths = [check_round_trip(65, 64, lanes=4, longer_tail=n).tail for n in (0, 1)]
    assert lengths[1] == lengths[0] + 1


def test_sections():
    z, r = latents(65, 3)
    parts = encode(MODEL, 65, 3, z, r)
    alpha = np.random.default_rng(0).integers(0, 256, (3, 65)).astype(np.uint8)
    parts.sections = [section(200, b"later"), alpha_section(alpha), section(1, b"profile")]
    got = decode(join(replace(parts, gray=True)), MODEL)
    assert got.icc == b"profile" and got.gray
    assert np.array_equal(got.alpha, alpha)


def test_crc32c():
    assert crc32c(b"123456789") == 0xE3069283


def good(lanes: int = 4, **settings) -> Parts:
    z, r = latents(65, 64)
    return encode(MODEL, 65, 64, z, r, lanes=lanes, skip_max=3, **settings)


def refuse(stream: bytes, field: str, offset: int | None = None, model: dict = MODEL, **settings) -> None:
    with pytest.raises(PlainError) as refusal:
        decode(stream, model, **settings)
    assert refusal.value.field == field, refusal.value
    assert offset is None or refusal.value.offset == offset, refusal.value


def header_length(parts: Parts) -> int:
    """Offset of the payload in the file."""
    return len(header_bytes(parts, len(payload_bytes(parts)))) + 4


def test_every_flip_truncation_and_extension():
    z, r = latents(1, 1, reach=1)
    parts = encode(MODEL, 1, 1, z, r, lanes=2)
    parts.sections = [section(1, b"icc")]
    stream = join(parts)
    decode(stream, MODEL)
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PlainError):
            decode(bytes(flipped), MODEL)
    for n in range(len(stream)):
        with pytest.raises(PlainError):
            decode(stream[:n], MODEL)
    refuse(stream + b"\0", "file", len(stream))


def test_header():
    parts = good()
    head = join(parts)[:13]

    def with_sizes(sizes: bytes, at: int | None = None, byte: int = 0) -> bytes:
        start = head if at is None else head[:at] + bytes([byte]) + head[at + 1 :]
        return with_crc(start + sizes) + with_crc(payload_bytes(parts))

    length = varint(len(payload_bytes(parts)))
    sizes = varint(65) + varint(64) + varint(parts.tail) + length
    decode(with_sizes(sizes), MODEL)
    for at, byte, field in (
        (0, 0, "magic"),
        (3, 2, "version"),
        (9, head[9] ^ 1, "model"),
        (10, 4, "flags"),
        (10, 128, "flags"),
        (11, 1, "quality"),
        (11, 201, "quality"),
        (12, 6, "coder"),
        (12, 0x80, "coder"),
    ):
        refuse(with_sizes(sizes, at, byte), field, 4 if field == "model" else at)
    rest = varint(parts.tail) + length
    for width in (b"\xc1\0", b"\xc1\x80\0", b"\x80\x80\x80\x80\x10", b"\x80\x80\x80\x80\x80\x01", b"\0"):
        refuse(with_sizes(width + varint(64) + rest), "width", 13)
    refuse(with_sizes(varint(65) + b"\0" + rest), "height", 14)
    refuse(with_sizes(varint(2**14) + varint(2**14) + rest), "width", 13)
    refuse(with_sizes(varint(2**14) + varint(2**13) + rest), "payload_length", 19)
    refuse(with_sizes(sizes), "width", max_pixels=65 * 64 - 1)
    refuse(with_sizes(sizes + b"\0", 10, 2), "section_count", 13 + len(sizes))
    for at, field in ((3, "version"), (4, "header_crc"), (10, "header_crc"), (11, "header_crc")):
        damaged = bytearray(join(parts))
        damaged[at] ^= 128
        refuse(bytes(damaged), field)


def test_payload_too_short_for_z():
    model = {name: a.copy() for name, a in MODEL.items()}
    model["table.z.freq"][:] = 16
    model["table.z.low"][:] = -127
    model["table.z.size"][:] = 255
    parts = replace(good(), model=model_identity(model), width=1024, height=1024)
    least = 16 * 16 * len(model["table.z.low"]) * 7 // 8  # bytes, as each symbol is one of 256
    length_at = 13 + 2 * len(varint(1024)) + len(varint(parts.tail))
    refuse(join(parts, bytes(least - 1)), "payload_length", length_at, model)
    refuse(join(parts, bytes(least)), "words", model=model)


def test_tail():
    refuse(join(replace(good(lanes=1), tail=1)), "tail", 15)
    refuse(join(replace(good(lanes=2), tail=0)), "tail", 15)
    parts = good()
    coded = int((decode(join(parts), MODEL).k[1] > 3).sum())
    refuse(join(replace(parts, tail=coded + 1)), "tail", 15)
    refuse(join(good(unfilled=1)), "tail")
    unread = good(lanes=2, unfilled=1, longer_tail=1)
    refuse(join(unread), "tail", header_length(unread))
    for tail in (parts.tail - 1, parts.tail + 1, coded):
        with pytest.raises(PlainError):
            decode(join(replace(parts, tail=tail)), MODEL)


def test_end_state():
    refuse(join(good(lanes=1, floors=(2**16 + 1, 0))), "lane states")
    refuse(join(good(floors=(2**16 + 1, 2**16))), "lane states")
    refuse(join(good(floors=(2**16, 2**17))), "lane states")


def test_payload():
    parts = good(lanes=2)
    payload = payload_bytes(parts)
    data = bytearray(payload)
    used = sum(x.bit_length() + 3 for x in parts.states)
    assert used % 8 != 0
    data[used // 8] |= 0x80
    header = header_length(parts)
    refuse(join(parts, bytes(data)), "lane states", header + used // 8)
    refuse(join(parts, payload[:3]), "lane states")
    refuse(join(parts, payload + b"\0"), "words")
    refuse(join(parts, payload + b"\0\0"), "words")
    refuse(join(replace(parts, words=parts.words[:-1])), "words")
    refuse(join(replace(parts, escapes=parts.escapes + [0])), "escape count")
    refuse(join(replace(parts, escapes=parts.escapes[:-1])), "escape count")
    refuse(join(replace(parts, escapes=[2**20] + parts.escapes[1:])), "z")
    refuse(join(replace(parts, escapes=parts.escapes[:-1] + [1023])), "escape value")


def test_exceptions():
    parts = good()
    k = decode(join(parts), MODEL).k
    states = -(-sum(x.bit_length() + 3 for x in parts.states) // 8)
    for p in (0, 1):
        skipped = int((k[p] <= 3).sum())
        for listed, b, field in (
            ([(skipped, 1)], 24, "exception gap"),
            ([(skipped - 1, 1), (0, 1)], 24, "exception gap"),
            ([(2**33, 1)], 24, "exception gap"),
            ([(0, 1024)], 0, "exception value"),
            ([(0, -1024)], 9, "exception value"),
            ([(0, 2**16 - 1)], 9, "exception value"),
            ([(0, 2**16)], 9, "exception value"),
            ([(0, 1)], 25, "exception b"),
        ):
            exceptions = list(parts.exceptions)
            exceptions[p] = listed
            refuse(join(replace(parts, exceptions=exceptions, b=b)), field)
    for listed, b, field, at in (
        ([(2**33, 1)], 24, "exception gap", 2),
        ([(0, 1024)], 9, "exception value", 2),
        ([(0, 1)], 25, "exception b", 1),
    ):
        wrong = replace(parts, exceptions=[listed, []], b=b)
        refuse(join(wrong), field, header_length(wrong) + states + at)


def test_exception_layout():
    # In reading order: 10 011 1 110 01 (gap 8 + 6, r = -(4 + 2)), 0 100 0 0 (gap 1, r = 1), then padding.
    listed = [(14, -6), (1, 1)]
    parts = replace(good(lanes=1), states=[2**16], exceptions=[listed, []], escapes=[], words=[], b=3)
    data = bytes(3) + b"\2\3" + bytes([0b11111001, 0b00010100, 0]) + b"\0\0"
    assert payload_bytes(parts) == data
    payload = Payload(Reader(data, 0, len(data)), 1)
    assert payload.exceptions == [[(14, -6, 5), (16, 1, 6)], []]
    for bit in (1, 7):
        padded = bytearray(data)
        padded[7] |= 1 << bit
        with pytest.raises(PlainError, match="exceptions at byte 7: are padded"):
            Payload(Reader(bytes(padded), 0, len(padded)), 1)
    for n in (5, 6, 7):
        with pytest.raises(PlainError, match="exceptions at byte"):
            Payload(Reader(data, 0, n), 1)


def test_section_rules():
    parts = good()
    alpha = alpha_section(np.zeros((64, 65), np.uint8))
    damaged = section(200, b"x")[:-1] + b"\0"
    plane = zlib.compress(bytes(64 * 65))
    preset = zlib.compressobj(zdict=bytes(8))
    with_dictionary = preset.compress(bytes(64 * 65)) + preset.flush()
    for sections, field in (
        ([section(0, b"")], "section type"),
        ([section(127, b"")], "section type"),
        ([section(1, b""), section(1, b"")], "section type"),
        ([section(255, b""), section(255, b"")], "section type"),
        ([alpha, alpha], "section type"),
        ([damaged], "section crc"),
        ([section(1, b"")[:-1]], "section crc"),
        ([with_crc(b"\1\x80\0")], "section length"),
        ([b"\1\5abc"], "section body"),
        ([section(2, b"")], "alpha"),
        ([section(2, b"none")], "alpha"),
        ([section(2, plane[:-1])], "alpha"),
        ([section(2, plane + b"\0")], "alpha"),
        ([section(2, with_dictionary)], "alpha"),
        ([section(2, zlib.compress(bytes(64 * 65 - 1)))], "alpha"),
        ([section(2, zlib.compress(bytes(64 * 65 + 1)))], "alpha"),
    ):
        refuse(join(replace(parts, sections=sections)), field)


def test_damage_under_good_crcs():
    rng = np.random.default_rng(5)
    parts = good(lanes=2)
    payload, before = payload_bytes(parts), decode(join(parts), MODEL).y_hat
    refused = 0
    for _ in range(30):
        data = bytearray(payload)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            assert not np.array_equal(decode(join(parts, bytes(data)), MODEL).y_hat, before)
        except PlainError:
            refused += 1
    assert refused >= 20


def test_main(tmp_path, monkeypatch, capsys):
    save_file(MODEL | {"g_s.weight": np.ones(2, np.float16)}, tmp_path / "model.safetensors")
    stream = join(good())
    (tmp_path / "a.ckbd").write_bytes(stream)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "model.safetensors"), str(tmp_path / "a.ckbd")])
    plain_decoder.main()
    y_hat = decode(stream, load_model(tmp_path / "model.safetensors")).y_hat
    out = capsys.readouterr().out
    assert "width 65\nheight 64\n" in out
    assert hashlib.sha256(y_hat.tobytes()).hexdigest() in out
