"""``python -m training evaluate-detector-implants``: locate nodes that are implanted into marked series."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import Annotated

import typer

from alnnode.locate.detector import Detector
from alnnode.model import bundle as bundles
from training.data.ct_implants import GroupSettings
from training.detection.case_series import find_cases, given_cases
from training.detection.fold_detectors import FoldDetectors
from training.detection.implanted_patients import ImplantPlan, detect_on_patients
from training.evaluate import froc
from training.report import detection_report
from training.report.progress import console, progress_bars


def evaluate_detector_implants(
    data: Annotated[Path, typer.Option(help="Folder with one folder of DICOM files for each marked series.", exists=True)],
    marks: Annotated[Path, typer.Option(help="Folder of the readers' marks, A/CASE.json and B/CASE.json.", exists=True)],
    folds: Annotated[
        Path, typer.Option(help="Folder of without-….safetensors, the networks that were trained without each patient.")
    ],
    case: Annotated[
        list[str] | None,
        typer.Option(help="CASE=FOLDER for a case whose folder cannot be identified by voxel size; may be repeated."),
    ] = None,
    bundle: Annotated[str, typer.Option(help="The bundle whose classifiers and settings are used.")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the nodes; it must not have been used for training.")] = 9301,
    repetitions: Annotated[int, typer.Option(min=1, help="Number of times that nodes are implanted into each series.")] = 2,
    per_side: Annotated[int, typer.Option(min=1, help="Number of nodes, or of groups, implanted into each axilla.")] = 4,
    single: Annotated[
        bool,
        typer.Option("--single", help="Single nodes in fat, instead of groups of all kinds that may touch other structures."),
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Lowest score of a node. Default: the threshold of the bundle.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write with the metrics.")] = None,
) -> None:
    """Locate phantom nodes that are implanted into marked series, with networks that were trained without the patient."""
    loaded = bundles.load(bundles.resolve(bundle))
    settings = Detector.from_bundle(loaded).settings
    cases = find_cases(marks, data, given_cases(case or []))
    plan = ImplantPlan(seed, repetitions, per_side, None if single else GroupSettings(), bundle)
    parts = []
    with progress_bars() as report:
        step = report("volumes", repetitions * len(cases))
        for part in detect_on_patients(cases, FoldDetectors(None, folds, settings), plan):
            parts.append(part)
            step()
    figures = detection_report.detection_metrics(
        froc.join_results(parts), settings.threshold if threshold is None else threshold
    )
    console.print(f"{figures['nodes']} nodes in {len(parts)} volumes of {len(cases)} patients, seed {seed}", markup=False)
    console.print(detection_report.detection_table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.write_text(json.dumps({"seed": seed, **figures}, indent=2) + "\n", encoding="utf-8")
