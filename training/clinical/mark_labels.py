"""Derive the label of a node from the statements of its mark.

A report describes more than the class of a node ("Fatty hilum: normal", "HER2 status: negative") with the same words. So a statement counts
only if its concept name asks for the class, by its code or by its complete meaning. RadLex concepts are known by their meanings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from training.clinical.labels import normalised_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alnnode.records import Concept, Mark

CLASS_CODES: Final = {
    ("ASSESSMENT", "99ALNNODE"),  # of the reports of alnnode (alnnode.report.codes, which training does not import)
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
class MarkLabel:
    """The label of a mark.

    Attributes:
        label: "malignant", "benign" or empty.
        text: from which the label was derived; without a label, the label text of the mark.
        contradictory: the statements contradict each other, so label and text are empty.
        other_question: there is no label, but a word for a class answers a question that does not ask for the class.
    """

    label: str
    text: str
    contradictory: bool = False
    other_question: bool = False


def label_of_mark(mark: Mark, known: Mapping[str, str]) -> MarkLabel:
    """Return the label from the evaluations, the label text and the finding of a mark; ``known`` maps texts and codes to labels."""
    texts = [text for name, value in mark.evaluations if _asks_for_class(name) for text in _texts(value)]
    texts += [mark.label, *(_texts(mark.finding) if mark.finding else ())]
    found = {text: known[normalised_text(text)] for text in texts if normalised_text(text) in known}
    if not found:
        others = (text for name, value in mark.evaluations if not _asks_for_class(name) for text in _texts(value))
        return MarkLabel("", mark.label, other_question=any(normalised_text(text) in known for text in others))
    if len(set(found.values())) > 1:
        return MarkLabel("", "", contradictory=True)
    text, label = next(iter(found.items()))
    return MarkLabel(label, text)


def _asks_for_class(name: Concept) -> bool:
    return (name.code, name.scheme) in CLASS_CODES or normalised_text(name.meaning) in CLASS_NAMES


def _texts(value: Concept) -> tuple[str, str]:
    return value.meaning, value.code
