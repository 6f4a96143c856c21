"""Which folder of images a case of marks belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread
from pydicom.misc import is_dicom

from alnnode.errors import NotAnalysable
from alnnode.imaging.series import read_volume
from training.detection.reference import MarksError, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alnnode.records import Volume
    from training.detection.reference import Reference

SAME_SPACING = 0.004  # relative


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files of a folder and of those below it; of a folder with a ``CT`` in it only that."""
    images = folder / "CT" if (folder / "CT").is_dir() else folder
    return sorted(path for path in images.rglob("*") if path.is_file() and is_dicom(path))


def given_cases(texts: Sequence[str]) -> dict[str, Path]:
    """Read CASE=FOLDER options.

    Raises:
        MarksError: one has another form.
    """
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, separator, _ in pairs if not separator]:
        raise MarksError(f"{wrong[0]}: CASE=FOLDER is needed")
    return {name: Path(folder) for name, _, folder in pairs}


def find_cases(marks: Path, data: Path, given: Mapping[str, Path]) -> dict[str, tuple[Path, Reference]]:
    """Find the images of every case that both readers marked.

    A case belongs to the folder of ``data`` whose slices lie as far apart, with pixels as large, as its marks say; where several do,
    to the one whose name holds the characters of the case in their order.

    Args:
        marks: folder with ``A`` and ``B``.
        data: folder with a folder of DICOM files for each series.
        given: folder of a case, where a person said so.

    Raises:
        MarksError: there are no marks, or no or several folders for a case.
    """
    names = sorted(path.stem for path in (marks / "A").glob("*.json") if (marks / "B" / path.name).exists())
    if not names:
        raise MarksError(f"no case with marks of both readers in {marks}/A and {marks}/B")
    folders = (
        {folder: _spacing(folder) for folder in sorted(data.iterdir()) if folder.is_dir()} if len(given) < len(names) else {}
    )
    found = {}
    for name in names:
        reference = read(marks, name)
        found[name] = (given.get(name) or _folder_of(name, reference, folders), reference)
    return found


def _folder_of(name: str, reference: Reference, folders: Mapping[Path, tuple[float, ...] | None]) -> Path:
    fitting = [f for f, mm in folders.items() if mm and np.allclose(mm, reference.spacing, rtol=SAME_SPACING)]
    alike = [f for f in fitting if _within(name, f.name.lower())]
    chosen = fitting if len(fitting) == 1 else alike
    if len(chosen) != 1:
        wanted = " x ".join(f"{mm:g}" for mm in reference.spacing)
        raise MarksError(f"case {name}: {len(chosen)} folders with voxels of {wanted} mm; say which: --case {name}=FOLDER")
    return chosen[0]


def _within(name: str, text: str) -> bool:
    """Whether the characters of a name stand in a text in this order."""
    rest = iter(text)
    return all(character in rest for character in name)


def _spacing(folder: Path) -> tuple[float, ...] | None:
    """Voxel size (slice, row, column) by the headers, mm; None where they say none."""
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
        MarksError: it is none that can be analysed.
    """
    try:
        return read_volume(dicom_files(folder))
    except NotAnalysable as error:
        raise MarksError(f"{folder}: {error}") from error
