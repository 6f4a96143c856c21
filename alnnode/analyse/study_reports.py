"""Whether the radiologist learns of a study by another of its series, so that "not analysed" need not be reported for this one.

A CT study has a localizer, thick slices and several kernels. A report for each of them would hide the one report that matters; no report
at all could be read as "nothing found". So one report says that a study was not analysed, if none of its series was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, or_, select

from alnnode.db.tables import Delivery, Job
from alnnode.records import JobState

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from alnnode.db.rows import Claim

# The last of the open jobs decides once more: it reports the study if it cannot be analysed either. A series that is still being received does
# not count: perhaps no route selects it, and nobody would decide then.
_ANALYSED_OR_OPEN = (JobState.READY, JobState.RUNNING, JobState.ANALYSED, JobState.DELIVERED)


def is_study_reported(connection: Connection, claim: Claim) -> bool:
    """Return whether another series of the study is analysed, is still to be analysed, or is reported, inside a transaction that writes.

    False if an earlier revision of this series was delivered, because this report must replace that one. The jobs of the study are
    locked: of two series that end at the same time, the second must see the first as ended.
    """
    of_study = Job.study_uid == claim.study_uid
    connection.execute(select(Job.job_id).where(of_study).order_by(Job.job_id).with_for_update()).all()
    delivered = select(Delivery.job_id).where(Delivery.job_id == Job.job_id).exists()
    earlier = and_(Job.series_uid == claim.series_uid, Job.job_id != claim.job_id, delivered)
    if connection.execute(select(Job.job_id).where(earlier).limit(1)).first() is not None:
        return False
    other = and_(of_study, Job.series_uid != claim.series_uid, or_(Job.state.in_(_ANALYSED_OR_OPEN), delivered))
    return connection.execute(select(Job.job_id).where(other).limit(1)).first() is not None
