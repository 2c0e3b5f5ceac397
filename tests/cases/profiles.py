"""ICC profiles that are not RGB, made here: Pillow makes none of CMYK."""

import struct

from PIL import ImageCms

LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk(ink, paper=(255, 128, 128), intent=0):
    """A CMYK profile in which cyan is another colour, Lab in 8 bits, and nothing else has any."""
    nodes = b"".join(bytes(colour) for colour in (paper, ink) for _ in range(8))
    identity = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * v for v in identity))
    table += bytes(range(256)) * 4 + nodes + bytes(range(256)) * 3
    table += bytes(-len(table) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    at = 128 + 4 + 12 * 2
    tags = struct.pack(">I4sII4sII", 2, b"A2B0", at, len(table), b"wtpt", at + len(table), len(white))
    body = tags + table + white
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(24) + struct.pack(">I", intent)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + body
