"""Small JPEG codestreams (ITU-T T.81), written by hand: DCMTK and libjpeg are not needed to make them."""

from __future__ import annotations

import struct

import numpy as np

BITS = 5  # of each Huffman code
START, END = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def lossless(pixels: np.ndarray, *, before_scan: bytes = b"") -> bytes:
    """Lossless JPEG, process 14, selection value 1, 16 bits; ``before_scan``: bytes between two segments, where none belong."""
    rows, columns = pixels.shape
    frame = segment(0xC3, struct.pack(">BHHB", 16, rows, columns, 1) + b"\1\x11\0")
    codes = segment(0xC4, b"\0" + bytes([0] * (BITS - 1) + [17] + [0] * (16 - BITS)) + bytes(range(17)))
    scan = segment(0xDA, b"\1\1\0\1\0\0")
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << 15
    bits = "".join(coded(int(difference)) for difference in (values - predicted).ravel())
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return START + frame + codes + before_scan + scan + data + END


def coded(difference: int) -> str:
    """The Huffman code of the category, then the bits of the difference (T.81 H.1.2.2)."""
    category = abs(difference).bit_length()
    if not category:
        return "0" * BITS
    value = difference if difference > 0 else difference + (1 << category) - 1
    return f"{category:0{BITS}b}{value:0{category}b}"


def twelve_bits(side: int) -> bytes:
    """Lossy JPEG with 12 bits, process 4; every pixel is 2048."""
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    frame = segment(0xC1, struct.pack(">BHHB", 12, side, side, 1) + b"\1\x11\0")
    codes = b"".join(segment(0xC4, kind + b"\1" + bytes(15) + b"\0") for kind in (b"\0", b"\x10"))
    scan = segment(0xDA, b"\1\1\0\0\x3f\0")
    return START + tables + frame + codes + scan + bytes((side // 8) ** 2 * 2 // 8) + END
