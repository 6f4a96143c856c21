"""``python -m training evaluate-real``: what a detector finds on patients whose nodes two readers marked."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer
from safetensors.torch import load_file

from alnnode.errors import AlnnodeError
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import Detector, DetectorSettings
from alnnode.locate.search import SearchLimits, locate_nodes
from alnnode.model import bundle as bundles
from training.detection import pictures as drawing
from training.detection import score
from training.detection.score import Judged, Located
from training.detection.series import find_cases, given_cases, volume_of
from training.report.progress import bars, console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Interval

RATES = (0.5, 1.0, 2.0, 4.0, 6.7)
BANDS = ((0.0, 6.0), (6.0, 8.0), (8.0, 10.0), (10.0, 99.0))  # short axis, mm
LEAST_SCORE = 0.05
MOST = 80
LEAST_MM = 4.0  # as the node reports by default


@dataclass(frozen=True, slots=True)
class Detectors:
    """Which detector judges which case: the bundle's, or those that were each trained without one patient."""

    shipped: Detector | None
    folds: Path | None
    settings: DetectorSettings

    def of(self, case: str) -> Detector:
        """The detector for a case.

        Raises:
            AlnnodeError: there is none that has not seen this patient.
        """
        if self.folds is None:
            assert self.shipped is not None
            return self.shipped
        path = self.folds / f"without-{case}.safetensors"
        if not path.exists():
            raise AlnnodeError(f"{path} is missing: train it with python -m training.detection train --leave-one-out")
        return Detector(load_file(path), self.settings)


def evaluate_real(
    data: Annotated[Path, typer.Option(help="Folder with a folder of DICOM files for each series.")],
    marks: Annotated[Path, typer.Option(help="Folder with the readers' marks: A/CASE.json and B/CASE.json.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    folds: Annotated[
        Path | None,
        typer.Option(help="Folder with without-CASE.safetensors: each case is judged by the network that never saw it."),
    ] = None,
    case: Annotated[list[str] | None, typer.Option(help="CASE=FOLDER, where it cannot be told from the voxel size.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Least score of a node; left out: the bundle's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figures.json, misses.png, false.png and found.png.")] = None,
) -> None:
    """Locate on marked series and print sensitivity, false boxes and intervals (bootstrap by patient)."""
    loaded = bundles.load(bundles.resolve(bundle))
    shipped = Detector.from_bundle(loaded)
    settings = shipped.settings if threshold is None else replace(shipped.settings, threshold=threshold)
    detectors = Detectors(shipped if folds is None else None, folds, settings)
    cases = find_cases(marks, data, given_cases(case or []))
    judged, tiles = [], drawing.Tiles()
    with bars() as report:
        step = report("series", len(cases))
        for name, (folder, reference) in cases.items():
            volume = volume_of(folder)
            anatomy = ChestAnatomy(volume)
            nodes = locate_nodes(anatomy, detectors.of(name), SearchLimits(LEAST_MM, MOST, LEAST_SCORE))
            coverage = anatomy.coverage
            one = Judged(name, tuple(map(Located.of, nodes)), reference)
            judged.append(one)
            tiles.add(volume, one, score.count(one.boxes, reference, settings.threshold))
            console.print(
                _line(one, settings.threshold, [c.remark for c in coverage]), markup=False, highlight=False, soft_wrap=True
            )
            step()
    figures = figures_of(judged, settings.threshold)
    console.print(table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        for path in tiles.write(out):
            console.print(f"wrote {path}", markup=False)


def _line(one: Judged, threshold: float, remarks: Sequence[str]) -> str:
    counted = score.count(one.boxes, one.reference, threshold)
    boxes = sum(box.score >= threshold for box in one.boxes)
    found = sum(box is not None for box in counted.found)
    text = f"{one.case}: {found} of {len(counted.found)} nodes found, {len(counted.false)} of {boxes} boxes hold nothing that a reader marked"
    return f"{text}; coverage: right {remarks[0] or 'covered'}, left {remarks[1] or 'covered'}"


def figures_of(judged: Sequence[Judged], threshold: float) -> dict[str, Any]:
    """All figures as plain data; intervals are [value, low, high]."""
    found = score.curve(judged)
    counted = [score.count(one.boxes, one.reference, threshold) for one in judged]
    sizes = [
        (place.short_mm, box is not None)
        for one, c in zip(judged, counted, strict=True)
        for place, box in zip(one.reference.nodes, c.found, strict=True)
    ]
    bands = {}
    for low, high in BANDS:
        inside = [hit for mm, hit in sizes if low <= mm < high]
        if inside:
            bands[f"{low:g} to {high:g} mm" if high < 99 else f"{low:g} mm or more"] = [sum(inside), len(inside)]
    return {
        "series": len(judged),
        "nodes": len(sizes),
        "threshold": threshold,
        "sensitivity": _triple(score.sensitivity_at(found, threshold)),
        "false_boxes_per_series": _triple(score.false_at(found, threshold)),
        "sensitivity_at_rate": {f"{rate:g}": _triple(score.sensitivity_at_rate(found, rate)) for rate in RATES},
        "threshold_at_rate": {f"{rate:g}": score.threshold_for(found, rate) for rate in RATES},
        "bands": bands,
        "cases": {
            one.case: {
                "found": sum(box is not None for box in c.found),
                "nodes": len(c.found),
                "false": len(c.false),
                "boxes": sum(box.score >= threshold for box in one.boxes),
            }
            for one, c in zip(judged, counted, strict=True)
        },
    }


def _triple(interval: Interval) -> list[float]:
    return [round(interval.value, 4), round(interval.low, 4), round(interval.high, 4)]


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = ["| figure | value | 95 % interval |", "|---|---|---|"]
    value, low, high = figures["sensitivity"]
    rows.append(
        f"| sensitivity at the operating threshold {figures['threshold']:.2f} | {value:.2f} | {low:.2f} to {high:.2f} |"
    )
    value, low, high = figures["false_boxes_per_series"]
    rows.append(f"| false boxes a series there | {value:.1f} | {low:.1f} to {high:.1f} |")
    for rate, (value, low, high) in figures["sensitivity_at_rate"].items():
        rows.append(f"| sensitivity at ≤ {rate} false boxes a series | {value:.2f} | {low:.2f} to {high:.2f} |")
    rows += [f"| … short axis {name} | {hits} of {count} | |" for name, (hits, count) in figures["bands"].items()]
    return "\n".join(rows)
