"""Read attributes of a data set of unknown origin in bounded memory: sequences that are not wanted, or are too large, are left out."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Self

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from alnnode.imaging.element_walk import (
    NESTING,
    UNDEFINED,
    ElementBudget,
    StructureError,
    TooManyElementsError,
    is_sequence,
    skip_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import BinaryIO

    from pydicom.tag import BaseTag

    Stop = Callable[[BaseTag, str | None, int], bool]

MAX_ELEMENTS = 2_000_000  # elements and items that are passed over, of one data set; each takes about a microsecond
MAX_BUILT = 100_000  # elements and items of the sequences that are built, of one data set; each needs up to 1 kB
MAX_BYTES = 64 << 20  # of one sequence that is built
RESTART = 20  # elements that take as long to read as pydicom takes to begin again behind a sequence


class Encoding(NamedTuple):
    """Whether a data set has implicit VRs, and its byte order."""

    implicit: bool
    little: bool

    @classmethod
    def of(cls, transfer_syntax: str) -> Self:
        """Return the encoding that a Transfer Syntax UID names; all but two have explicit VRs, little endian (PS3.5 section 10)."""
        return cls(transfer_syntax == ImplicitVRLittleEndian, transfer_syntax != ExplicitVRBigEndian)


class Selection(NamedTuple):
    """What to read.

    Attributes:
        tags: the attributes; None selects all.
        defer_size: values of more bytes are not read; None reads all.
        max_built: the number of elements and items of all sequences that are built.
        max_bytes: the size of one sequence that is built.
        complete: raise `StructureError` where a sequence would be left out.
    """

    tags: Collection[BaseTag | int] | None = None
    defer_size: int | None = None
    max_built: int = MAX_BUILT
    max_bytes: int = MAX_BYTES
    complete: bool = False


def read_attributes(stream: BinaryIO, encoding: Encoding, stop: Stop, selection: Selection) -> Dataset:
    """Read attributes from the present position of a stream.

    Args:
        stream: of a data set without File Meta Information.
        encoding: of the data set.
        stop: is asked before each element; reading ends before the element for which it returns True.
        selection: the attributes to read.

    Returns:
        The attributes; without the sequences beyond the first ``max_built`` elements and items.

    Raises:
        StructureError: the data set has more than `MAX_ELEMENTS` elements, is nested too deeply, or ends within a sequence.
        Exception: as pydicom raises it for damaged bytes.
    """
    tags = None if selection.tags is None else list(selection.tags)
    chosen = None if tags is None else frozenset(map(int, tags))
    passed, built = ElementBudget(MAX_ELEMENTS), ElementBudget(selection.max_built)
    parts: list[Dataset] = []
    accepted: int | None = None
    while True:
        halt = _Halt(stop, chosen, passed.left, accepted)
        part = read_dataset(
            stream,
            encoding.implicit,
            encoding.little,
            stop_when=halt.before,
            defer_size=selection.defer_size,
            specific_tags=tags,
        )
        parts.append(part)
        if halt.at is None:
            return _joined(parts)
        passed.spend(halt.count + RESTART)
        allowed = _Allowed(passed, built, selection.max_bytes)
        accepted = _pass_over(stream, halt.at, allowed, little=encoding.little)
        if accepted is None and halt.at.wanted and selection.complete:
            raise TooManyElementsError("the sequences of the data set have too many elements")


def _joined(parts: list[Dataset]) -> Dataset:
    """Return one data set, without converting an element: `Dataset.update` would convert private ones, which may not have been read."""
    first = parts[0]
    if len(parts) == 1:
        return first
    joined = Dataset(dict(chain.from_iterable(part.items() for part in parts)))
    implicit, little = first.original_encoding
    joined.set_original_encoding(implicit, little, first.original_character_set)
    return joined


class _Allowed(NamedTuple):
    """What may still be passed over, and built."""

    passed: ElementBudget
    built: ElementBudget
    max_bytes: int


def _pass_over(stream: BinaryIO, at: _Sequence, allowed: _Allowed, *, little: bool) -> int | None:
    """Return the tag of a sequence that may be built, and stay before it; or move to its end, and return None."""
    start = stream.tell()
    if at.wanted:
        try:
            skip_value(stream, vr=at.vr, little=little, budget=allowed.built, inside=True)
            fits = stream.tell() - start <= allowed.max_bytes
        except StructureError:
            fits = False
        stream.seek(start)
        if fits:
            return at.tag
    skip_value(stream, vr=at.vr, little=little, budget=allowed.passed)
    return None


class _Sequence(NamedTuple):
    """A sequence, or another value without a length."""

    tag: int
    vr: str | None
    wanted: bool


class _Halt:
    """Stops reading before each sequence but one; ``at`` is the sequence, and ``count`` the number of elements before it."""

    def __init__(self, stop: Stop, chosen: frozenset[int] | None, left: int, accepted: int | None) -> None:
        self._stop, self._chosen, self._left, self._accepted = stop, chosen, left, accepted
        self.at: _Sequence | None = None
        self.count = 0

    def before(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        """Return whether to stop before an element."""
        self.at = None  # pydicom also asks when it guesses the encoding, and then asks again
        self.count += 1
        if self.count > self._left:
            raise TooManyElementsError("the data set has too many elements")
        if self._stop(tag, vr, length):
            return True
        if length != UNDEFINED and vr not in NESTING:
            return False
        wanted = self._chosen is None or tag in self._chosen
        if length != UNDEFINED and not (length and wanted and is_sequence(tag, vr)):
            return False
        if tag == self._accepted:
            self._accepted = None
            return False
        self.at = _Sequence(int(tag), vr, wanted)
        return True
