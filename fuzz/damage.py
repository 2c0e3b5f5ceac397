"""Damage to picture files for fuzz/pictures.py: bytes, pieces, fields of headers, and blocks of metadata."""

import re
import struct
import zlib

import numpy as np
from PIL import Image
from whole import chunk, pixels, saved

EXTREMES = (0, 1, 2, 255, 256, 32767, 32768, 65535, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
# Offsets of sizes, depths, counts and places in headers without a checksum, and how each is stored.
FIELDS = {
    "BMP": [
        (2, "<I"),
        (10, "<I"),
        (14, "<I"),
        (18, "<i"),
        (22, "<i"),
        (26, "<H"),
        (28, "<H"),
        (30, "<I"),
        (46, "<I"),
    ],
    "GIF": [(6, "<H"), (8, "<H"), (10, "B"), (11, "B"), (13, "B")],
    "WEBP": [(4, "<I"), (16, "<I"), (20, "<I"), (24, "<I"), (26, "<H"), (28, "<H"), (21, "<I")],
}
# Marks in a file, and the fields that follow: (mark, [(bytes behind its beginning, format)]).
MARKS = {
    "JPEG": [
        (bytes([0xFF, m]), [(2, ">H"), (4, "B"), (5, ">H"), (7, ">H"), (9, "B"), (11, "B")]) for m in (192, 194)
    ],
    "JPEG2000": [
        (b"ihdr", [(-4, ">I"), (4, ">I"), (8, ">I"), (12, ">H"), (14, "B")]),
        (b"\xff\x51", [(2, ">H"), *((n, ">I") for n in range(6, 38, 4)), (38, ">H"), (40, "B")]),
        (b"\xff\x90", [(4, ">H"), (6, ">I"), (10, "B")]),
        (b"\xff\x52", [(4, "B"), (6, ">H"), (9, "B"), (10, "B")]),
    ],
    "AVIF": [(kind, [(-4, ">I"), (8, ">I"), (12, ">I"), (16, ">I")]) for kind in (b"ispe", b"iloc", b"meta", b"pixi")]
    + [(b"irot", [(4, "B")]), (b"av1C", [(4, ">I")]), (b"iprp", [(-4, ">I")])],
    "WEBP": [
        (kind, [(4, "<I"), (8, "<I"), (12, "<I"), (16, "<I"), (20, "<I")]) for kind in (b"VP8X", b"ANMF", b"ANIM")
    ]
    + [(kind, [(4, "<I"), (8, "<I"), (14, "<H"), (16, "<H")]) for kind in (b"VP8 ", b"VP8L", b"ALPH")],
    "GIF": [(b"\x2c", [(1, "<H"), (3, "<H"), (5, "<H"), (7, "<H"), (9, "B"), (10, "B")]), (b"\x21\xf9", [(3, "B")])],
}


def put(data, at, format, value):
    """data with a number at a place; as much of it as fits."""
    width = struct.calcsize(format)
    if not 0 <= at <= len(data) - width:
        return data
    number = (int(value) % (1 << 8 * width)).to_bytes(width, "big" if format[0] == ">" else "little")
    return data[:at] + number + data[at + width :]


def extreme(rng):
    return int(rng.choice(EXTREMES)) if rng.random() < 0.8 else int(rng.integers(2**32))


def place(rng, data):
    """Somewhere in a file, half of the time in its first 64 bytes."""
    return int(rng.integers(min(len(data), 64) if rng.random() < 0.5 else len(data))) if data else 0


# Each takes (rng, data, format, another file of the format) and gives the bytes.


def flip(rng, data, format, other):
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 17)) if out else 0):
        out[place(rng, data)] = int(rng.integers(256))
    return bytes(out)


def bit(rng, data, format, other):
    at = place(rng, data)
    return put(data, at, "B", data[at] ^ 1 << int(rng.integers(8))) if data else data


def truncate(rng, data, format, other):
    return data[: int(rng.integers(len(data) + 1))]


def insert(rng, data, format, other):
    at, size = place(rng, data), int(rng.choice([1, 2, 4, 16, 100, 3000]))
    return data[:at] + (rng.bytes(size) if rng.random() < 0.5 else data[:size]) + data[at:]


