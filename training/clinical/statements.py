"""What a mark says of its node's class: which of its statements count, and what they mean.

A report says more of a node than its class ("Fatty hilum: normal", "HER2 status: negative"), in the same words. So the question has to be one
after the class: by its code, or by its whole name. RadLex is known by its names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from training.clinical.labels import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alnnode.records import Concept, Mark

CLASS_CODES: Final = {
    ("ASSESSMENT", "99ALNNODE"),  # as the node's own reports ask (alnnode.report.codes, which training does not import)
    # Finding, Impression, Conclusion, Pathology, Pathology Results, Malignancy Type, Assessment Category, Overall Assessment.
    *((code, "DCM") for code in ("121071", "121073", "121077", "111042", "111468", "111388", "111005", "111413")),
    # Diagnosis, Finding, Classification, Histopathology, Histology, Metastasis.
    *((code, "SCT") for code in ("439401001", "404684003", "278201002", "252416005", "714797009", "128462008")),
}
CLASS_NAMES: Final = {
    "class", "classification", "category", "label", "diagnosis", "finding", "impression", "conclusion", "assessment",
    "assessment of lymph node", "histology", "histopathology", "pathology", "pathology result", "pathology results", "malignancy",
    "malignancy type", "metastasis", "metastases", "node", "lymph node", "node status", "nodal status", "lymph node status",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """What a mark says.

    Attributes:
        label: "malignant", "benign" or empty.
        text: what the label comes from; without one what the mark is called.
        disputed: its statements contradict each other, so that there is neither label nor text.
        unasked: a word for a class stands under another question, and there is no label.
    """

    label: str
    text: str
    disputed: bool = False
    unasked: bool = False


def of_mark(mark: Mark, known: Mapping[str, str]) -> Said:
    """Return what a mark's classes, name and finding say together; ``known`` are the texts and codes that mean a label."""
    texts = [text for name, value in mark.evaluations if _asks_for_class(name) for text in _texts(value)]
    texts += [mark.label, *(_texts(mark.finding) if mark.finding else ())]
    found = {text: known[plain(text)] for text in texts if plain(text) in known}
    if not found:
        others = (text for name, value in mark.evaluations if not _asks_for_class(name) for text in _texts(value))
        return Said("", mark.label, unasked=any(plain(text) in known for text in others))
    if len(set(found.values())) > 1:
        return Said("", "", disputed=True)
    text, label = next(iter(found.items()))
    return Said(label, text)


def _asks_for_class(name: Concept) -> bool:
    return (name.code, name.scheme) in CLASS_CODES or plain(name.meaning) in CLASS_NAMES


def _texts(value: Concept) -> tuple[str, str]:
    return value.meaning, value.code
