"""Write what was measured: plain data for JSON, and a Markdown page with the table and what it does not say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from training.deeplesion import recall
from training.deeplesion.matching import LEAST_OVERLAP, PADDING_PX, Overlap, count
from training.deeplesion.search import LEAST_MM, LEAST_SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from alnnode.records import Interval
    from training.deeplesion.search import Searched
    from training.deeplesion.selection import Choice, SubVolume

FEW_PATIENTS: Final = 10


@dataclass(frozen=True, slots=True)
class Run:
    """The options of one run, and what it left out before the search.

    Attributes:
        bundle: name, version and start of the digest of the bundle.
        choice: which lesions count.
        head_first: whether the images are numbered from the head.
        against_order: number of series whose lesions contradict that, and number of series with lesions far apart.
        excluded: by reason how many lesions with the label do not count.
        incomplete: sub-volumes that were left out because images are missing.
        limited: whether only the first sub-volumes are searched.
    """

    bundle: str
    choice: Choice
    head_first: bool
    against_order: tuple[int, int]
    excluded: Mapping[str, int]
    incomplete: int = 0
    limited: bool = False


def figures(run: Run, subvolumes: Sequence[SubVolume], searched: Sequence[Searched]) -> dict[str, Any]:
    """Return all figures as plain data; a recall is [value, low, high]."""
    measures: dict[str, Any] = {}
    scores: dict[int, dict[str, float]] = {lesion.number: {} for sub in subvolumes for lesion in sub.targets}
    for measure in Overlap:
        counted = [count(found.nodes, sub, measure) for sub, found in zip(subvolumes, searched, strict=True)]
        for sub, one in zip(subvolumes, counted, strict=True):
            for lesion, score in zip(sub.targets, one.targets, strict=True):
                scores[lesion.number][measure.value] = score
        found = recall.curve(counted)
        measures[measure.value] = {
            "recall": {f"{r:g}": _triple(i) for r, i in zip(recall.RATES, recall.recalls(found), strict=True)},
            "threshold": {f"{r:g}": recall.threshold_at(found, r) for r in recall.RATES},
            "hit_at_any_score": sum(score > 0 for one in counted for score in one.targets),
            "false_positives_at_lowest_score": round(recall.most_false(found), 3),
        }
    return {
        "bundle": run.bundle,
        "label": run.choice.label,
        "split": run.choice.split,
        "noisy_included": run.choice.include_noisy,
        "first_slice": "head" if run.head_first else "feet",
        "series_against_that_order": list(run.against_order),
        "excluded": dict(run.excluded),
        "incomplete_subvolumes": run.incomplete,
        "limited": run.limited,
        "lesions": len(scores),
        "subvolumes": len(subvolumes),
        "patients": len({sub.patient for sub in subvolumes}),
        "subvolumes_without_lungs": sum(not found.shown for found in searched),
        "measures": measures,
        "best_scores": [
            {"lesion": lesion.number, "subvolume": sub.name, **scores[lesion.number]}
            for sub in subvolumes
            for lesion in sub.targets
        ],
    }


def write(values: Mapping[str, Any], folder: Path) -> None:
    """Write ``deeplesion.json`` and ``deeplesion.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "deeplesion.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / "deeplesion.md").write_text(page(values), encoding="utf-8")


def table(values: Mapping[str, Any]) -> str:
    """Return the recalls as a Markdown table, a measure of overlap a row."""
    rates = [f"{rate:g}" for rate in recall.RATES]
    head = f"| false positives per sub-volume, at most | {' | '.join(rates)} |\n|---|{'---|' * len(rates)}"
    rows = [
        f"| recall, {measure} ≥ {LEAST_OVERLAP:g} | {' | '.join(_cell(one['recall'][rate]) for rate in rates)} |"
        for measure, one in values["measures"].items()
    ]
    return "\n".join([head, *rows])


def page(values: Mapping[str, Any]) -> str:
    """Return the whole page as Markdown."""
    return (
        "\n\n".join(
            [
                f'# DeepLesion, lesions labelled "{values["label"]}"',
                "Research use only. How a detector does on one data set says nothing of other patients.",
                table(values),
                "\n".join(f"- {note}" for note in notes(values)),
            ]
        )
        + "\n"
    )


def notes(values: Mapping[str, Any]) -> list[str]:
    """Return in sentences what was measured, what was left out, and what limits the result."""
    return [*_what(values), *_left_out(values), *_rules(values), *_assumptions(values)]


def _what(values: Mapping[str, Any]) -> list[str]:
    found = [
        f"Bundle: {values['bundle']}; split: {values['split']}.",
        f"Lesions: {values['lesions']}; sub-volumes: {values['subvolumes']}; patients: {values['patients']}.",
        "Intervals: 95 %, bootstrap over patients. Labels: mined from reports by a program, so some are wrong or missing.",
    ]
    if values["patients"] < FEW_PATIENTS:
        found.append(f"With fewer than {FEW_PATIENTS} patients the intervals are too narrow to mean anything.")
    if values["noisy_included"]:
        found.append("Lesions that DL_info.csv calls possibly noisy are counted.")
    if values["limited"]:
        found.append("Only the first sub-volumes were searched (--limit).")
    return found


def _left_out(values: Mapping[str, Any]) -> list[str]:
    found = [f"Not counted, {reason}: {number} lesions with the label." for reason, number in values["excluded"].items()]
    if values["incomplete_subvolumes"]:
        found.append(f"Not counted, images are missing (--skip-missing): {values['incomplete_subvolumes']} sub-volumes.")
    return found


def _rules(values: Mapping[str, Any]) -> list[str]:
    iou = values["measures"][Overlap.IOU.value]
    ends = (
        f"{iou['hit_at_any_score']} lesions by IoU at {iou['false_positives_at_lowest_score']:g} false positives per sub-volume"
    )
    return [
        f"A node hits a lesion when the boxes of both on the lesion's key slice overlap by {LEAST_OVERLAP:g} or more.",
        f"The node's box is its cross-section with {PADDING_PX:g} pixels added to each side, as the data set does with its lesions.",
        "IoU is the intersection over the union of both boxes; IoBB is the intersection over the node's box.",
        "A second node on a lesion, and a node on an annotated lesion that does not count, is not a false positive.",
        f"Nodes with a score of {LEAST_SCORE:g} or more and a short axis of {LEAST_MM:g} mm or more; all of them hit {ends}.",
    ]


def _assumptions(values: Mapping[str, Any]) -> list[str]:
    against, able = values["series_against_that_order"]
    found = [
        "Only lesions that a radiologist bookmarked are annotated: other lymph nodes on the images count as false positives.",
        "The search expects a whole chest. A sub-volume shows about 60 mm: its uppermost slice with lung stands for the lung apex.",
        f"Assumed: images are numbered from the {values['first_slice']}, and the patient lies supine.",
        f"In {against} of {able} series with lesions far apart, their normalised locations contradict the order of the images.",
    ]
    if values["subvolumes_without_lungs"]:
        found.append(f"No lungs were seen in {values['subvolumes_without_lungs']} sub-volumes: their lesions are missed.")
    return found


def _triple(interval: Interval) -> list[float]:
    return [round(interval.value, 4), round(interval.low, 4), round(interval.high, 4)]


def _cell(values: Sequence[float]) -> str:
    value, low, high = values
    return f"{value:.2f} ({low:.2f} to {high:.2f})"