def remove(rng, data, format, other):
    at = place(rng, data)
    return data[:at] + data[at + int(rng.integers(1, 33)) :]


def swap(rng, data, format, other):
    """A slice of one file in the place of another's."""
    at, size = place(rng, data), int(rng.integers(1, max(len(data) // 2, 2)))
    start = at if rng.random() < 0.5 else place(rng, other)
    return data[:at] + other[start : start + size] + data[at + size :]


def pieces(data, format):
    """A file cut where its format has chunks, segments or boxes; into eighths where it has none."""
    bare = data[:2] == b"\xff\x4f"  # JPEG 2000's code stream, without boxes
    at = {"PNG": 8, "JPEG": 2, "WEBP": 12, "AVIF": 0, "JPEG2000": 2 if bare else 0}.get(format, len(data))
    cuts = [0]
    while at <= len(data) - 8 and len(cuts) < 200:
        cuts += [at] if at else []
        if format == "JPEG" or bare:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        elif format == "WEBP":
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            at += 8 + size + size % 2
        else:
            at += max(int.from_bytes(data[at : at + 4], "big"), 1) + 12 * (format == "PNG")
    if len(cuts) < 3:
        cuts = [0, *sorted({len(data) * n // 8 for n in range(1, 8)})]
    return [data[a:b] for a, b in zip(cuts, [*cuts[1:], len(data)], strict=True) if a < b]


def chunks(rng, data, format, other):
    """Pieces twice, left out, elsewhere, or of another file."""
    parts = pieces(data, format)
    for _ in range(int(rng.integers(1, 3))):
        if len(parts) < 2:
            break
        at, to = (int(n) for n in rng.integers(1, len(parts), 2))
        match int(rng.integers(4)):
            case 0:
                parts.insert(to, parts[at])
            case 1:
                del parts[at]
            case 2:
                parts[at], parts[to] = parts[to], parts[at]
            case 3:
                others = pieces(other, format)
                parts.insert(at, others[int(rng.integers(len(others)))])
    return b"".join(parts)


def header(rng, data, format, other):
    """Fields of a header set to what is at the end of their range, or past what a picture has."""
    for _ in range(int(rng.integers(1, 3))):
        if format == "PNG":
            data = _png_header(rng, data)
        elif format == "TIFF":
            data = _tiff_entry(rng, data)
        elif format == "PPM":
            data = _number(rng, data)
        else:
            data = _field(rng, data, format)
    return data


def _field(rng, data, format):
    there = [(0, field) for field in FIELDS.get(format, [])]
    for mark, fields in MARKS.get(format, []):
        at = data.find(mark)
        there += [(at, field) for field in fields] if at >= 0 else []
    if not there:
        return put(data, place(rng, data), str(rng.choice(["B", "<H", ">H", "<I", ">I"])), extreme(rng))
    start, (offset, kind) = there[int(rng.integers(len(there)))]
    return put(data, start + offset, kind, extreme(rng))


def _png_header(rng, data):
    offset, kind = [(0, ">I"), (4, ">I"), (8, "B"), (9, "B"), (10, "B"), (12, "B")][int(rng.integers(6))]
    value = int(rng.choice([1, 2, 4, 8, 16, 0, 3, 6, 32, 255])) if kind == "B" else extreme(rng)
    body = put(data[16:29], offset, kind, value)
    return data[:8] + chunk(b"IHDR", body) + data[33:]


def _tiff_entry(rng, data):
    """Type, count or value of an entry of the first directory, or the place of the next."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    except struct.error:
        return data
    head, width = (8, 20) if big else (2, 12)
    entry = at + head + width * int(rng.integers(min(count, 60) + 1))
    offset, kind = [(0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")][int(rng.integers(5))]
    if offset <= 2:
        value = int(rng.integers(20)) if offset else int(rng.integers(254, 350))
    else:
        value = extreme(rng) if rng.random() < 0.7 else int(rng.integers(len(data) + 1))
    return put(data, entry + offset, order + kind, value)


def _number(rng, data):
    """One of the first numbers of a PNM file, as text."""
    words = re.sub(rb"^#.*\n", b"", data, count=1, flags=re.MULTILINE).split(maxsplit=4)
    if len(words) < 4:
        return data
    words[int(rng.integers(1, 4))] = str(extreme(rng) if rng.random() < 0.8 else -1).encode()
    return b"\n".join(words)


def metadata(rng, data, format, other):
    """A new picture with blocks of noise, which begin as such blocks do, for EXIF, XMP and profile."""
    mode = str(rng.choice(["L", "RGB", *(["CMYK"] if format in ("JPEG", "TIFF") else ["RGBA"])]))
    options = {
        "exif": b"Exif\0\0" * int(rng.integers(2)) + exif(rng),
        "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>tiff:Orientation='" + rng.bytes(int(rng.integers(80))),
        "icc_profile": profile(rng),
    }
    options = {name: value for name, value in options.items() if rng.random() < 0.6}
    out = saved(pixels(rng, mode, (24, 16)), format, **options) or saved(pixels(rng, mode, (24, 16)), format)
    if format == "PNG" and out:
        blocks = [(b"eXIf", exif(rng)), (b"iCCP", b"a\0\0" + zlib.compress(profile(rng))), (b"tRNS", rng.bytes(6))]
        blocks += [
            (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  9\n" + exif(rng).hex().encode()))
        ]
        blocks += [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + rng.bytes(50)), (b"acTL", rng.bytes(8))]
        out = out[:33] + chunk(*blocks[int(rng.integers(len(blocks)))]) + out[33:]
    return out or data


def exif(rng):
    """Directories whose entries have types, counts and places of every kind."""
    order = str(rng.choice(["<", ">"]))
    count = int(rng.integers(1, 9))
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, count)
    tags = [274, 274, 34665, 34853, 40965, 271, 37500, 513, 514, 700, 33432, 282]
    for _ in range(count):
        tag = int(rng.choice(tags)) if rng.random() < 0.8 else int(rng.integers(65536))
        amount, value = (
            (int(rng.integers(1, 9)), int(rng.integers(200))) if rng.random() < 0.6 else (extreme(rng), extreme(rng))
        )
        out += struct.pack(order + "HHII", tag, int(rng.integers(14)), amount, value)
    return out + struct.pack(order + "I", int(rng.choice([0, 8, 9999]))) + rng.bytes(int(rng.integers(200)))


def profile(rng):
    """A profile's header and noise, or all noise."""
    space = [b"RGB ", b"GRAY", b"CMYK", b"Lab ", rng.bytes(4)][int(rng.integers(5))]
    body = rng.bytes(int(rng.integers(300)))
    start = (
        struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", 0x4400000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp"
    )
    return start.ljust(128, b"\0") + body if rng.random() < 0.8 else body


def palette(rng, data, format, other):
    """Indices past the end of a palette that is short, of colours some of which are transparent."""
    image = Image.fromarray(rng.integers(0, 256, (12, 20), dtype=np.uint8))
    image.putpalette(rng.bytes(3 * int(rng.integers(1, 257))))
    if format not in ("PNG", "GIF", "TIFF", "BMP"):
        return flip(rng, data, format, other)
    options = {"transparency": rng.bytes(int(rng.integers(1, 300))) if format == "PNG" else int(rng.integers(256))}
    out = saved(image, format, **(options if rng.random() < 0.7 else {})) or data
    return flip(rng, out, format, other) if rng.random() < 0.5 else out


WAYS = (
    flip,
    flip,
    bit,
    truncate,
    insert,
    remove,
    swap,
    chunks,
    chunks,
    header,
    header,
    header,
    metadata,
    metadata,
    palette,
)


def damaged(rng, data, format, other):
    """(bytes, names of what was done to them): one kind of damage, or two."""
    done = []
    for _ in range(1 + (rng.random() < 0.2)):
        way = WAYS[int(rng.integers(len(WAYS)))]
        data = way(rng, data, format, other)
        done.append(way.__name__)
    return data, done
