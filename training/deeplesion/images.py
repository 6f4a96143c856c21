"""Read the 16-bit PNG images of a sub-volume as a `Volume` of Hounsfield units.

The table says nothing of the patient's position. The data set's own converter to NIfTI places rows towards the back, columns towards the patient's
left, and slice numbers towards the feet: a patient who lies supine, images numbered from the head. That is assumed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydicom import Dataset

from alnnode.records import SliceRef, Volume
from training.deeplesion.errors import DeepLesionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from training.deeplesion.selection import SubVolume

OFFSET: Final = 32768  # stored value of 0 HU
DEEP: Final = ("I;16", "I;16B", "I;16L", "I")  # Pillow's names of 16-bit greyscale
FOLDERS: Final = ("Images_png", "Images_16bit")
NOTE: Final = "position of the patient unknown: supine assumed"


def images_folder(data: Path) -> Path:
    """Return the folder that holds a folder of images for each series: ``Images_png`` or ``Images_16bit`` in the data's folder, or the data's folder itself."""
    return next((data / name for name in FOLDERS if (data / name).is_dir()), data)


def missing_images(folder: Path, subvolumes: Sequence[SubVolume]) -> dict[str, list[str]]:
    """Return by name of the sub-volume which of its images are not in the folder; complete ones are left out."""
    missing = {sub.name: [name for name in sub.file_names if not (folder / sub.series / name).is_file()] for sub in subvolumes}
    return {name: files for name, files in missing.items() if files}


def read_subvolume(folder: Path, sub: SubVolume, *, head_first: bool) -> Volume:
    """Read a sub-volume; its slices are ordered from the feet to the head, and ``image_number`` of each is the number of its file.

    Raises:
        DeepLesionError: an image is missing, is not a 16-bit greyscale PNG, or has another size than the others.
    """
    numbers = list(range(sub.first, sub.last + 1))
    planes = [read_slice(folder / sub.series / name) for name in sub.file_names]
    if len({plane.shape for plane in planes}) > 1:
        raise DeepLesionError(
            f"{folder / sub.series}: images {sub.first} to {sub.last} have different sizes: unpack them again from the archive"
        )
    if head_first:
        numbers.reverse()
        planes.reverse()
    voxels = np.ascontiguousarray(np.stack(planes))
    interval, row, column = sub.spacing
    rows, columns = planes[0].shape
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = interval, row, column, 1.0
    affine[:2, 3] = -(columns - 1) / 2 * column, -(rows - 1) / 2 * row
    slices = tuple(
        SliceRef("", "", None, (affine[0, 3], affine[1, 3], k * interval), image_number=number)
        for k, number in enumerate(numbers)
    )
    return Volume(voxels, affine, slices, Dataset(), sub.spacing, notes=(NOTE,))


def read_slice(path: Path) -> npt.NDArray[np.int16]:
    """Read one image as Hounsfield units, shape (rows, columns).

    Raises:
        DeepLesionError: the file is missing or is not a 16-bit greyscale PNG.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in DEEP:
                raise DeepLesionError(
                    f"{path} is not a 16-bit greyscale PNG (mode {image.mode}): use the images of the data set without conversion"
                )
            stored = np.asarray(image).astype(np.int32)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DeepLesionError(
            f"Cannot read {path} ({type(error).__name__}): unpack the image again from its archive"
        ) from error
    return (stored - OFFSET).clip(-32768, 32767).astype(np.int16)
