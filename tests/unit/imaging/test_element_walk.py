"""The walk over a sequence ends where the sequence ends, whatever the lengths inside it say."""

import io
import struct

import pytest

from alnnode.imaging.element_walk import ElementBudget, skip_value

ITEM, ITEM_END, SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
UNDEFINED = 0xFFFFFFFF


def mark(element: int, length: int) -> bytes:
    return struct.pack("<HHL", 0xFFFE, element, length)


def sequence(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HH2sHL", 0x0040, 0x0275, b"SQ", 0, len(value) if length is None else length) + value


SOUND = mark(ITEM, 8) + struct.pack("<HH2sH", 0x0040, 0x1001, b"SH", 0)
BEHIND = struct.pack("<HH2sH", 0x0040, 0xA730, b"SH", 0) * 50


@pytest.mark.parametrize(
    "value",
    [
        SOUND,
        mark(ITEM, 0x7FFFFFFF) + SOUND,  # an item that claims to be longer than its sequence
        mark(ITEM, UNDEFINED) + SOUND[8:],  # an item without an end
        mark(ITEM, 12) + struct.pack("<HH2sH", 0x0040, 0x1001, b"SH", 4000),
        SOUND + b"\0\0\0\0",  # stray bytes
        mark(SEQUENCE_END, 0) + SOUND,  # a delimiter that a length makes needless
        mark(ITEM, UNDEFINED) + sequence(SOUND, UNDEFINED) + mark(ITEM_END, 0),  # a sequence in it without an end
    ],
)
def test_a_damaged_length_does_not_lead_out_of_a_sequence(value: bytes) -> None:
    whole = sequence(value)
    stream = io.BytesIO(whole + BEHIND)
    counted = skip_value(stream, vr="SQ", little=True, budget=ElementBudget(1000), inside=True)
    assert stream.tell() == len(whole)
    assert counted <= 8


def test_a_delimiter_ends_a_sequence_without_a_length() -> None:
    whole = sequence(mark(ITEM, UNDEFINED) + SOUND[8:] + mark(ITEM_END, 0) + SOUND + mark(SEQUENCE_END, 0), UNDEFINED)
    stream = io.BytesIO(whole + BEHIND)
    skip_value(stream, vr="SQ", little=True, budget=ElementBudget(1000), inside=True)
    assert stream.tell() == len(whole)
