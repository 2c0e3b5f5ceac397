"""The container: round trips, and every way of damaging a stream."""

import struct

import numpy as np
import pytest
from conftest import textured

from ckbd._rans import crc32c
from ckbd.codec import container
from ckbd.codec.container import ALPHA, ICC, FormatError, Header, Stream, pack, parse, varint

HEADER = Header(bytes(range(6)), 101, 768, 512, tail=117)


@pytest.mark.parametrize(
    "header, sections",
    [
        (HEADER, {}),
        (Header(b"abcdef", 2, 1, 1, gray=True, lanes_log2=0, skip_max=15), {ICC: b"profile" * 40}),
        (Header(b"\xff" * 6, 200, 9000, 10000, tail=(1 << 32) - 1), {ALPHA: b"", ICC: b"x", 200: b"future"}),
    ],
)
def test_round_trip(header, sections):
    payload = bytes(range(256)) * 2
    data = pack(Stream(header, payload, sections=sections))
    s = parse(data)
    assert (s.header, s.payload, s.sections) == (header, payload, sections)
    assert data[s.payload_offset :][: len(payload)] == payload
    for kind, body in sections.items():
        assert data[s.section_offsets[kind] :][: len(body)] == body


def test_header_is_as_small_as_the_document_says():
    assert len(pack(Stream(HEADER, b""))) == 3 + 1 + 6 + 3 + 2 + 2 + 1 + 1 + 4 + 4


def test_describe_covers_every_byte_in_order():
    data = pack(Stream(HEADER, b"payload", sections={ICC: b"p" * 200, ALPHA: b"a"}))
    at = 0
    for _, offset, count, _ in container.describe(data):
        assert offset == at
        # The type and length of a section stand before its body.
        at = offset + count
    assert at == len(data)


@pytest.mark.parametrize(
    "value, want", [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), ((1 << 32) - 1, "ffffffff0f")]
)
def test_varint(value, want):
    assert varint(value).hex() == want


def header_bytes(flags=0, quality=100, coder=0x08, sizes=(64, 64, 0, 4), more=b"", magic=b"\xcbkb", version=1):
    head = magic + bytes([version]) + b"modelx" + bytes([flags, quality, coder])
    head += b"".join(n if isinstance(n, bytes) else varint(n) for n in sizes) + more
    return head + struct.pack("<I", crc32c(head))


def whole(payload=b"abcd", **changes):
    return header_bytes(**changes) + payload + struct.pack("<I", crc32c(payload))


@pytest.mark.parametrize(
    "data, field, offset",
    [
        (b"", "magic", 0),
        (b"\x89PNG\r\n\x1a\n" * 9, "magic", 0),
        (whole(version=2), "version", 3),
        (whole(flags=4), "flags", 10),
        (whole(quality=0), "quality", 11),
        (whole(quality=1), "quality", 11),
        (whole(quality=201), "quality", 11),
        (whole(coder=0x06), "coder", 12),
        (whole(coder=0x8D), "coder", 12),
        (whole(sizes=(0, 64, 0, 4)), "width", 13),
        (whole(sizes=(64, 0, 0, 4)), "height", 14),
        (whole(sizes=(65535, 65535, 0, 4)), "height", 16),
        (whole(sizes=(b"\x80\x00", 64, 0, 4)), "width", 13),
        (whole(sizes=(b"\xff\xff\xff\xff\x10", 64, 0, 4)), "width", 13),
        (whole(sizes=(b"\xff" * 6, 64, 0, 4)), "width", 13),
        (whole(coder=0x08, sizes=(64, 64, 3, 4)), "tail", 15),
        (whole(coder=0x0D), "tail", 15),
        (whole(sizes=(64, 64, 0, 1 << 31)), "payload", 25),
        (whole(flags=2, more=b"\0"), "section_count", 17),
        (whole(flags=2, more=varint(1 << 30)), "section_count", 17),
        (whole(flags=2, more=b"\1") + b"\3\0" + struct.pack("<I", crc32c(b"\3\0")), "section type", 30),
        (whole() + b"\0", "end", 29),
    ],
)
def test_broken_rules_name_field_and_offset(data, field, offset):
    with pytest.raises(FormatError) as caught:
        parse(data)
    assert (caught.value.field, caught.value.offset) == (field, offset), str(caught.value)
    assert f"{field} at byte {offset}: " in str(caught.value)


def test_a_section_may_not_occur_twice():
    section = bytes([ICC, 1, 7])
    section += struct.pack("<I", crc32c(section))
    data = whole(flags=2, more=b"\2") + section + section
    with pytest.raises(FormatError, match="type 1 occurs twice"):
        parse(data)


def test_every_truncation_and_every_bit_flip_is_refused():
    data = pack(Stream(HEADER, bytes(range(50)), sections={ICC: b"profile"}))
    for n in range(len(data)):
        with pytest.raises(FormatError) as caught:
            parse(data[:n])
        assert 0 <= caught.value.offset <= n
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            parse(bytes(damaged))


def test_real_streams_of_two_kilobytes_refuse_every_truncation_and_bit_flip(tiny):
    """The issue's bar, through the decoder itself: an error for every one, and none of another kind."""
    (data,) = tiny.encode([textured(128, 192)], quality=60)
    assert 1500 < len(data) < 20000
    for n in range(len(data)):
        with pytest.raises(FormatError):
            tiny.decode_latents([data[:n]])
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(FormatError):
                tiny.decode_latents([bytes(damaged)])


def test_streams_damaged_behind_a_right_checksum_never_crash(tiny):
    """A hostile writer computes its own checksums: an error, or latents; never a crash or a hang."""
    (data,) = tiny.encode([textured(64, 64)], quality=30)
    s = parse(data)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        payload = bytearray(s.payload)
        for _ in range(rng.integers(1, 4)):
            payload[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        try:
            (y_hat,) = tiny.decode_latents([pack(Stream(s.header, bytes(payload)))])
            assert y_hat.shape == (16, 4, 4)
        except FormatError as error:
            assert s.payload_offset <= error.offset <= len(data)
            refused += 1
    assert refused > 200
