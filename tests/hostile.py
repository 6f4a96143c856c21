"""Damage to bytes that were valid: the edits that a fuzzer makes, drawn by hypothesis in tests and from a seed in long runs."""

from __future__ import annotations

import random as random_module
from typing import NamedTuple

from hypothesis import strategies as st

KINDS = ("flip", "delete", "insert", "repeat", "cut", "length")
# What parsers stumble over: undefined and negative lengths, item and delimiter tags, nulls.
SPLINTERS = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00",
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    b"\x00" * 16,
    b"\x08\x00\x05\x00CS\x0c\x00ISO 2022 IR ",
    b"\x5c" * 64,
    # Numbers that are none, and sequences inside each other.
    b"nan ",
    b"1e999 ",
    b"-inf",
    b"9" * 512,
    b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 90,
)


class Edit(NamedTuple):
    """One change: where (as a share of the length), how much, and what of."""

    kind: str
    place: float
    size: int
    splinter: bytes


edits = st.lists(
    st.builds(
        Edit,
        st.sampled_from(KINDS),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 64),
        st.sampled_from(SPLINTERS) | st.binary(min_size=1, max_size=16),
    ),
    min_size=1,
    max_size=6,
)


def draw(random: random_module.Random) -> list[Edit]:
    """The same without hypothesis."""
    return [
        Edit(
            random.choice(KINDS),
            random.random(),
            random.randint(1, 64),
            random.choice(SPLINTERS) if random.random() < 0.6 else random.randbytes(random.randint(1, 16)),
        )
        for _ in range(random.randint(1, 6))
    ]


def damage(data: bytes, changes: list[Edit], *, head: int | None = None) -> bytes:
    """Make the edits one after the other; ``head`` keeps them within the first bytes, where the structure is."""
    out = bytearray(data)
    for kind, place, size, splinter in changes:
        at = int(place * min(len(out), head or len(out)))
        if kind == "flip":
            out[at : at + len(splinter)] = splinter
        elif kind == "delete":
            del out[at : at + size]
        elif kind == "insert":
            out[at:at] = splinter
        elif kind == "repeat":
            out[at:at] = out[at : at + size] * 8
        elif kind == "cut":
            del out[max(1, at) :]
        else:  # length
            out[at : at + 4] = (size * 0x01010101).to_bytes(4, "little")
    return bytes(out)
