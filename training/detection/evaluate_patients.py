"""``python -m training evaluate-real``: evaluate a detector on patients whose nodes two readers marked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import Detector
from alnnode.locate.search import SearchLimits, locate_nodes
from alnnode.model import bundle as bundles
from training.detection import result_pictures, score
from training.detection.case_series import find_cases, given_cases, volume_of
from training.detection.fold_detectors import FoldDetectors
from training.detection.score import LocatedBox, ScoredSeries
from training.report.progress import console, progress_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Interval

RATES = (0.5, 1.0, 2.0, 4.0, 6.7)
RATE_OF_OTHERS = 2.0  # false boxes per series at which the other patients choose the threshold of a patient
BANDS = ((0.0, 6.0), (6.0, 8.0), (8.0, 10.0), (10.0, 99.0))  # short axis, mm
LEAST_SCORE = 0.05
MAX_BOXES = 80  # of one series
LEAST_MM = 4.0  # the default of the node
NO_FOLDS = (
    "Without --folds, every series is evaluated with the network of the bundle. The network of the demonstration bundle was trained on the nine "
    "marked series (docs/detection.md): on patients of the training, the figures below are no measure of accuracy."
)


def evaluate_real(
    data: Annotated[Path, typer.Option(help="Folder with one folder of DICOM files for each series.")],
    marks: Annotated[Path, typer.Option(help="Folder of the readers' marks: A/CASE.json and B/CASE.json.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    folds: Annotated[
        Path | None,
        typer.Option(
            help="Folder of without-….safetensors; each case is evaluated with the network that was trained without it."
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="CASE=FOLDER for a case whose folder cannot be identified by voxel size; may be repeated."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Lowest score of a node. Default: the threshold of the bundle.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write figures.json, misses.png, false.png and found.png.")] = None,
) -> None:
    """Locate nodes on marked series and print sensitivity and false boxes with intervals (bootstrap over patients)."""
    loaded = bundles.load(bundles.resolve(bundle))
    shipped = Detector.from_bundle(loaded)
    settings = shipped.settings if threshold is None else replace(shipped.settings, threshold=threshold)
    detectors = FoldDetectors(shipped if folds is None else None, folds, settings)
    if folds is None:
        console.print(NO_FOLDS, markup=False, highlight=False, soft_wrap=True)
    cases = find_cases(marks, data, given_cases(case or []))
    evaluated, tiles = [], result_pictures.ResultTiles()
    with progress_bars() as report:
        step = report("series", len(cases))
        for name, (folder, reference) in cases.items():
            volume = volume_of(folder)
            anatomy = ChestAnatomy(volume)
            nodes = locate_nodes(anatomy, detectors.for_case(name), SearchLimits(LEAST_MM, MAX_BOXES, LEAST_SCORE))
            coverage = anatomy.coverage
            one = ScoredSeries(name, tuple(map(LocatedBox.of_node, nodes)), reference)
            evaluated.append(one)
            tiles.add(volume, one, score.match_boxes(one.boxes, reference, settings.threshold))
            console.print(
                _line(one, settings.threshold, [c.remark for c in coverage]), markup=False, highlight=False, soft_wrap=True
            )
            step()
    figures = patient_metrics(evaluated, settings.threshold)
    console.print(patient_table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        for path in tiles.write(out):
            console.print(f"wrote {path}", markup=False)


def _line(one: ScoredSeries, threshold: float, remarks: Sequence[str]) -> str:
    counted = score.match_boxes(one.boxes, one.reference, threshold)
    boxes = sum(box.score >= threshold for box in one.boxes)
    found = sum(box is not None for box in counted.found)
    text = f"{one.case}: {found} of {len(counted.found)} nodes found, {len(counted.false)} of {boxes} boxes contain no mark of a reader"
    return f"{text}; coverage: right {remarks[0] or 'covered'}, left {remarks[1] or 'covered'}"


def patient_metrics(evaluated: Sequence[ScoredSeries], threshold: float) -> dict[str, Any]:
    """Return all metrics as plain data; intervals are [value, low, high]."""
    found = score.froc_curve(evaluated)
    counted = [score.match_boxes(one.boxes, one.reference, threshold) for one in evaluated]
    sizes = [
        (place.short_mm, box is not None)
        for one, c in zip(evaluated, counted, strict=True)
        for place, box in zip(one.reference.nodes, c.found, strict=True)
    ]
    errors = score.short_axis_differences(evaluated, threshold)
    bands = {}
    for low, high in BANDS:
        inside = [hit for mm, hit in sizes if low <= mm < high]
        if inside:
            bands[f"{low:g} to {high:g} mm" if high < 99 else f"{low:g} mm or more"] = [sum(inside), len(inside)]
    return {
        "series": len(evaluated),
        "nodes": len(sizes),
        "threshold": threshold,
        "sensitivity": _triple(score.sensitivity_at(found, threshold)),
        "false_boxes_per_series": _triple(score.false_boxes_at(found, threshold)),
        "sensitivity_at_rate": {f"{rate:g}": _triple(score.sensitivity_at_rate(found, rate)) for rate in RATES},
        "threshold_at_rate": {f"{rate:g}": score.threshold_at_rate(found, rate) for rate in RATES},
        "threshold_of_other_patients": _at_threshold_of_others(found) if len(evaluated) > 1 else None,
        "short_axis": {
            "nodes": len(errors),
            "median_absolute_mm": round(float(np.median(np.abs(errors))), 2) if len(errors) else None,
            "median_mm": round(float(np.median(errors)), 2) if len(errors) else None,
        },
        "bands": bands,
        "cases": {
            one.case: {
                "found": sum(box is not None for box in c.found),
                "nodes": len(c.found),
                "false": len(c.false),
                "boxes": sum(box.score >= threshold for box in one.boxes),
            }
            for one, c in zip(evaluated, counted, strict=True)
        },
    }


def _at_threshold_of_others(found: score.FrocCurve) -> dict[str, float]:
    hits, false = score.counts_at_threshold_of_others(found, RATE_OF_OTHERS)
    return {"rate": RATE_OF_OTHERS, "found": hits, "false": false}


def _triple(interval: Interval) -> list[float]:
    return [round(interval.value, 4), round(interval.low, 4), round(interval.high, 4)]


def patient_table(figures: dict[str, Any]) -> str:
    """Return the metrics as a Markdown table."""
    rows = ["| figure | value | 95 % interval |", "|---|---|---|"]
    value, low, high = figures["sensitivity"]
    rows.append(
        f"| sensitivity at the operating threshold {figures['threshold']:.2f} | {value:.2f} | {low:.2f} to {high:.2f} |"
    )
    value, low, high = figures["false_boxes_per_series"]
    rows.append(f"| false boxes per series at that threshold | {value:.1f} | {low:.1f} to {high:.1f} |")
    for rate, (value, low, high) in figures["sensitivity_at_rate"].items():
        rows.append(f"| sensitivity at ≤ {rate} false boxes per series | {value:.2f} | {low:.2f} to {high:.2f} |")
    chosen, axes = figures["threshold_of_other_patients"], figures["short_axis"]
    if chosen:
        rows.append(
            f"| threshold chosen on the other patients (≤ {chosen['rate']:g} false boxes per series): nodes found | "
            f"{chosen['found']} of {figures['nodes']} | |"
        )
        rows.append(f"| … false boxes per series | {chosen['false'] / figures['series']:.1f} ({chosen['false']}) | |")
    if axes["nodes"]:
        rows.append(
            f"| short axis of {axes['nodes']} found nodes less that of the readers: median, and median of the absolute value | "
            f"{axes['median_mm']:.2f} and {axes['median_absolute_mm']:.2f} mm | |"
        )
    rows += [f"| … short axis {name} | {hits} of {count} | |" for name, (hits, count) in figures["bands"].items()]
    return "\n".join(rows)
