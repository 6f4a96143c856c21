"""Implant phantom nodes into one real series and into a phantom like it, and cache their crops.

The cache depends on images, marks, options and code, so that a run that was interrupted resumes.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np

from alnnode.errors import NotAnalysable
from alnnode.imaging import crop, orientation, window
from alnnode.imaging.series import read_volume
from training.data import arrays, ct_implants, ct_properties, implant_cohort, implantation, prepared_ct
from training.data import cohort as cohorts
from training.data.cohort import Cohort
from training.data.implant_cohort import ImplantedPart, ImplantHost
from training.data.implantation import CLEAR
from training.data.prepared_ct import PreparedCt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.records import Volume
    from training.data.ct_implants import ImplantedCt, PlannedGroup
    from training.data.implant_cohort import ImplantOptions, Key
    from training.detection.reference import Reference

    Found = dict[Key, float]

MARGIN_MM: Final = 3.0  # around a marked node
LEAST_RADIUS_MM: Final = 4.0  # of a marked node
IN_FAT, TOUCHING = "in fat only", "may touch other tissue"
_OTHERS: Final = ("phase", "place", "located", "remark")


@dataclass(frozen=True, slots=True)
class SeriesSource:
    """A series with its files, and the readers' marks on it where there are any."""

    name: str
    files: tuple[Path, ...]
    reference: Reference | None


@dataclass(frozen=True, slots=True)
class NodeLocator:
    """Locates implanted nodes.

    Attributes:
        identity: of detector and networks, for the cache.
        locate: returns the probability of each node that is found in a copy of a CT, whose nodes have these keys.
    """

    identity: str
    locate: Callable[[ImplantedCt, Sequence[Key]], Found]


@dataclass(frozen=True, slots=True)
class ImplantedSeries:
    """The nodes of one series that found a place in the CT and in the phantom, in the same order; none when it cannot be used.

    Attributes:
        phase, place: (N,) contrast phase of the series, and whether the node may touch other structures.
        located: (N,) probability of the node in the box of the detector; NaN where the detector did not find it or was not asked.
        remark: how many nodes found a place, or why the series is not used.
    """

    ct: Cohort
    phantoms: Cohort
    phase: npt.NDArray[np.str_]
    place: npt.NDArray[np.str_]
    located: npt.NDArray[np.float64]
    remark: str


def collect_series(source: SeriesSource, options: ImplantOptions, locator: NodeLocator | None, cache: Path) -> ImplantedSeries:
    """Return the nodes of a series, from the cache where it has them.

    Args:
        source: the series.
        options: what is implanted.
        locator: also locates the nodes in the CT; None: nodes are not located.
        cache: folder.
    """
    path = cache / f"{_key(source, options, locator)}.npz"
    if not path.exists():
        made = _implant(source, options, locator)
        cohorts_of = {kind: getattr(made, kind) for kind in ("ct", "phantoms")}
        crops_of = {f"{kind}_{f.name}": getattr(one, f.name) for kind, one in cohorts_of.items() for f in fields(Cohort)}
        arrays.save_arrays(path, crops_of | {name: np.asarray(getattr(made, name)) for name in _OTHERS})
    with np.load(path, allow_pickle=False) as stored:
        ct, phantoms = (Cohort(**{f.name: stored[f"{kind}_{f.name}"] for f in fields(Cohort)}) for kind in ("ct", "phantoms"))
        phase, place, located, remark = (stored[name] for name in _OTHERS)
    return ImplantedSeries(ct, phantoms, phase, place, located, str(remark))


def _key(source: SeriesSource, options: ImplantOptions, locator: NodeLocator | None) -> str:
    modules = (crop, orientation, window, cohorts, ct_implants, ct_properties, implant_cohort, implantation, prepared_ct)
    code = [inspect.getsource(part) for part in (*modules, excluded_voxels)]
    images = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source.files]
    said = (source.name, images, source.reference, options, locator and locator.identity)
    return hashlib.sha256(repr((code, cohorts.phantom_code(), said)).encode()).hexdigest()[:32]


def _implant(source: SeriesSource, options: ImplantOptions, locator: NodeLocator | None) -> ImplantedSeries:
    try:
        volume = read_volume(list(source.files))
    except NotAnalysable as error:
        return _unused(source, options, str(error))
    host = ImplantHost(
        source.name, PreparedCt.from_volume(volume), excluded_voxels(volume, source.reference) if source.reference else None
    )
    planned = implant_cohort.plan_groups(host, options)
    if not planned:
        return _unused(source, options, "The series shows no axilla.")
    found: Found = {}
    copies: list[ImplantedPart] = []
    for made, keys in implant_cohort.implant_copies(host, planned, options):
        copies.append(implant_cohort.crop_implants(host, made, keys, options))
        if locator:
            found |= locator.locate(made, keys)
    if not copies:
        return _unused(source, options, "No node found a place.")
    drawn = implant_cohort.implant_all(implant_cohort.phantom_like(host, options), planned, options)
    return _paired(host, planned, (implant_cohort.join_parts(copies), drawn), found)


def _unused(source: SeriesSource, options: ImplantOptions, reason: str) -> ImplantedSeries:
    none = implant_cohort.no_nodes(options.crops)
    texts = np.zeros(0, "U1")
    return ImplantedSeries(none, none, texts, texts, np.zeros(0), f"{source.name}: not used. {reason}")


def _paired(
    host: ImplantHost,
    planned: Sequence[PlannedGroup],
    both: tuple[ImplantedPart, ImplantedPart],
    found: Found,
) -> ImplantedSeries:
    """Return the nodes that have a place in the CT and in the phantom."""
    keys = sorted(set(both[0].keys) & set(both[1].keys))
    ct, phantoms = (part.select(keys).cohort for part in both)
    phase = host.prepared.measured.phase.value
    members = sum(len(group.members) for group in planned)
    return ImplantedSeries(
        ct,
        phantoms,
        np.array([f"contrast phase {phase}"] * len(keys), np.str_),
        np.array([TOUCHING if planned[n].not_fat > CLEAR else IN_FAT for n, _ in keys], np.str_),
        np.array([found.get(key, np.nan) for key in keys], np.float64),
        f"{host.name}: {len(keys)} of {members} planned nodes found a place in the CT and in the phantom; contrast phase {phase}",
    )


def excluded_voxels(volume: Volume, reference: Reference) -> npt.NDArray[np.bool_]:
    """Return the voxels of a series within `MARGIN_MM` of a node that any reader marked."""
    excluded = np.zeros(volume.voxels.shape, bool)
    for place in (*reference.nodes, *reference.uncertain):
        radius = max(place.long_mm / 2, LEAST_RADIUS_MM) + MARGIN_MM
        where = _around(place.centre, radius, volume)
        steps: Iterable[tuple[npt.NDArray[np.int64], float, float]] = zip(
            np.ogrid[where], place.centre, volume.spacing, strict=True
        )
        distance = np.asarray(sum(((axis - at) * mm) ** 2 for axis, at, mm in steps))
        excluded[where] |= distance <= radius**2
    return excluded


def _around(centre: tuple[float, float, float], radius: float, volume: Volume) -> tuple[slice, ...]:
    """Return the box of voxels around a point of a volume."""
    low = [max(0, int(at - radius / mm)) for at, mm in zip(centre, volume.spacing, strict=True)]
    high = [int(at + radius / mm) + 2 for at, mm in zip(centre, volume.spacing, strict=True)]
    return tuple(slice(a, min(b, count)) for a, b, count in zip(low, high, volume.voxels.shape, strict=True))
