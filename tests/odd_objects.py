"""CT images that are accepted, and that a reader must not stumble over: deep sequences, numbers that are not finite."""

from dicom_objects import ct
from web_service import part10


def nested(keyword: str, tag: bytes, levels: int) -> bytes:
    """An image with a sequence that holds itself ``levels`` deep, written as bytes: pydicom itself writes no such thing."""
    data = part10(ct(2, **{keyword: []}))
    empty = tag + b"SQ\0\0" + bytes(4)
    assert data.count(empty) == 1
    begin, end = (
        tag + b"SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff",
        b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0",
    )
    return data.replace(empty, begin * levels + end * levels)


def long_nested(levels: int) -> bytes:
    """The same with lengths, which a parser need not follow to find the end: the door takes any depth of it."""
    data, tag, inner = part10(ct(2, ReferencedImageSequence=[])), b"\x08\0\x40\x11SQ\0\0", b""
    for _ in range(levels):
        item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
        inner = tag + len(item).to_bytes(4, "little") + item
    return data.replace(tag + bytes(4), inner)


def text_number(value: bytes) -> bytes:
    """An image whose Pixel Spacing has these eight bytes as its first value."""
    data = part10(ct(2, PixelSpacing=["0.700000", "0.7"]))
    assert data.count(b"0.700000\\") == 1
    return data.replace(b"0.700000\\", value.ljust(8) + b"\\")


def alone(value: bytes) -> bytes:
    data = part10(ct(2, SliceThickness="1.500000"))
    assert data.count(b"1.500000") == 1
    return data.replace(b"1.500000", value.ljust(8))


BAD = {
    "100 levels": lambda: nested("ReferencedImageSequence", b"\x08\0\x40\x11", 100),
    "2000 levels": lambda: long_nested(2000),
    "100 levels in what series show": lambda: nested("RequestAttributesSequence", b"\x40\0\x75\x02", 100),
    "NaN": lambda: text_number(b"nan"),
    "Infinity": lambda: text_number(b"1e999"),
    "one NaN": lambda: alone(b"NaN"),
    "one -Infinity": lambda: alone(b"-inf"),
    "a NaN of 8 bytes": lambda: part10(ct(2, DiffusionBValue=float("nan"))),
}
