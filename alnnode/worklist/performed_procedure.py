"""Edit the data set of a workitem that this node performs: begin and end, the results, or why there are none (PS3.4 Table CC.2.5-3)."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING

from alnnode.worklist import ups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.db.rows import ResultRow
    from alnnode.worklist.state_transitions import Edit
    from alnnode.worklist.ups import Json


def begun(ae_title: str) -> Edit:
    """Return an edit that adds the UPS Performed Procedure Sequence of a step that begins now at this node."""

    def edit(document: Json) -> Json:
        performed: Json = {
            "00400254": ups.text("LO", "Analysis of axillary lymph nodes"),
            ups.tag("PerformedStationNameCodeSequence"): ups.sequence(ups.code(ae_title, "99ALNNODE", ae_title)),
            ups.tag("PerformedProcedureStepStartDateTime"): ups.text("DT", ups.date_time(datetime.now(UTC))),
            ups.tag("PerformedWorkitemCodeSequence"): ups.sequence(*ups.items(document, ups.CODES)),
        }
        return {**document, ups.PERFORMED: ups.sequence(dict(sorted(performed.items())))}

    return edit


def completed(rows: Sequence[ResultRow], service_url: str) -> Edit:
    """Return an edit that adds the Output Information Sequence and the end time, and sets the progress to 100 %."""

    def edit(document: Json) -> Json:
        performed = {
            **ups.first_item(document, ups.PERFORMED),
            ups.tag("PerformedProcedureStepEndDateTime"): ups.text("DT", ups.date_time(datetime.now(UTC))),
            ups.tag("OutputInformationSequence"): ups.sequence(*_outputs(rows, service_url)),
        }
        document = {**document, ups.PERFORMED: ups.sequence(dict(sorted(performed.items())))}
        description = ups.text("ST", "done")
        return ups.with_progress(
            document, ProcedureStepProgress=ups.text("DS", 100), ProcedureStepProgressDescription=description
        )

    return edit


def canceled(reason: str | None, code: tuple[str, str], first: Edit = lambda document: document) -> Edit:
    """Return an edit that adds why the workitem is canceled.

    Args:
        reason: in words; None leaves the words of the requester.
        code: value and meaning of a code of PS3.16 CID 9300, used unless the requester gave a code.
        first: an edit to apply before.
    """

    def edit(document: Json) -> Json:
        document = first(document)
        present = ups.first_item(document, ups.PROGRESS)
        key = ups.tag("ProcedureStepDiscontinuationReasonCodeSequence")
        codes = present[key] if ups.values(present, key) else ups.sequence(ups.code(code[0], "DCM", code[1]))
        given = {} if reason is None else {"ReasonForCancellation": ups.text("LT", reason)}
        return ups.with_progress(document, ProcedureStepDiscontinuationReasonCodeSequence=codes, **given)

    return edit


def _outputs(rows: Sequence[ResultRow], service_url: str) -> list[Json]:
    """Return one item for each series of results, with the URL from which it can be retrieved."""

    def series_of(row: ResultRow) -> tuple[str, str]:
        return row.study_instance_uid, row.series_instance_uid

    return [
        {
            "00081199": ups.sequence(
                *(
                    {"00081150": ups.text("UI", row.sop_class_uid), "00081155": ups.text("UI", row.sop_instance_uid)}
                    for row in group
                )
            ),
            "0020000D": ups.text("UI", study),
            "0020000E": ups.text("UI", series),
            ups.tag("TypeOfInstances"): ups.text("CS", "DICOM"),
            ups.tag("WADORSRetrievalSequence"): ups.sequence(
                {"00081190": ups.text("UR", f"{service_url}/studies/{study}/series/{series}")}
            ),
        }
        for (study, series), group in groupby(sorted(rows, key=series_of), series_of)
    ]
