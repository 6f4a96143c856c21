"""Apply the state transitions of a workitem (PS3.4 CC.1.1, CC.2.1, CC.2.2 and CC.2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alnnode.errors import WorkitemRefused
from alnnode.worklist import ups
from alnnode.worklist.event_reports import EventType
from alnnode.worklist.ups import FINAL_STATES, UpsState, UpsStatus
from alnnode.worklist.ups_requirements import check_final, updated

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from alnnode.worklist.ups import Json
    from alnnode.worklist.workitem import Workitem, WorkitemChange

    Edit = Callable[[Json], Json]


@dataclass(frozen=True, slots=True)
class StateChange:
    """A request to change the state of a workitem.

    Attributes:
        state: the new state.
        transaction_uid: of the performer that claims, or has claimed, the workitem.
        edit: completes the data set in the same transaction; None leaves it unchanged.
        performed_here: whether this node is the performer.
    """

    state: UpsState
    transaction_uid: str | None
    edit: Edit | None = None
    performed_here: bool = False


def change_state(change: WorkitemChange, request: StateChange, now: datetime) -> UpsStatus | None:
    """Claim, complete or cancel a workitem (CC.2.1); return a warning if it is already in the final state.

    Raises:
        WorkitemRefused: Table CC.1.1-2 does not allow the transition, or the final state requirements are not met.
    """
    item, state = change.item, request.state
    if state is UpsState.SCHEDULED:
        raise WorkitemRefused(UpsStatus.ONLY_BY_CREATION, "The UPS may only become SCHEDULED when it is created")
    if item.state in FINAL_STATES and item.state is state:
        return UpsStatus.ALREADY_CANCELED if state is UpsState.CANCELED else UpsStatus.ALREADY_COMPLETED
    if item.state in FINAL_STATES:
        raise WorkitemRefused(UpsStatus.NO_LONGER_UPDATED, "The UPS may no longer be updated")
    if state is UpsState.IN_PROGRESS:
        _claim(change, request)
    else:
        _end(change, request, now)
    return None


def _claim(change: WorkitemChange, request: StateChange) -> None:
    if change.item.state is UpsState.IN_PROGRESS:
        raise WorkitemRefused(UpsStatus.ALREADY_IN_PROGRESS, "The UPS is already IN PROGRESS")
    if not request.transaction_uid:
        raise WorkitemRefused(UpsStatus.WRONG_TRANSACTION, "The Transaction UID is missing")
    change.enter(UpsState.IN_PROGRESS, _edited(change, request), request.transaction_uid)
    change.values["performed_here"] = request.performed_here


def _end(change: WorkitemChange, request: StateChange, now: datetime) -> None:
    if change.item.state is UpsState.SCHEDULED:
        raise WorkitemRefused(UpsStatus.NOT_IN_PROGRESS, "The UPS is not yet in the IN PROGRESS state")
    _check_transaction(change.item, request.transaction_uid)
    document = _edited(change, request)
    if request.state is UpsState.CANCELED:
        document = ups.with_progress(document, ProcedureStepCancellationDateTime=ups.text("DT", ups.date_time(now)))
    check_final(document, request.state)
    change.enter(request.state, document)


def _edited(change: WorkitemChange, request: StateChange) -> Json:
    return change.item.document if request.edit is None else request.edit(change.item.document)


def update(change: WorkitemChange, transaction_uid: str | None, changes: Json, now: datetime) -> None:
    """Replace attributes: anybody may update a SCHEDULED workitem, only its performer one that is IN PROGRESS (CC.2.6).

    Raises:
        WorkitemRefused: the caller must not update the workitem, or an attribute must not be changed.
    """
    item = change.item
    if item.state in FINAL_STATES:
        raise WorkitemRefused(UpsStatus.NO_LONGER_UPDATED, "The UPS may no longer be updated")
    if item.state is UpsState.SCHEDULED and transaction_uid:
        raise WorkitemRefused(UpsStatus.NOT_IN_PROGRESS, "The target URI did not reference a claimed Workitem")
    if item.state is UpsState.IN_PROGRESS:
        _check_transaction(item, transaction_uid)
    change.document = updated(item.document, changes, now)
    if ups.PROGRESS in changes:
        change.report(EventType.PROGRESS)
    elif ups.READINESS in changes:
        change.report(EventType.STATE)


def request_cancel(change: WorkitemChange, transaction_uid: str, reasons: Json, now: datetime) -> UpsStatus | None:
    """Cancel a SCHEDULED workitem, or ask the performer to cancel one that is IN PROGRESS (CC.2.2).

    Args:
        change: of the workitem.
        transaction_uid: under which a SCHEDULED workitem is claimed and canceled.
        reasons: Reason For Cancellation and the like, for the Procedure Step Progress Information.
        now: the present time.

    Returns:
        A warning if the workitem is already CANCELED.

    Raises:
        WorkitemRefused: the workitem is COMPLETED, or nobody would receive the request.
    """
    item = change.item
    if item.state is UpsState.CANCELED:
        return UpsStatus.ALREADY_CANCELED
    if item.state is UpsState.COMPLETED:
        raise WorkitemRefused(UpsStatus.IS_COMPLETED, "The UPS is already COMPLETED")
    reported = change.report(EventType.CANCEL_REQUESTED)
    if item.state is UpsState.IN_PROGRESS and not (item.performed_here or reported):
        raise WorkitemRefused(UpsStatus.PERFORMER_NOT_REACHABLE, "The performer cannot be contacted")
    progress = {**ups.first_item(item.document, ups.PROGRESS), **reasons}
    document = {**item.document, ups.PROGRESS: ups.sequence(dict(sorted(progress.items())))}
    if item.state is UpsState.IN_PROGRESS:
        change.document = document
        change.values["cancel_requested"] = True
        return None
    change.enter(UpsState.IN_PROGRESS, item.document, transaction_uid)
    change.enter(UpsState.CANCELED, _canceled(document, now))
    return None


def _check_transaction(item: Workitem, transaction_uid: str | None) -> None:
    if not transaction_uid:
        raise WorkitemRefused(UpsStatus.WRONG_TRANSACTION, "The Transaction UID is missing")
    if transaction_uid != item.transaction_uid:
        raise WorkitemRefused(UpsStatus.WRONG_TRANSACTION, "The Transaction UID is incorrect")


def _canceled(document: Json, now: datetime) -> Json:
    """Return the document with the attributes that a canceled workitem must have (PS3.16 CID 9300)."""
    reason = ups.tag("ProcedureStepDiscontinuationReasonCodeSequence")
    given = ups.first_item(document, ups.PROGRESS).get(reason)
    unspecified = ups.sequence(ups.code("110513", "DCM", "Discontinued for unspecified reason"))
    return ups.with_progress(
        document,
        ProcedureStepCancellationDateTime=ups.text("DT", ups.date_time(now)),
        ProcedureStepDiscontinuationReasonCodeSequence=given if given and given.get("Value") else unspecified,
    )
