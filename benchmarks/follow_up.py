"""Measure the follow-up: how many nodes are matched with the prior, how many wrongly, and the error of the growth.

``make follow-up`` (``PYTHONPATH=tests python benchmarks/follow_up.py --patients 12``): each phantom has two series, with another position, breathing
state and bend in the second, and nodes that grew, shrank or disappeared. The demonstration detector locates the nodes in both.

``PYTHONPATH=tests python benchmarks/follow_up.py --picture docs/img/follow-up.png`` measures nothing: it writes the summary of the second
examination of one patient, compared with the report of the first.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from follow_ups import SETTINGS, Examination, Motion, analysed, cut, first, report_of, second, true_number
from pydicom import dcmread

from alnnode import phantom, pipeline
from alnnode.cli.offline import OfflineAnalysis
from alnnode.follow_up.compare import compare_with_prior
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import Detector
from alnnode.locate.measure import node_from_mask
from alnnode.locate.search import SearchLimits, locate_nodes
from alnnode.model import bundle as bundles
from alnnode.records.comparison import SHORT_AXIS_CHANGE_ERROR_MM, Change, PriorLookup
from alnnode.report.uids import uid
from alnnode.settings import Settings


def examined(seed: int, index: int) -> tuple[phantom.Phantom, tuple[Examination, Examination]]:
    """Return a phantom and its two examinations."""
    made = phantom.make_patient(seed, index, SETTINGS)
    rng = np.random.default_rng([seed, index])
    sizes = {node.number: float(rng.choice([0.0, 0.8, 1.0, 1.3, 1.5], p=[0.1, 0.15, 0.4, 0.2, 0.15])) for node in made.nodes}
    sizes = {number: size for number, size in sizes.items() if size != 1.0}
    motion = Motion(tuple(rng.normal(0, 4, 3)), tuple(rng.normal(0, 12, 3)), float(rng.uniform(0, 4)))
    return made, (first(made), second(made, motion, sizes, index))


def draw(seed: int, index: int, target: Path) -> None:
    """Write the summary page of a follow-up."""
    made, examinations = examined(seed, index)
    settings = Settings()
    models = pipeline.Models.load(bundles.load(bundles.resolve("demo")), "cpu")
    reports: list[Path] = []
    with TemporaryDirectory(prefix="alnnode-follow-up-") as folder:
        for number, examination in enumerate(examinations, start=1):
            study, out = Path(folder) / f"study-{number}", Path(folder) / f"out-{number}"
            for path in phantom.write_series(replace(made, hu=examination.volume.voxels, labels=examination.labels), study):
                image = dcmread(path)
                image.StudyDate = str(examination.volume.header.StudyDate)
                for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                    setattr(image, keyword, uid(str(number), str(image[keyword].value)))
                image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
                image.save_as(path)
            list(OfflineAnalysis(settings, models, lambda _: None, reports).analyse_folder(study, out))
            reports.append(out / "sr.dcm")
        shutil.copyfile(Path(folder) / "out-2" / "capture-01.png", target)


def main() -> int:
    """Compare pairs of examinations; return 1 if a statement of docs/reporting.md is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=61000)
    parser.add_argument("--picture", type=Path, help="write the summary of a follow-up to this PNG file, and measure nothing")
    parser.add_argument("--patient", type=int, default=0, help="patient of the picture")
    options = parser.parse_args()
    if options.picture:
        draw(options.seed, options.patient, options.picture)
        return 0
    bundle = bundles.load(bundles.resolve("demo"))
    detector = Detector.from_bundle(bundle, "cpu")
    both = matched = wrong = unsure = called_new = correctly_new = called_gone = correctly_gone = 0
    errors = []
    for index in range(options.patients):
        _, examinations = examined(options.seed, index)
        anatomies: list[ChestAnatomy] = []
        analyses = []
        for examination in examinations:
            anatomies.append(ChestAnatomy(examination.volume))
            nodes = locate_nodes(anatomies[-1], detector, SearchLimits(min_short_axis_mm=4, max_nodes=40))
            analyses.append(analysed(examination, nodes, anatomies[-1].coverage))
        prior = report_of(analyses[0], tuple(c.side for c in analyses[0].coverage if c.covered))
        result = compare_with_prior(analyses[1], anatomies[1], PriorLookup(prior)).comparison
        if result.trouble:
            print(f"patient {index}: {result.trouble}")
            continue
        truth = [
            {f.node.number: true_number(e, f.node) for f in a.findings} for e, a in zip(examinations, analyses, strict=True)
        ]
        before = {number: found for found, number in truth[0].items() if number}
        for finding in analyses[1].findings:
            number, change = truth[1][finding.node.number], result.nodes[finding.node.number]
            in_both = number in before
            both += in_both
            if change.change is Change.SEEN:
                right = in_both and before[number] == change.prior_node.number
                matched += right
                # For two candidates that are not nodes, such as vessels, the truth does not say whether they are the same.
                wrong += not right and bool(number or truth[0][change.prior_node.number])
                if right:
                    true = [node_from_mask(e.volume, *cut(e.labels == number), finding.node.side, 1) for e in examinations]
                    measured = finding.node.short_axis.length_mm - change.prior_node.short_axis_mm
                    errors.append(measured - (true[1].short_axis.length_mm - true[0].short_axis.length_mm))
            unsure += change.change is Change.UNCERTAIN
            called_new += change.change is Change.NEW
            correctly_new += change.change is Change.NEW and not in_both
        called_gone += len(result.no_longer_found)
        still = set(truth[1].values())
        correctly_gone += sum(
            truth[0][node.number] not in still or not truth[0][node.number] for node in result.no_longer_found
        )
        print(
            f"patient {index}: {len(analyses[0].findings)} nodes, then {len(analyses[1].findings)}; so far {matched} of {both} matched, {wrong} wrong",
            flush=True,
        )
    growth = np.abs(errors)
    print(
        f"{options.patients} pairs: found in both {both}, matched {matched} ({matched / both:.3f}), wrong {wrong}, not determined {unsure}; "
        f"reported new {called_new}, of which {correctly_new} were not found before; reported no longer found {called_gone}, of which {correctly_gone} were not found; "
        f"growth of the short axis: error median {np.median(growth):.2f} mm, 95 % {np.quantile(growth, 0.95):.2f} mm, within 1 mm {np.mean(growth <= 1):.3f}"
    )
    # Reports give this error with one decimal.
    return int(matched < 0.9 * both or wrong > 0 or np.quantile(growth, 0.95) >= SHORT_AXIS_CHANGE_ERROR_MM + 0.05)


if __name__ == "__main__":
    sys.exit(main())
