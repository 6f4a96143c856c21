"""Find the folder of images of each marked case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread
from pydicom.misc import is_dicom

from alnnode.errors import NotAnalysable
from alnnode.imaging.series import read_volume
from training.detection.reference import MarksError, read_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alnnode.records import Volume
    from training.detection.reference import Reference

SAME_SPACING = 0.004  # relative


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files below a folder; if it has a subfolder ``CT``, only those below ``CT``."""
    images = folder / "CT" if (folder / "CT").is_dir() else folder
    return sorted(path for path in images.rglob("*") if path.is_file() and is_dicom(path))


def given_cases(texts: Sequence[str]) -> dict[str, Path]:
    """Return the folders of CASE=FOLDER options.

    Raises:
        MarksError: an option has another form.
    """
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, separator, _ in pairs if not separator]:
        raise MarksError(f"--case {wrong[0]}: write CASE=FOLDER")
    return {name: Path(folder) for name, _, folder in pairs}


def find_cases(marks: Path, data: Path, given: Mapping[str, Path]) -> dict[str, tuple[Path, Reference]]:
    """Return the folder and the reference of every case that both readers marked.

    The folder of a case is the folder in ``data`` whose images have the voxel size of its marks. If several have it, it is the one whose name
    contains the characters of the case in their order.

    Args:
        marks: folder with ``A`` and ``B``.
        data: folder with one folder of DICOM files for each series.
        given: folders of cases that the user names.

    Raises:
        MarksError: there are no marks, or a case has no folder or several.
    """
    names = sorted(path.stem for path in (marks / "A").glob("*.json") if (marks / "B" / path.name).exists())
    if not names:
        raise MarksError(f"no case with marks of both readers in {marks}/A and {marks}/B")
    folders = (
        {folder: _spacing(folder) for folder in sorted(data.iterdir()) if folder.is_dir()} if len(given) < len(names) else {}
    )
    found = {}
    for name in names:
        reference = read_reference(marks, name)
        found[name] = (given.get(name) or _folder_of(name, reference, folders), reference)
    return found


def _folder_of(name: str, reference: Reference, folders: Mapping[Path, tuple[float, ...] | None]) -> Path:
    fitting = [f for f, mm in folders.items() if mm and np.allclose(mm, reference.spacing, rtol=SAME_SPACING)]
    similar = [f for f in fitting if _within(name, f.name.lower())]
    chosen = fitting if len(fitting) == 1 else similar
    if len(chosen) != 1:
        wanted = " x ".join(f"{mm:g}" for mm in reference.spacing)
        raise MarksError(
            f"case {name}: {len(chosen)} folders with voxels of {wanted} mm; name the folder with --case {name}=FOLDER"
        )
    return chosen[0]


def _within(name: str, text: str) -> bool:
    """Return whether a text contains the characters of a name in this order."""
    rest = iter(text)
    return all(character in rest for character in name)


def _spacing(folder: Path) -> tuple[float, ...] | None:
    """Return the voxel size (slice, row, column) in mm from the headers; None if they do not have it."""
    tags = ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"]
    headers = [dcmread(path, stop_before_pixels=True, specific_tags=tags) for path in dicom_files(folder)]
    try:
        across = np.cross(*np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3))
        heights = np.unique(np.round([across @ np.array(header.ImagePositionPatient, float) for header in headers], 3))
        row, column = (float(mm) for mm in headers[0].PixelSpacing)
        return float(np.median(np.diff(heights))), row, column
    except (AttributeError, IndexError, TypeError, ValueError):
        return None


def volume_of(folder: Path) -> Volume:
    """Read the series of a folder.

    Raises:
        MarksError: the series cannot be analysed.
    """
    try:
        return read_volume(dicom_files(folder))
    except NotAnalysable as error:
        raise MarksError(f"{folder}: {error}") from error
