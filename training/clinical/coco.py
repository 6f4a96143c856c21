"""Read boxes from COCO JSON (https://cocodataset.org/#format-data), as annotation tools write it.

An image is identified by a field ``sop_instance_uid`` (or ``SOPInstanceUID``), by a file name that is the SOP Instance UID, or by the path of
the file below the folder. ``frame_number`` is the frame of a multi-frame instance. Boxes with the same ``track_id`` belong to one node.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from training.clinical.imported import ImportedNodes, patient_of
from training.clinical.node_table import NodeRow, TableError
from training.clinical.outline import bounds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from training.clinical.dicom_folder import DicomFolder
    from training.clinical.node_table import Contour

UID_FIELDS: Final = ("sop_instance_uid", "SOPInstanceUID")
PICTURES: Final = (".png", ".jpg", ".jpeg", ".dcm")


def read_coco(path: Path, folder: DicomFolder) -> ImportedNodes:
    """Return the boxes of one file, one row for each box; `training.clinical.merge_slices` joins the slices of a node later.

    Raises:
        TableError: the file is not COCO JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in content["images"]}
        names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
        annotations = list(content["annotations"])
    except (KeyError, TypeError, ValueError) as error:
        raise TableError(f"{path.name} is no COCO file: it needs images and annotations") from error
    by_path = {
        str(PurePosixPath(image.path.relative_to(folder.root))): uid
        for series in folder.series.values()
        for uid, image in series.images.items()
    }
    found = ImportedNodes()
    for number, annotation in enumerate(annotations, 1):
        where = f"annotation {number}"
        try:
            image = images[annotation["image_id"]]
            row = _row(annotation, image, _uid(image, folder, by_path), names, folder)
        except (KeyError, TypeError, ValueError):
            found.left_out.append(f"{where}: image_id is missing, or bbox does not have four numbers")
            continue
        if isinstance(row, str):
            found.left_out.append(f"{where}: {row}")
        else:
            found.rows.append(row)
    return found


def _uid(image: Mapping[str, Any], folder: DicomFolder, by_path: Mapping[str, str]) -> str | None:
    """Return the SOP Instance UID of an image in the folder; None if it is not there."""
    for name in UID_FIELDS:
        if image.get(name):
            return str(image[name])
    path = PurePosixPath(str(image.get("file_name", "")))
    paths = [path, *([path.with_suffix("")] if path.suffix.lower() in PICTURES else [])]
    for one in paths:
        if one.name in folder.by_image:
            return one.name
        for name in (str(one), f"{one}.dcm"):
            if name in by_path:
                return by_path[name]
    return None


def _row(
    annotation: Mapping[str, Any], image: Mapping[str, Any], uid: str | None, names: Mapping[Any, str], folder: DicomFolder
) -> NodeRow | str:
    if uid is None or uid not in folder.by_image:
        return "its image is not in the folder: add a sop_instance_uid to the images, or use the file names of the folder"
    series = folder.by_image[uid]
    shown = series.images[uid]
    size = (image.get("width", shown.columns), image.get("height", shown.rows))
    if size != (shown.columns, shown.rows):
        return f"its image has {size[0]} x {size[1]} pixels, the CT image {shown.columns} x {shown.rows}: scale the boxes first"
    left, top, width, height = (float(value) for value in annotation["bbox"])
    contour = _contour(annotation)
    box = bounds(contour) if contour else (left, top, left + width, top + height)
    attributes = annotation.get("attributes") or {}
    track = annotation.get("track_id", attributes.get("track_id", ""))
    category = names.get(annotation.get("category_id"), "")
    return NodeRow(
        patient=patient_of(series),
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        sop_uid=uid,
        frame=int(image.get("frame_number", 1)) if shown.frames > 1 else None,
        left=box[0],
        top=box[1],
        right=box[2],
        bottom=box[3],
        contour=contour,
        pathology=str(attributes.get("pathology") or category),
        side=str(attributes.get("side") or ""),
        level=str(attributes.get("level") or ""),
        source="COCO",
        source_uid=str(annotation.get("id", "")),
        tracking_uid="" if track in {"", None} else str(track),
    )


def _contour(annotation: Mapping[str, Any]) -> Contour:
    """Return the outline if the annotation has exactly one polygon, else an empty one."""
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or len(polygons) != 1 or len(polygons[0]) < 6:
        return ()
    flat = [float(value) for value in polygons[0]]
    return tuple(zip(flat[::2], flat[1::2], strict=True))
