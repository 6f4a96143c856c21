"""Answers to the node's storage commitment requests (PS3.4 J.3.3), on whatever association they are received."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from alnnode.clients.commitment_scu import Result
    from alnnode.deliver.commitments import Commitments

RESEND = timedelta(seconds=10)  # until objects that were not committed are resent

log = structlog.get_logger()


def record_answer(result: Result, commitments: Commitments) -> bool:
    """Record an answer; return False when the database fails, so that the destination sends the answer again later."""
    from alnnode.clients.commitment_scu import Reason, describe_reason  # noqa: PLC0415 - a supervisor starts without pynetdicom

    # The reason "duplicate transaction" says nothing of the objects: the next request has a new Transaction UID.
    failed = {uid: describe_reason(reason) for (_, uid), reason in result.failed if reason != Reason.DUPLICATE_TRANSACTION}
    committed = {uid for _, uid in result.committed}
    try:
        known = commitments.answered(result.transaction_uid, committed, failed, RESEND)
    except SQLAlchemyError as error:
        log.error("database_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback holds UIDs
        return False
    log.info("commitment_received", committed=len(committed), failed=len(failed), known=known)
    return True
