"""Mutations of streams: fields, sections, payloads, and bytes. Each takes (rng, parts, others) and changes parts."""

import zlib

from readers.streams import EXTREMES, SIZES, Parts, Section, apart, crc, payload_pieces, read_varint, varint

MOST = 1 << 24  # bytes that EXIF and XMP expand to at most
KINDS = (0, 1, 2, 2, 3, 127, 128, 128, 129, 129, 130, 200, 255)


def any_of(rng, items):
    return items[int(rng.integers(len(items)))]


def number(rng, near):
    """An extreme, a number near one, or near what was there."""
    match int(rng.integers(4)):
        case 0:
            return max(near + int(rng.integers(-3, 4)), 0)
        case 1:
            return int(rng.integers(1, 200))
        case 2:
            return int(rng.integers(2**32)) >> int(rng.integers(32))
    return any_of(rng, EXTREMES)


def bytes_of(rng, data):
    """data with some of its bytes damaged in one of many ways."""
    out, n = bytearray(data), len(data)
    at = int(rng.integers(min(n, 40) if rng.random() < 0.7 else n)) if n else 0
    at = n - 1 - at if n and rng.random() < 0.4 else at  # more often near its ends
    match int(rng.integers(8)):
        case 0 if n:
            out[at] ^= 1 << int(rng.integers(8))
        case 1 if n:
            out[at] = any_of(rng, (0, 1, 127, 128, 255, int(rng.integers(256))))
        case 2:
            out[at:at] = rng.bytes(int(rng.integers(1, 9)))
        case 3:
            del out[at : at + int(rng.integers(1, 9))]
        case 4:
            del out[at:]
        case 5 if n:
            for _ in range(int(rng.integers(2, 9))):
                out[int(rng.integers(n))] = int(rng.integers(256))
        case 6:
            size = int(rng.integers(1, 17))
            out[at : at + size] = any_of(rng, (b"\0", b"\xff", b"\x80")) * size
        case _:
            out[at:at] = out[int(rng.integers(n + 1)) :][: int(rng.integers(1, 33))]
    return bytes(out)


def fields(rng, p: Parts, others):
    """A field of one byte."""
    match int(rng.integers(7)):
        case 0:
            p.flags = any_of(rng, (0, 1, 2, 3, p.flag_byte() ^ 1, p.flag_byte() ^ 2, 4, 7, 128, 255))
        case 1:
            p.quality = any_of(rng, (0, 1, 2, 3, 100, 199, 200, 201, 255, int(rng.integers(256))))
        case 2 | 3:
            p.coder = any_of(
                rng, (0, 5, 6, 7, 0x78, 0x7D, 0x80, 255, int(rng.integers(256)), p.coder ^ 8, p.coder ^ 1)
            )
        case 4:
            at = int(rng.integers(10))
            p.fixed = p.fixed[:at] + bytes([any_of(rng, (0, 1, 2, 3, 255, p.fixed[at] ^ 1))]) + p.fixed[at + 1 :]
        case 5:
            p.header_crc, p.payload_crc = any_of(rng, ((1, 0), (0, 1), (2**31, 2**32 - 1)))
        case _:
            p.gray = not p.gray


def numbers(rng, p: Parts, others):
    """One of the header's varints: another number, or the same in more bytes than it may have."""
    right = dict(zip(SIZES, (p.width, p.height, p.tail, len(p.payload), len(p.sections)), strict=True))
    name = any_of(rng, SIZES)
    value = number(rng, right[name]) if rng.random() < 0.8 else right[name]
    match int(rng.integers(8)):
        case 0:
            p.sizes[name] = varint(value, longer=int(rng.integers(1, 7)))
        case 1:
            p.sizes[name] = varint(value + 2**32 * int(rng.integers(1, 2**9)))
        case 2:
            p.sizes[name] = b"\x80" * int(rng.integers(3, 9)) + bytes([int(rng.integers(128))])
        case _:
            p.sizes[name] = varint(value)


def size(rng, p: Parts, others):
    """Another size, with a payload for the one that was there."""
    if rng.random() < 0.5:
        p.width, p.height = p.height, p.width
    else:
        p.width, p.height = (int(rng.choice([1, 2, 63, 64, 65, 128, 129, 200])) for _ in range(2))


def sections(rng, p: Parts, others):
    """Sections in another order, twice, left out, of others' streams, of unknown types."""
    theirs = [one for other in others for one in other.sections]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(p.sections) + 1))
        match int(rng.integers(6)):
            case 0 if p.sections:
                p.sections.insert(at, any_of(rng, p.sections))
            case 1 if p.sections:
                p.sections.pop(int(rng.integers(len(p.sections))))
            case 2:
                rng.shuffle(p.sections)
            case 3 if theirs:
                p.sections.insert(at, any_of(rng, theirs))
            case 4 if rng.random() < 0.05:
                p.sections = [Section(128 + i % 128, b"") for i in range(int(rng.choice([128, 255, 256, 257])))]
            case _:
                p.sections.insert(at, Section(any_of(rng, KINDS), body(rng, p)))


def lengths(rng, p: Parts, others):
    """A section whose length, type or checksum is not its own."""
    if not p.sections:
        p.sections.append(Section(any_of(rng, KINDS), body(rng, p)))
    at = int(rng.integers(len(p.sections)))
    one = p.sections[at]
    match int(rng.integers(5)):
        case 0:
            one = Section(one.kind, one.body, varint(number(rng, len(one.body))))
        case 1:
            one = Section(one.kind, one.body, varint(len(one.body), longer=int(rng.integers(1, 5))))
        case 2:
            one = Section(one.kind, one.body, crc=int(rng.integers(1, 2**32)))
        case 3:
            one = Section(any_of(rng, KINDS), one.body)
        case _:
            one = Section(one.kind, bytes_of(rng, one.body))
    p.sections[at] = one


