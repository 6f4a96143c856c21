"""A CT series: its Part 10 files to a `Volume`, Hounsfield units on one regular grid in patient coordinates."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.config import disable_value_validation

from alnnode.counted import counted
from alnnode.errors import NotAnalysable
from alnnode.imaging import decode, geometry, lossy, optional_attributes, part10
from alnnode.imaging.attribute_values import text
from alnnode.imaging.frames import CT_STORAGE, difference, read_frames
from alnnode.records import SliceRef, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from pydicom import Dataset

    from alnnode.imaging.frames import Frame
    from alnnode.imaging.geometry import Stack

    Hounsfield = npt.NDArray[np.int16]
    Task = list[tuple[int, Frame]]  # (k, frame) of one file

MAX_VOXELS = 1 << 30  # 2 GiB of HU
_FRAMES_PER_TASK = 16


def read_volume(paths: Sequence[Path], max_spacing_mm: float = 5.0) -> Volume:
    """Read the instances of one CT series.

    Slices are ordered and placed by Image Position (Patient) alone (PS3.3 C.7.6.2.1.1). The pixel raster of the source is kept; ``affine``
    maps it to patient coordinates, whatever the patient's position. The result does not depend on the order of ``paths``.

    Args:
        paths: Part 10 files, single-frame CT or multi-frame Enhanced CT, of one series.
        max_spacing_mm: largest slice distance that is accepted, mm.

    Raises:
        NotAnalysable: the series is not a complete, regular, axial CT volume; the reason tells a radiographer what to send.
    """
    with disable_value_validation():
        frames, notes = _read_headers(paths)
        stack = geometry.stack(frames, max_spacing_mm)
        shown = [place[0] for place in stack.places]
        if len(shown) * shown[0].rows * shown[0].columns > MAX_VOXELS:
            raise NotAnalysable(f"The series is too large: {len(shown)} slices of {shown[0].rows} x {shown[0].columns} pixels.")
        voxels = _decode(shown)
        dropped = _count_duplicates(stack, voxels)
        header, left_out = part10.header_of(part10.read(shown[0].path, pixels=False))
        left_out += part10.left_out(shown[0].path)
        compressed = next((frame for frame in shown if frame.lossy), None)
        if compressed is not None:
            lossy.complete(header, part10.read(compressed.path, pixels=False), compressed.path)
    if left_out:
        notes.append(optional_attributes.remark(left_out))
    if dropped:
        notes.append(f"{counted(dropped, 'duplicate image')} left out")
    if compressed is not None:
        notes.append("images were compressed with loss")
    return Volume(
        voxels=voxels,
        affine=stack.affine,
        slices=tuple(_reference(frame) for frame in shown),
        header=header,
        spacing=stack.spacing,
        slice_thickness=geometry.thickness(shown),
        notes=(*notes, *stack.notes),
    )


def read_header(paths: Sequence[Path]) -> Dataset:
    """Return the header of one instance of a series that need not be analysable, as in `Volume.header`.

    The choice depends on the instances only, not on the order or names of the files.

    Raises:
        NotAnalysable: none of the files can be read.
    """
    found: list[tuple[str, Path]] = []
    with disable_value_validation():
        for path in paths:
            try:
                uid = text(part10.read(path, pixels=False, tags=["SOPInstanceUID"]), "SOPInstanceUID")
            except NotAnalysable:
                continue
            if uid:
                found.append((uid, path))
        if not found:
            raise NotAnalysable("None of the files can be read as DICOM images. Please send the series again.")
        return part10.header_of(part10.read(min(found)[1], pixels=False))[0]


def candidate_series(folder: Path) -> dict[str, list[Path]]:
    """Group the CT images below a folder by Series Instance UID, without decoding pixels.

    Other files, DICOMDIR, hidden files and folders, and objects that are not CT images are ignored.

    Returns:
        The files by UID; both in a fixed order.
    """
    found: dict[str, list[Path]] = {}
    with disable_value_validation():
        for path in files(folder):
            try:
                dataset = part10.read(path, pixels=False, tags=["SOPClassUID", "SeriesInstanceUID"])
            except NotAnalysable:
                continue
            uid = text(dataset, "SeriesInstanceUID")
            if uid and text(dataset, "SOPClassUID") in CT_STORAGE:
                found.setdefault(uid, []).append(path)
    return {uid: found[uid] for uid in sorted(found)}


def files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder in a fixed order, without hidden files and folders."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if not name.startswith(".") and path.is_file():  # a named pipe would block forever
                yield path


def _read_headers(paths: Sequence[Path]) -> tuple[list[Frame], list[str]]:
    """Return the frames of all CT images, and notes on images that were left out."""
    frames: list[Frame] = []
    series: set[str] = set()
    localizers = others = 0
    for path in paths:
        dataset = part10.read(path, pixels=False)
        modality = text(dataset, "Modality")
        if modality != "CT":
            name = modality if re.fullmatch(r"[A-Z]{2,10}", modality) else "of an unknown modality"
            raise NotAnalysable(f"The series is {name}, not CT. Please send a CT series of the chest or breast.")
        series.add(text(dataset, "SeriesInstanceUID"))
        if text(dataset, "SOPClassUID") not in CT_STORAGE:
            others += 1
            continue
        of_instance, left_out = read_frames(dataset, path)
        frames += of_instance
        localizers += left_out
    if len(series) > 1:
        raise NotAnalysable("The images belong to several series. Please send each series on its own.")
    if not frames:
        what = "only localizer images" if localizers else "no CT images"
        raise NotAnalysable(f"The series holds {what}. Please send the axial reconstruction.")
    counts = ((localizers, "localizer image"), (others, "non-CT object"))
    return frames, [f"{counted(count, what)} left out" for count, what in counts if count]


def _decode(shown: Sequence[Frame]) -> Hounsfield:
    """Decode one frame per slice, in threads: most decoders release the global interpreter lock."""
    voxels = np.empty((len(shown), shown[0].rows, shown[0].columns), dtype=np.int16)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        jobs = [threads.submit(_decode_task, task, voxels) for task in _tasks(shown)]
        try:
            for job in jobs:
                job.result()
        finally:
            threads.shutdown(cancel_futures=True)
    return voxels


def _tasks(shown: Sequence[Frame]) -> list[Task]:
    by_file = sorted(enumerate(shown), key=lambda item: (item[1].path, item[1].number or 0))
    tasks: list[Task] = []
    for _, group in groupby(by_file, key=lambda item: item[1].path):
        items = list(group)
        tasks += [items[start : start + _FRAMES_PER_TASK] for start in range(0, len(items), _FRAMES_PER_TASK)]
    return tasks


def _decode_task(task: Task, voxels: Hounsfield) -> None:
    order = map(itemgetter(0), task)
    for k, hu in zip(order, decode.hounsfield([frame for _, frame in task]), strict=True):
        voxels[k] = hu


def _count_duplicates(stack: Stack, voxels: Hounsfield) -> int:
    """Return the number of frames that are exact duplicates.

    Raises:
        NotAnalysable: two images of one position differ: the series mixes phases, energies or reconstructions.
    """
    dropped = 0
    for k, (first, *duplicates) in enumerate(stack.places):
        for duplicate in duplicates:
            if not np.array_equal(next(decode.hounsfield([duplicate])), voxels[k]):
                what = difference(first, duplicate)
                raise NotAnalysable(
                    f"The series shows the same places twice with different images"
                    f"{f': it mixes {what}' if what else ''}. Please send one reconstruction per series."
                )
            dropped += 1
    return dropped


def _reference(frame: Frame) -> SliceRef:
    x, y, z = frame.position
    return SliceRef(
        frame.sop_class_uid,
        frame.sop_instance_uid,
        frame.number,
        (x, y, z),
        (frame.slope, frame.intercept),
        frame.image_number,
        frame.frame_of_reference,
    )
