"""The container against a writer made by hand from docs/format.md: fields, sections, every single violation."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_decoder import crc32c
from rans_cases import TABLES
from strategies import MODELS, PIXELS, damaged, edged, edits, examples, headers, sections

from ckbd import _rans
from ckbd.codec import batches, checks, container
from ckbd.codec.container import FormatError, Header, Stream

NAMES = {1: "icc", 2: "alpha", 128: "exif", 129: "xmp"}


def leb(value):
    groups = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(g | 128 for g in groups[:-1]), groups[-1]])


def fields(header, payload, parts):
    """{name: bytes} in file order; None is a checksum, of all since the field that its name begins with."""
    tracks = header.get("tracks", 0)
    coder = 0 if tracks else header["lanes_log2"] + 8 * header["skip_max"]
    made = {"magic": b"\xcbkb", "version": bytes([2 if tracks else 1]), "model": header["model"]}
    made |= {"flags": bytes([header["gray"] + 2 * bool(parts)]), "quality": bytes([header["quality2"]])}
    made |= {"coder": bytes([coder]), "width": leb(header["width"]), "height": leb(header["height"])}
    made |= {"tracks" if tracks else "tail": leb(tracks or header["tail"]), "payload_length": leb(len(payload))}
    if parts:
        made["section_count"] = leb(len(parts))
    made |= {"magic crc": None, "payload": payload, "payload crc": None}
    for i, (kind, body) in enumerate(parts.items()):
        made |= {f"{i}": bytes([kind]), f"{i} length": leb(len(body)), f"{i} body": body, f"{i} crc": None}
    return made


def written(made):
    """(bytes, where each field begins)."""
    data, offsets = b"", {}
    for name, value in made.items():
        offsets[name] = len(data)
        data += crc32c(data[offsets[name.split()[0]] :]).to_bytes(4, "little") if value is None else value
    return data, offsets


streams = st.tuples(headers(), st.binary(max_size=40), sections())
either = st.tuples(headers() | headers(version=2), st.binary(max_size=40), sections())


@examples(150)
@given(either)
def test_what_is_read_is_what_was_written(stream):
    header, payload, parts = stream
    data, offsets = written(fields(*stream))
    version = 2 if header.get("tracks") else 1
    assert container.pack(Stream(Header(**header), payload, sections=parts)) == data
    read = container.parse(data, PIXELS, version)
    assert (read.header, read.payload, read.payload_offset) == (Header(**header), payload, offsets["payload"])
    assert list(read.sections.items()) == list(parts.items())
    places = {kind: offsets[f"{i} body"] for i, kind in enumerate(parts)}
    assert read.section_offsets == places
    assert container.pack(read) == data
    assert container.head(data) == read.header
    outline = container.outline(io.BytesIO(data))
    assert outline == Stream(read.header, b"", read.payload_offset, read.sections, places)
    assert container.peek(data) == (header["height"], header["width"]) and container.maker(data) == header["model"]
    at = 0
    for _, offset, count, _ in container.describe(data):
        assert offset == at
        at += count
    assert at == len(data)
    with pytest.raises(FormatError, match="version at byte 3"):
        container.parse(data, PIXELS, 3 - version)


@examples(60)
@given(headers(), st.binary(max_size=9), sections(least=2), st.randoms(use_true_random=False))
def test_the_order_of_sections_does_not_matter(header, payload, parts, random):
    turned = list(parts.items())
    random.shuffle(turned)
    one, other = (container.parse(written(fields(header, payload, p))[0]) for p in (parts, dict(turned)))
    assert one.sections == other.sections and (one.header, one.payload) == (other.header, other.payload)
    for read in (one, other):
        assert container.pack(read) == written(fields(header, payload, dict(read.sections)))[0]


longer = edged(1, 1 << 20)
too_large = edged(1 << 32, (1 << 35) - 1).map(leb)
six_bytes = st.binary(min_size=5, max_size=5).map(lambda b: bytes(v | 128 for v in b) + b"\x01")


def no_number(right):
    """What stands for no number: longer than it must be, too large, of six bytes."""
    padded = right[:-1] + bytes([right[-1] | 128, 0])
    return (st.just(padded) if len(padded) <= 5 else st.nothing()) | too_large | six_bytes


@st.composite
def violations(draw):
    """(bytes, field, offset) of a stream of version 1 with one thing wrong."""
    header, payload, parts = draw(streams)
    made = fields(header, payload, parts)
    kinds = "magic version flags quality coder zero number excess tail payload crc end".split()
    kinds += ["none", "many", "fewer", "more", "type", "twice", "body"] if parts else []
    kind = draw(st.sampled_from(kinds))
    crcs = [name for name, value in made.items() if value is None]
    i = draw(st.integers(0, max(len(parts) - 1, 0)))
    named = NAMES.get(list(parts)[i], f"section {list(parts)[i]}") if parts else ""

    def done(at, field=None, **changes):
        data, offsets = written(made | changes)
        return data, at if field is None else field, offsets[at]

    if kind == "magic":
        return done("magic", magic=draw(st.binary(min_size=3, max_size=3).filter(lambda m: m != b"\xcbkb")))
    if kind == "version":
        return done("version", version=bytes([draw(st.integers(0, 255).filter(lambda v: v != 1))]))
    if kind == "flags":
        return done("flags", flags=bytes([made["flags"][0] + 4 * draw(edged(1, 63))]))
    if kind == "quality":
        return done("quality", quality=bytes([draw(st.integers(0, 1) | edged(201, 255))]))
    if kind == "coder":
        lanes, top = draw(st.sampled_from(((6, 0), (7, 0), (6, 128), (header["lanes_log2"], 128))))
        return done("coder", coder=bytes([lanes + 8 * header["skip_max"] + top]))
    if kind == "zero":
        side = draw(st.sampled_from(("width", "height")))
        return done(side, **{side: b"\0"})
    if kind == "number":
        names = {"width": "width", "height": "height", "tail": "tail", "payload_length": "payload_length"}
        names |= {"section_count": "section_count", f"{i} length": f"{named} length"} if parts else {}
        at = draw(st.sampled_from(list(names)))
        return done(at, names[at], **{at: draw(no_number(made[at]))})
    if kind == "excess":
        least = PIXELS // max(header["width"], 64) + 1
        return done("height", height=leb(draw(edged(least, (1 << 32) - 1))))
    if kind == "tail":
        return done("tail", tail=b"\0" if header["lanes_log2"] else leb(draw(edged(1, (1 << 32) - 1))))
    if kind == "payload":
        rest = len(written(made)[0]) - written(made)[1]["payload"] - len(payload)
        return done("payload", payload_length=leb(len(payload) + rest + draw(longer)))
    if kind == "crc":
        at, name = draw(st.sampled_from(crcs)), {"magic crc": "header_crc", "payload crc": "payload_crc"}
        data, offsets = written(made)
        right = int.from_bytes(data[offsets[at] :][:4], "little")
        wrong = (right ^ draw(edged(1, (1 << 32) - 1))).to_bytes(4, "little")
        of = list(parts)[int(at.split()[0])] if at not in name else None
        return done(at, name.get(at) or f"{NAMES.get(of, f'section {of}')} crc", **{at: wrong})
    if kind == "end":
        return done("more", "end", more=draw(st.binary(min_size=1, max_size=5)))
    if kind in ("none", "many"):
        return done("section_count", section_count=leb(0 if kind == "none" else draw(edged(257, (1 << 32) - 1))))
    if kind == "fewer" and len(parts) > 1:
        count = draw(st.integers(1, len(parts) - 1))
        return done(f"{count}", "end", section_count=leb(count))
    if kind == "twice" and len(parts) > 1:
        first, second = sorted(draw(st.permutations(range(len(parts))))[:2])
        return done(f"{second}", "section type", **{f"{second}": made[f"{first}"]})
    if kind == "type":
        return done(f"{i}", "section type", **{f"{i}": bytes([draw(st.sampled_from((0, *range(3, 128))))])})
    if kind == "body":
        rest = len(written(made)[0]) - written(made)[1][f"{i} body"]
        return done(f"{i} body", named, **{f"{i} length": leb(rest + draw(longer))})
    return done("rest", "section type", section_count=leb(draw(edged(len(parts) + 1, 256))), rest=b"")


def refusal(call):
    """The error's arguments, or None."""
    try:
        call()
    except FormatError as error:
        return error.field, error.offset, error.reason
    return None


