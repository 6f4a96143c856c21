"""Data of DeepLesion's shape from the project's own phantoms: 16-bit PNG images, ``DL_info.csv`` and LesaNet's labels."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from alnnode.phantom import Phantom, PhantomSettings, Position, make_patient

TERMS = ["chest", "lymph node", "axilla", "axilla lymph node", "groin lymph node"]
SETTINGS = PhantomSettings(
    size=256, slices=(40, 40), thickness_mm=(5.0, 5.0), spacing_mm=(1.4, 1.4), min_nodes_per_side=3, max_nodes_per_side=4,
    position=Position.HFS,
)  # fmt: skip


def row(**changes: str) -> dict[str, str]:
    """Return a row of the table with some cells changed."""
    cells = {
        "File_name": "000001_01_01_010.png",
        "Patient_index": "1",
        "Study_index": "1",
        "Series_ID": "1",
        "Key_slice_index": "10",
        "Measurement_coordinates": "26, 26, 36, 36, 36, 26, 26, 36",
        "Bounding_boxes": "21, 21, 41, 41",
        "Lesion_diameters_Pixel_": "14.1, 14.1",
        "Normalized_lesion_location": "0.3, 0.4, 0.38",
        "Coarse_lesion_type": "5",
        "Possibly_noisy": "0",
        "Slice_range": "4, 16",
        "Spacing_mm_px_": "0.8, 0.8, 5",
        "Image_size": "512, 512",
        "DICOM_windows": "-175, 275",
        "Patient_gender": "F",
        "Patient_age": "62",
        "Train_Val_Test": "3",
    }
    return cells | changes


def labels_of(relevant: dict[int, list[int]], uncertain: dict[int, list[int]] | None = None) -> dict[str, object]:
    """Return labels as LesaNet lays them out, all in its part for training."""
    numbers = sorted(relevant | (uncertain or {}))
    values: dict[str, object] = {"term_list": TERMS}
    for part, chosen in (("train", numbers), ("val", []), ("test", [])):
        values[f"{part}_lesion_idxs"] = chosen
        values[f"{part}_relevant_labels"] = [relevant.get(n, []) for n in chosen]
        values[f"{part}_uncertain_labels"] = [(uncertain or {}).get(n, []) for n in chosen]
    values["train_irrelevant_labels"] = [[] for _ in numbers]
    return values


@dataclass
class DataSet:
    """A folder of DeepLesion's shape that is being filled."""

    folder: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    relevant: dict[int, list[int]] = field(default_factory=dict)

    @property
    def labels(self) -> Path:
        """The file of labels."""
        return self.folder / "labels.json"

    def add_series(self, series: str, made: Phantom, first: int, last: int) -> None:
        """Write the images with these numbers of a phantom; number 1 is its uppermost slice."""
        folder = self.folder / "Images_png" / series
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, last + 1):
            stored = (made.hu[len(made.hu) - number].astype(np.int32) + 32768).astype(np.uint16)
            Image.fromarray(stored).save(folder / f"{number:03d}.png")

    def add_node(self, series: str, made: Phantom, index: int, slices: tuple[int, int], **changes: str) -> int:
        """Write the row of a phantom's node, labelled "axilla lymph node", and return its number."""
        node = made.nodes[index]
        key = len(made.hu) - node.slice_index
        rows, columns = np.nonzero(made.labels[node.slice_index] == node.number)
        # As the data set does: the node's extent, 5 pixels on each side, coordinates from 1.
        box = (columns.min() - 4, rows.min() - 4, columns.max() + 6, rows.max() + 6)
        self.rows.append(
            row(
                File_name=f"{series}_{key:03d}.png",
                Patient_index=str(int(series[:6])),
                Key_slice_index=str(key),
                Bounding_boxes=", ".join(str(value) for value in box),
                Normalized_lesion_location=f"0.3, 0.4, {0.3 + 0.004 * key:.3f}",
                Slice_range=f"{slices[0]}, {slices[1]}",
                Spacing_mm_px_=f"{made.spacing[2]}, {made.spacing[1]}, {made.spacing[0]}",
            )
            | changes
        )
        self.relevant[len(self.rows) - 1] = [0, 1, 2, 3]
        return len(self.rows) - 1

    def write(self) -> Path:
        """Write table and labels and return the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_table(self.folder / "DL_info.csv", self.rows)
        self.labels.write_text(json.dumps(labels_of(self.relevant)), encoding="utf-8")
        return self.folder


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a table."""
    with path.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.DictWriter(sink, list(row()))
        writer.writeheader()
        writer.writerows(rows)
    return path


def patient(index: int) -> Phantom:
    """Return a phantom of the test's cohort: thick slices, supine, head first."""
    return make_patient(77, index, SETTINGS)