def body(rng, p: Parts):
    """What a section may hold: planes, packets, and streams of zlib that are none, endless, or go on."""
    area = min(p.width * p.height, 1 << 20)
    match int(rng.integers(12)):
        case 0:
            return b""
        case 1:
            return rng.bytes(int(rng.integers(1, 60)))
        case 2:
            return zlib.compress(rng.bytes(area))
        case 3:
            return zlib.compress(bytes(max(area + int(rng.integers(-1, 2)), 0)))
        case 4:
            return zlib.compress(b"II*\0" + rng.bytes(int(rng.integers(60))))
        case 5:
            return bomb(int(rng.choice([MOST - 1, MOST, MOST + 1, 4 * MOST])))
        case 6:
            return zlib.compress(bytes(area))[: int(rng.integers(1, 12))]
        case 7:
            return zlib.compress(bytes(area)) + rng.bytes(int(rng.integers(1, 5)))
        case 8:
            return zlib.compress(bytes(area))[:-1] + b"\0"  # its checksum, nearly always
        case 9:
            packer = zlib.compressobj(zdict=b"ckbd")
            return packer.compress(b"ckbdckbd") + packer.flush()
        case 10:
            packer = zlib.compressobj(wbits=int(rng.choice([-15, 31])))
            return packer.compress(bytes(area)) + packer.flush()
        case _:
            return zlib.compress(b"")


BOMBS: dict[int, bytes] = {}


def bomb(count):
    """So many zeros, in a thousandth of it."""
    if count not in BOMBS:
        BOMBS[count] = zlib.compress(bytes(count))
    return BOMBS[count]


def payload(rng, p: Parts, others):
    """The payload's bytes, under a checksum that is right."""
    other = any_of(rng, others).payload if others else p.payload
    match int(rng.integers(8)):
        case 0:
            cut = int(rng.integers(len(p.payload) + 1))
            p.payload = p.payload[:cut] + other[cut:]
        case 1:
            p.payload = other
        case 2:
            p.payload = any_of(rng, (b"\0", b"\xff", b"\x55")) * len(p.payload)
        case 3:
            p.payload = rng.bytes(len(p.payload))
        case _:
            p.payload = bytes_of(rng, p.payload)


def pieces(rng, p: Parts, others):
    """One of the payload's parts: states, exceptions, escapes, words; or, of version 2, the lengths of tracks."""
    if p.fixed[3] == 2:
        at = 0
        for _ in range(int(rng.integers(max(p.tail, 1)))):
            at = read_varint(p.payload + b"\0", min(at, len(p.payload)))[1]
        end = read_varint(p.payload + bytes(9), min(at, len(p.payload)))[1]
        p.payload = p.payload[:at] + lebs(rng, p.payload[at:end]) + p.payload[end:]
        return
    try:
        parts = payload_pieces(p.payload, min(p.coder & 7, 5), p.phases)
    except IndexError:  # of one that is damaged already
        return payload(rng, p, others)
    at = int(rng.integers(len(parts)))
    parts[at] = lebs(rng, parts[at]) if 0 < at < len(parts) - 1 and rng.random() < 0.5 else bytes_of(rng, parts[at])
    p.payload = b"".join(parts)


def lebs(rng, data):
    """data with the number at its beginning, or at a place of it, replaced."""
    at = 0 if rng.random() < 0.5 or len(data) < 2 else int(rng.integers(len(data)))
    value, end = read_varint(data + b"\0", at)
    new = value if rng.random() < 0.3 else number(rng, min(value, 2**20))
    return data[:at] + varint(new, longer=int(rng.random() < 0.3)) + data[end:]


def header(rng, p: Parts, others):
    """Bytes of the header, under a checksum that is right: what is behind is where it was."""
    damaged = bytes_of(rng, p.head())
    rest = p.join()[len(p.head()) + 4 :]
    return damaged + crc(damaged) + rest


def raw(rng, p: Parts, others):
    """Bytes of the file."""
    return bytes_of(rng, p.join())


def cut(rng, p: Parts, others):
    data = p.join()
    return data[: int(rng.integers(len(data)))]


def splice(rng, p: Parts, others):
    """The beginning of one stream and the end of another."""
    data, other = p.join(), any_of(rng, others or [p]).join()
    return data[: int(rng.integers(len(data) + 1))] + other[int(rng.integers(len(other) + 1)) :]


def after(rng, p: Parts, others):
    p.after = any_of(rng, (b"\0", b"\xff" * 4, p.join()))


INSIDE = (
    fields,
    numbers,
    numbers,
    size,
    sections,
    sections,
    lengths,
    lengths,
    payload,
    payload,
    pieces,
    pieces,
    after,
)
OUTSIDE = (header, header, raw, cut, splice)  # they give the file's bytes


def mutated(rng, base, others, phases=2):
    """(bytes, names of what was done). base, others: whole streams; phases: of their model."""
    parts, theirs = apart(base, phases), [apart(one, phases) for one in others]
    done, data = [], None
    for _ in range(1 + int(rng.random() < 0.25) + int(rng.random() < 0.1)):
        way = any_of(rng, INSIDE if rng.random() < 0.75 else OUTSIDE)
        done.append(way.__name__)
        data = way(rng, parts, theirs)
        if data is not None:
            break
    return parts.join() if data is None else data, done


def damaged_file(rng, data):
    """Any file with one to three of its places damaged."""
    for _ in range(int(rng.integers(1, 4))):
        data = bytes_of(rng, data)
    return data
