"""A lease is renewed during the analysis, and its loss is detected."""

import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy.exc import OperationalError

from alnnode.db.rows import Claim
from workers.lease import Lease, LeaseLostError

LENGTH = timedelta(milliseconds=40)
START = datetime(2026, 1, 1, tzinfo=UTC)
CLAIM = Claim("job", "1.2", "1.2.3", 2, START, (), "0" * 64, START, 1, None)


class ScriptedJobs:
    """Answers `renew` from a script; the last answer repeats."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[object, ...]] = []
        self.several = threading.Event()

    def renew(self, *arguments: object) -> bool:
        self.asked.append(arguments)
        if len(self.asked) >= 3:
            self.several.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_it_is_renewed_through_a_database_that_stumbles() -> None:
    jobs = ScriptedJobs(OperationalError("", {}, Exception()), True)
    with Lease(partial(jobs.renew, CLAIM, LENGTH), LENGTH, "job", CLAIM.job_id) as lease:
        assert jobs.several.wait(10)
        lease.check()
    asked = len(jobs.asked)
    assert jobs.asked[0] == (CLAIM, LENGTH)
    threading.Event().wait(0.1)
    assert len(jobs.asked) == asked, "it is renewed after the analysis ended"


def test_a_job_that_was_taken_over_is_noticed() -> None:
    jobs = ScriptedJobs(False)
    with Lease(partial(jobs.renew, CLAIM, LENGTH), LENGTH, "job", CLAIM.job_id) as lease:
        lease._thread.join(10)
        with pytest.raises(LeaseLostError, match="job"):
            lease.check()
    assert len(jobs.asked) == 1
