"""A test cohort of phantom nodes in real CT, beside the same nodes in phantoms.

The nodes of a series are planned once and implanted twice by `training.data.ct_implants`: into the axillae of the series, and into those
of a phantom with its geometry, noise and contrast phase. What differs between the two is the surroundings, not the nodes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from alnnode import phantom
from alnnode.phantom import PhantomSettings, Surroundings
from alnnode.phantom.group_plan import plan_group
from alnnode.phantom.patient_parameters import sample_patient
from alnnode.records import Box
from training.data import cohort as cohorts
from training.data.cohort import Cohort
from training.data.ct_implants import GroupSettings, PlannedGroup, implant_groups
from training.data.implantation import CLEAR
from training.data.prepared_ct import PreparedCt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from alnnode.imaging.crop import CropSettings
    from training.data.ct_implants import ImplantedCt

    Key = tuple[int, int]  # number of the group in the plan, number of the member in the group

PER_SIDE: Final = 4  # groups in one axilla of one copy of the CT, about as many nodes as a phantom has
ATTEMPTS: Final = 2  # copies of the CT in which a place for a group is sought
_BODY_MM: Final = 200.0  # length of a phantom
_MOST_SLICES: Final = 120
_WIDTH_MM: Final = 330.0  # field of view in which a phantom shows both axillae


@dataclass(frozen=True, slots=True)
class ImplantOptions:
    """What is implanted.

    Attributes:
        seed: of plans, places and phantoms; the same seed and images give the same cohort.
        per_class: least number of nodes of each class that are planned for a series.
        crops: how nodes are cropped.
    """

    seed: int
    per_class: int
    crops: CropSettings
    groups: GroupSettings = field(default_factory=GroupSettings)


@dataclass(frozen=True, slots=True)
class ImplantHost:
    """A series into which nodes are implanted.

    Attributes:
        exclude: voxels of the source in which no node may lie, such as the patient's own nodes.
    """

    name: str
    prepared: PreparedCt
    exclude: npt.NDArray[np.bool_] | None = None

    def rng(self, options: ImplantOptions, *purpose: int) -> np.random.Generator:
        """Return a generator for a purpose, which depends on the seed and on the images, but not on names or on other series."""
        return np.random.default_rng([options.seed, self.number, *purpose])

    @property
    def number(self) -> int:
        """A number that follows from the voxels."""
        return zlib.crc32(self.prepared.hu.tobytes())


@dataclass(frozen=True, slots=True)
class ImplantedPart:
    """The nodes that found a place in one series.

    Attributes:
        cohort: crops and labels; the patient is the name of the series.
        keys: of the nodes, in the order of the cohort.
    """

    cohort: Cohort
    keys: tuple[Key, ...]

    def select(self, keys: Sequence[Key]) -> ImplantedPart:
        """Return the nodes with these keys, in this order."""
        row = {key: n for n, key in enumerate(self.keys)}
        return ImplantedPart(cohorts.select_nodes(self.cohort, np.array([row[key] for key in keys], np.intp)), tuple(keys))


def plan_groups(host: ImplantHost, options: ImplantOptions) -> list[PlannedGroup]:
    """Plan groups with at least ``options.per_class`` nodes of each class, enhanced as the contrast phase of the series asks for."""
    rng = host.rng(options, 1)
    patient = replace(sample_patient(rng, PhantomSettings()), phase=host.prepared.measured.phase)
    sides = [side for side, _ in host.prepared.regions]
    planned: list[PlannedGroup] = []
    counts = {True: 0, False: 0}
    while sides and min(counts.values()) < options.per_class:
        members = plan_group(rng, patient, options.groups.clusters)
        not_fat = options.groups.not_fat if rng.random() < options.groups.touching else CLEAR
        planned.append(PlannedGroup(members, sides[int(rng.integers(len(sides)))], not_fat))
        for member in members:
            counts[member.plan.malignant] += 1
    return planned


def implant_copies(
    host: ImplantHost, planned: Sequence[PlannedGroup], options: ImplantOptions
) -> Iterator[tuple[ImplantedCt, tuple[Key, ...]]]:
    """Yield copies of the CT, each with some of the groups, and the keys of the nodes in them.

    A group that finds no place is tried again in a later copy, and then left out.
    """
    rng = host.rng(options, 2)
    waiting = [(n, 1) for n in range(len(planned))]
    while waiting:
        batch: list[tuple[int, int]] = []
        later: list[tuple[int, int]] = []
        room = {group.side: PER_SIDE for group in planned}
        for n, attempt in waiting:
            room[planned[n].side] -= 1
            (batch if room[planned[n].side] >= 0 else later).append((n, attempt))
        made, placed = implant_groups(host.prepared, [planned[n] for n, _ in batch], rng, host.exclude)
        failed = [one for at, one in enumerate(batch) if at not in placed]
        waiting = later + [(n, attempt + 1) for n, attempt in failed if attempt < ATTEMPTS]
        found = [batch[at][0] for at in placed]
        if found:
            yield made, tuple((n, member) for n in found for member in range(len(planned[n].members)))


def crop_implants(host: ImplantHost, made: ImplantedCt, keys: Sequence[Key], options: ImplantOptions) -> ImplantedPart:
    """Return the crops of the nodes in one copy of the CT; ``keys`` are those of ``made.nodes``."""
    places = _true_places(made.labels)
    shown = [(node, key) for node, key in zip(made.nodes, keys, strict=True) if node.number in places]
    crops = [
        cohorts.crop_boxes(
            made.volume, [places[node.number]], options.crops, host.prepared.blood_hu, host.rng(options, 3, *key)
        )
        for node, key in shown
    ]
    cohort = Cohort(
        fsc=np.concatenate([fsc for fsc, _ in crops]),
        asc=np.concatenate([asc for _, asc in crops]),
        malignant=np.array([node.malignant for node, _ in shown], bool),
        patient=np.array([host.name] * len(shown)),
        short_axis=np.array([node.short_axis_mm for node, _ in shown], np.float32),
    )
    return ImplantedPart(cohort, tuple(key for _, key in shown))


def implant_all(host: ImplantHost, planned: Sequence[PlannedGroup], options: ImplantOptions) -> ImplantedPart:
    """Return the crops of all groups that find a place in the CT."""
    parts = [crop_implants(host, made, keys, options) for made, keys in implant_copies(host, planned, options)]
    return join_parts(parts) if parts else ImplantedPart(no_nodes(options.crops), ())


def join_parts(parts: Sequence[ImplantedPart]) -> ImplantedPart:
    """Return the nodes of several copies of one CT."""
    return ImplantedPart(cohorts.join_cohorts(part.cohort for part in parts), tuple(key for part in parts for key in part.keys))


def no_nodes(crops: CropSettings) -> Cohort:
    """Return a cohort without nodes."""
    none = np.zeros((0, cohorts.VARIANTS, crops.channels, crops.pixels, crops.pixels), np.uint8)
    return Cohort(none, none, np.zeros(0, bool), np.zeros(0, "U1"), np.zeros(0, np.float32))


def phantom_like(host: ImplantHost, options: ImplantOptions) -> ImplantHost:
    """Return a phantom without nodes, with the voxels, the noise and the contrast phase of a series and with a patient's surroundings."""
    prepared = host.prepared
    dz, dy, _ = prepared.frame.spacing
    columns = max(64, prepared.hu.shape[2] // 2 * 2)
    pixel = round(max(dy, _WIDTH_MM / columns), 4)
    slices = int(np.clip(_BODY_MM / dz, 8, _MOST_SLICES))
    settings = PhantomSettings(
        size=columns,
        slices=(slices, slices),
        thickness_mm=(dz, dz),
        spacing_mm=(pixel, pixel),
        max_nodes_per_side=0,
        phase=prepared.measured.phase,
        noise_hu=prepared.measured.noise_hu,
        surroundings=Surroundings.AXILLA,
    )
    made = phantom.make_patient(options.seed, host.number, settings)
    return ImplantHost(host.name, PreparedCt.from_volume(cohorts.as_volume(made)))


def _true_places(labels: npt.NDArray[np.uint16]) -> dict[int, tuple[Box, int]]:
    """Return the box of each node and its slice with the largest cross-section, by number; a node without voxels is missing."""
    found = {}
    for number, where in enumerate(ndimage.find_objects(labels), 1):
        if where is None:
            continue
        largest = int(np.argmax((labels[where] == number).sum(axis=(1, 2))))
        k, j, i = where
        found[number] = (Box(k.start, j.start, i.start, k.stop, j.stop, i.stop), k.start + largest)
    return found
