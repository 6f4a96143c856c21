"""``python -m training evaluate-implants``: evaluate a bundle on phantom nodes in real CT, beside the same nodes in phantoms."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from alnnode.errors import AlnnodeError
from alnnode.locate.detector import Detector
from alnnode.model import bundle as bundles
from alnnode.phantom import PhantomSettings
from training.data.cohort import Cohort, join_cohorts
from training.data.implant_cohort import ImplantOptions
from training.detection import implanted_series
from training.detection.case_series import dicom_files, find_cases, given_cases
from training.detection.implanted_series import ImplantedSeries, NodeLocator, SeriesSource
from training.evaluate import detection_run, roc
from training.evaluate.detection_matching import Truth
from training.evaluate.fresh_phantoms import refuse_used_seed
from training.evaluate.implants import ENSEMBLE, bundle_scores, implant_figures
from training.networks import build
from training.report import implant_report
from training.report.progress import console, progress_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from training.data.ct_implants import ImplantedCt
    from training.data.implant_cohort import Key

NOTICE = (
    "Drawn nodes in CT of patients whose classes were drawn too, and a model trained on drawings: these figures show how much the change of "
    "surroundings costs. They are no evidence about patients."
)


def evaluate_implants(
    data: Annotated[Path, typer.Option(help="Folder with one folder of DICOM files for each series.", exists=True)],
    marks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of readers' marks, A/CASE.json and B/CASE.json: only their series are used, away from every mark."
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="CASE=FOLDER for a case whose folder cannot be identified by voxel size; may be repeated."),
    ] = None,
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[
        int, typer.Option(help="Seed of the nodes and phantoms; it must not have been used for training.")
    ] = 881000,
    nodes: Annotated[int, typer.Option(min=2, help="Least number of nodes of each class that are planned for a series.")] = 15,
    located: Annotated[
        bool, typer.Option("--located", help="Also locate the nodes with the detector of the bundle and classify its boxes.")
    ] = False,
    work: Annotated[Path, typer.Option(help="Cache folder of the crops of each series; a second run resumes from it.")] = Path(
        "runs/implants"
    ),
    out: Annotated[Path | None, typer.Option(help="JSON file to write with the metrics.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="PNG file to write with crops of some nodes; it shows images of the patients.")
    ] = None,
) -> None:
    """Evaluate a bundle on phantom nodes that are implanted into real CT, beside the same nodes in phantoms: the drop between them."""
    loaded = bundles.load(bundles.resolve(bundle))
    refuse_used_seed(loaded, seed)
    options = ImplantOptions(seed, nodes, loaded.crop_settings)
    locator = _locator(bundle, loaded, seed) if located else None
    series = _series(data, marks, case or [])
    parts: list[ImplantedSeries] = []
    with progress_bars() as report:
        step = report("series", len(series))
        for source in series:
            one = implanted_series.collect_series(source, options, locator, work)
            _print(one.remark)
            parts.append(one)
            step()
    made = _join(parts, data)
    models = build.networks_of_bundle(loaded)
    both = (made.ct, made.phantoms)
    scores = bundle_scores(both, models, loaded.manifest.temperature, blood=loaded.crop_settings.blood_pool)
    groups = {"phase": made.phase, "place": made.place, "series": made.ct.patient}
    figures = implant_figures(made.ct, *scores, loaded.identity.operating_point.threshold, groups)
    _print(f"bundle {loaded.digest[:12]}, seed {seed}: {figures.nodes} nodes in {figures.series} series. {NOTICE}")
    _print(implant_report.implant_tables(figures))
    if locator:
        _print(_located_line(made.ct, scores[0][ENSEMBLE], made.located))
    if out:
        written = {"bundle": loaded.digest, "seed": seed, "notice": NOTICE, **asdict(figures)}
        out.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    if pictures:
        shown = implant_report.draw_contact_sheet(*both, (scores[0][ENSEMBLE], scores[1][ENSEMBLE]), pictures)
        _print(f"wrote {pictures} with {shown} nodes")


def _locator(bundle: str, loaded: bundles.Bundle, seed: int) -> NodeLocator:
    """Return the detector of a bundle at its operating threshold."""
    plan = detection_run.DetectionPlan(Detector.from_bundle(loaded), seed, PhantomSettings(), bundle)
    least = plan.detector.settings.threshold

    def locate(made: ImplantedCt, keys: Sequence[Key]) -> dict[Key, float]:
        truth = Truth(made.labels, made.volume.affine, made.nodes, made.volume.spacing[0], "real CT")
        targets = detection_run.detect_in_volume(plan, 0, made.volume, truth).targets
        found = zip(keys, targets, strict=True)
        return {key: target.probability for key, target in found if target.score >= least and target.probability is not None}

    return NodeLocator(loaded.digest, locate)


def _join(parts: Sequence[ImplantedSeries], data: Path) -> ImplantedSeries:
    """Return the nodes of all series.

    Raises:
        AlnnodeError: there are none, or they are of one class.
    """
    if not any(len(part.ct) for part in parts):
        raise AlnnodeError(f"{data}: no series shows an axilla into which nodes can be implanted; check --data")
    used = [part for part in parts if len(part.ct)]
    ct, phantoms = join_cohorts(part.ct for part in used), join_cohorts(part.phantoms for part in used)
    if ct.malignant.all() or not ct.malignant.any():
        raise AlnnodeError("the nodes that found a place are all of one class: raise --nodes, or add series")
    phase, place, located = (np.concatenate([getattr(part, name) for part in used]) for name in ("phase", "place", "located"))
    return ImplantedSeries(ct, phantoms, phase, place, located, "")


def _series(data: Path, marks: Path | None, cases: Sequence[str]) -> list[SeriesSource]:
    """Return the marked series, or without marks every folder with DICOM files."""
    if marks is not None:
        found = find_cases(marks, data, given_cases(cases))
        return [SeriesSource(name, tuple(dicom_files(folder)), reference) for name, (folder, reference) in found.items()]
    folders = {folder.name: tuple(dicom_files(folder)) for folder in sorted(data.iterdir()) if folder.is_dir()}
    return [SeriesSource(name, files, None) for name, files in folders.items() if files]


def _located_line(ct: Cohort, true_boxes: npt.NDArray[np.floating], located: npt.NDArray[np.float64]) -> str:
    """Return a sentence with the AUROC of the nodes that the detector found, with its boxes and with the true ones."""
    rows = ~np.isnan(located)
    labels = ct.malignant[rows]
    text = f"The detector found {int(rows.sum())} of {len(rows)} nodes in the CT."
    if not labels.any() or labels.all():
        return text
    areas = [float(roc.pairwise_wins(labels, scores[rows]).mean()) for scores in (located, true_boxes)]
    return f"{text} Their AUROC is {areas[0]:.3f} with the boxes of the detector and {areas[1]:.3f} with the true boxes."


def _print(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
