"""The answer on one screen: the same statements, in the same order, in every report, on the job page and in ``result.json``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from alnnode.report import comparison_text, wording

if TYPE_CHECKING:
    from alnnode.records import Analysis, Finding, ModelIdentity

MOST_RELEVANT = 3  # nodes with a statement of their own
UNMARKED = "Not covered: lymph nodes that are not marked; the algorithm did not search"


class StatementKind(StrEnum):
    """Purpose of a statement."""

    NOTICE = "notice"
    CONCLUSION = "conclusion"
    FINDING = "finding"
    COMMENT = "comment"


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence of the answer."""

    kind: StatementKind
    text: str


def statements(analysis: Analysis) -> list[Statement]:
    """Return the answer, most important first.

    The order: notice, conclusion, each axilla, the most relevant nodes, the comparison with a prior report, what was not covered, the
    model and its limits, the Grad-CAM maps that are empty, remarks on images and marks. No statement holds patient data.
    """
    said = [Statement(StatementKind.NOTICE, analysis.model.banner)]
    if analysis.findings:
        said.append(Statement(StatementKind.CONCLUSION, wording.headline(analysis)[0]))
    said.append(Statement(StatementKind.CONCLUSION, wording.conclusion(analysis)))
    if analysis.volume is not None:
        found = [*wording.sides(analysis), *_most_relevant(analysis), *comparison_text.sentences(analysis)]
        said += [Statement(StatementKind.FINDING, text) for text in found]
    comments = [] if analysis.not_analysed is not None else [_not_covered(analysis)]
    comments.append(model_line(analysis.model))
    if analysis.findings:
        comments.append(wording.operating_point(analysis.model.operating_point))
    if (empty := wording.empty_maps(analysis)) is not None:
        comments.append(empty)
    comments += comparison_text.error_sentences(analysis)
    comments += [f"Images: {note}" for note in (analysis.volume.notes if analysis.volume else ())]
    comments += [f"Marks: {remark}" for remark in analysis.remarks]
    return said + [Statement(StatementKind.COMMENT, text) for text in comments]


def lines(analysis: Analysis) -> list[str]:
    """Return the text of the answer, one line for each statement."""
    return [statement.text for statement in statements(analysis)]


def model_line(identity: ModelIdentity) -> str:
    """Return the sentence on the model: its name, training data and validation."""
    validated = f"validated on {identity.validated_on}" if identity.clinical else "not validated on patients"
    return (
        f"Model: {identity.name} {identity.version}, bundle {identity.digest[:12]}; "
        f"trained on {identity.training_data}; {validated}"
    )


def _not_covered(analysis: Analysis) -> str:
    """Return what the algorithm did not search; the sentences on the sides say what the series does not show."""
    if not analysis.coverage:
        return UNMARKED
    whole = "Both axillae are fully shown. " if all(coverage.covered for coverage in analysis.coverage) else ""
    return (
        f"{whole}Not covered: lymph nodes outside the axillae, "
        f"and nodes with a short axis below {analysis.min_short_axis_mm:g} mm"
    )


def _most_relevant(analysis: Analysis) -> list[str]:
    ranked = wording.by_probability(analysis.findings)
    said = [f"{place}. {node_line(finding, analysis)}" for place, finding in enumerate(ranked[:MOST_RELEVANT], start=1)]
    rest = len(ranked) - len(said)
    more = f"{rest} less probable node{'s' if rest > 1 else ''}: see the measurements of the structured report"
    return [*said, more] if rest else said


def node_line(finding: Finding, analysis: Analysis) -> str:
    """Return "R node 4: level II, image 104, 11.8 x 9.5 mm, probability 96 % (demonstration model)"."""
    of, volume = finding.node, analysis.volume
    said = [] if of.level is None else [f"level {of.level.value}"]
    if volume is not None:
        said.append(wording.slice_name(volume, of.slice_index))
    said.append(f"{of.long_axis.length_mm:.1f} x {of.short_axis.length_mm:.1f} mm")
    if (marked := wording.marked(of)) is not None:
        said.append(marked)
    title, verdict = wording.verdict(finding, analysis).split(": ", 1)
    change = comparison_text.title(finding, analysis)
    return f"{title}: {', '.join([*said, verdict, *([] if change is None else [change])])}"