@examples(360)
@given(violations())
def test_one_violation_is_refused_by_its_name_at_its_place(broken):
    data, field, offset = broken
    found = refusal(lambda: container.parse(data))
    assert found is not None and found[:2] == (field, offset), found
    assert 0 <= offset <= len(data)


@st.composite
def wrong_tracks(draw):
    """(bytes, field, offset) of a stream of version 2 with a wrong count of tracks, or something for a coder."""
    header = draw(headers(version=2))
    if draw(st.booleans()):  # where the coder's own limit is the smaller one
        header |= {"width": 1, "height": draw(edged(64 * 16383, PIXELS // 64, 64 * 16384))}
    most = min(-(-header["height"] // 64) * 4, 65535)
    made = fields(header, draw(st.binary(max_size=9)), draw(sections(most=1)))
    at = draw(st.sampled_from(("coder", "tracks", "tracks", "tracks")))
    counts = st.sampled_from((0, most + 1, most + 2)) | edged(most + 1, (1 << 32) - 1)
    wrong = bytes([draw(edged(1, 255))]) if at == "coder" else leb(draw(counts))
    data, offsets = written(made | {at: wrong})
    return data, at, offsets[at]


@examples(100)
@given(wrong_tracks())
def test_version_2_refuses_a_coder_and_wrong_tracks(broken):
    data, field, offset = broken
    for call in (lambda: container.parse(data, PIXELS, 2), lambda: container.head(data)):
        assert refusal(call)[:2] == (field, offset)


def opened(data, model, max_pixels):
    """What has to be said of a stream before its first symbol is decoded, or None: of Python's reader."""

    def steps():
        s = container.parse(data, max_pixels)
        down, across = batches.patches(s.header.height, s.header.width)
        checks.check_fits(s, model, down * across, TABLES)
        h = s.header
        try:
            _rans.Decoder(TABLES, s.payload, lanes_log2=h.lanes_log2, skip_max=h.skip_max, tail=h.tail, phases=2)
        except _rans.StreamError as error:
            raise checks.damage(s, error) from error

    return refusal(steps)


def agree(data, model, max_pixels):
    """Every reader of containers says the same of these bytes."""
    found = opened(data, model, max_pixels)
    batch = _rans.Batch(TABLES, [data, data], model=model, channels=3, max_pixels=max_pixels)
    assert batch.errors() == ([(0, *found), (1, *found)] if found else [])
    parsed = refusal(lambda: container.parse(data, max_pixels))
    if parsed is not None:
        assert 0 <= parsed[1] <= len(data)
    else:
        read = container.parse(data, max_pixels)
        assert container.pack(read) == data
        assert container.head(data, max_pixels) == read.header and refusal(lambda: container.describe(data)) is None
    if found is None:
        out = np.zeros((2, 8), np.int64)
        batch.headers(out)
        h = container.parse(data, max_pixels).header
        assert out[0].tolist()[:5] == [1, h.width, h.height, h.quality2, h.gray] and (out[0] == out[1]).all()
    return found


@examples(180)
@given(streams, edits, edged(1, 1 << 62, PIXELS, 1 << 32), st.booleans(), st.booleans())
def test_all_readers_say_the_same_of_damage(stream, changes, max_pixels, sealed, ours):
    header, payload, parts = stream
    made = fields(*stream)
    if sealed:  # what is damaged before its checksum is made
        head = {name: value for name, value in made.items() if value is not None}
        name = sorted(head)[len(changes) * 7 % len(head)]
        made[name] = damaged(head[name], changes)
    data = written(made)[0] if sealed else damaged(written(made)[0], changes)
    agree(data, header["model"] if ours else bytes(6), max_pixels)


@examples(90)
@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda b: b"\xcbkb\x01" + b), MODELS)
def test_all_readers_say_the_same_of_anything(data, model):
    agree(data, model, PIXELS)


@examples(60)
@given(st.binary(max_size=300), st.integers(0, 300), st.sampled_from(_rans.isas()))
def test_checksums_are_those_of_the_definition_and_go_on(data, at, isa):
    assert _rans.crc32c(data, isa=isa) == crc32c(data)
    assert _rans.crc32c(data[at:], _rans.crc32c(data[:at], isa=isa), isa=isa) == crc32c(data)
