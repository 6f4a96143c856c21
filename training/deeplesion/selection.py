"""Choose the lesions with a label, and group them into the sub-volumes that the data set holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from training.deeplesion.errors import DeepLesionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.deeplesion.labels import Labels
    from training.deeplesion.table import Lesion

MAX_INTERVAL_MM: Final = 5.0  # the node refuses series with a larger slice distance


@dataclass(frozen=True, slots=True)
class SubVolume:
    """The images that the data set holds around the key slices of some lesions of one series.

    Attributes:
        series: folder of the images.
        patient: index of the patient.
        first, last: numbers of its images.
        spacing: (slice, row, column) distances in mm.
        targets: lesions that count.
        others: lesions on its images that do not count; a node that hits one is not a false positive.
    """

    series: str
    patient: int
    first: int
    last: int
    spacing: tuple[float, float, float]
    targets: tuple[Lesion, ...]
    others: tuple[Lesion, ...] = ()

    @property
    def name(self) -> str:
        """Name of the sub-volume, e.g. ``000001_01_01_103-115``."""
        return f"{self.series}_{self.first:03d}-{self.last:03d}"

    @property
    def file_names(self) -> list[str]:
        """Names of its images in the order of their numbers."""
        return [f"{number:03d}.png" for number in range(self.first, self.last + 1)]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lesions count.

    Attributes:
        label: that the report gives them.
        split: part of ``DL_info.csv`` (train, val or test), or all.
        include_noisy: whether lesions that the data set calls possibly noisy count.
    """

    label: str
    split: str = "all"
    include_noisy: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """The sub-volumes with lesions that count, and by reason how many lesions with the label do not."""

    subvolumes: tuple[SubVolume, ...]
    excluded: Mapping[str, int] = field(default_factory=dict)


def select(lesions: Sequence[Lesion], labels: Labels, choice: Choice) -> Selection:
    """Choose lesions and group them by series and range of slices.

    Raises:
        DeepLesionError: the label is not known, or no lesion is left.
    """
    labels.check_term(choice.label)
    groups: dict[tuple[str, int, int], list[Lesion]] = {}
    excluded: Counter[str] = Counter()
    for lesion in lesions:
        if choice.split not in ("all", lesion.split):
            continue
        if choice.label in labels.relevant.get(lesion.number, ()):
            reason = _unusable(lesion, include_noisy=choice.include_noisy)
        elif choice.label in labels.uncertain.get(lesion.number, ()):
            reason = "the report gives the label with doubt"
        else:
            continue
        if reason:
            excluded[reason] += 1
        else:
            groups.setdefault((lesion.series, lesion.first, lesion.last), []).append(lesion)
    if not groups:
        raise DeepLesionError(f'No usable lesion of split "{choice.split}" has the label "{choice.label}" (--split, --label)')
    by_series: dict[str, list[Lesion]] = {}
    for lesion in lesions:
        by_series.setdefault(lesion.series, []).append(lesion)
    return Selection(tuple(_subvolume(group, by_series[key[0]]) for key, group in sorted(groups.items())), dict(excluded))


def _unusable(lesion: Lesion, *, include_noisy: bool) -> str:
    if lesion.noisy and not include_noisy:
        return "DL_info.csv calls the annotation possibly noisy (--include-noisy counts it)"
    if not lesion.first <= lesion.key_slice <= lesion.last:
        return "the key slice lies outside the range of slices"
    if not 0 < lesion.spacing[0] <= MAX_INTERVAL_MM:
        return f"the slice distance is not known, or larger than {MAX_INTERVAL_MM:g} mm"
    return ""


def _subvolume(targets: Sequence[Lesion], series: Sequence[Lesion]) -> SubVolume:
    one = targets[0]
    numbers = {lesion.number for lesion in targets}
    others = tuple(x for x in series if x.number not in numbers and one.first <= x.key_slice <= one.last)
    return SubVolume(one.series, one.patient, one.first, one.last, one.spacing, tuple(targets), others)
