"""What the routes and the performer of the worklist work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from alnnode.analyse.jobs import Jobs
from alnnode.analyse.operator_actions import OperatorActions
from alnnode.worklist.event_reports import EventReports
from alnnode.worklist.subscriptions import Subscriptions
from alnnode.worklist.worklist import Worklist

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from starlette.requests import HTTPConnection

    from alnnode.receive.acceptor import Acceptor
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool


@dataclass(frozen=True)
class WorklistServices:
    """Opened once per process; the application holds them as ``state.worklist``.

    Attributes:
        settings: of the node.
        engine: the database.
        spool: the data sets of workitems, and the files of all objects.
        acceptor: stores the input that the performer fetches.
        jobs: of this node; a workitem that this node performs has one.
        operator: retries, cancels and repeats jobs.
        worklist: the workitems.
        subscriptions: of other AEs to workitems.
        event_reports: the reports that wait for the subscribers.
    """

    settings: Settings
    engine: Engine
    spool: Spool
    acceptor: Acceptor
    jobs: Jobs
    operator: OperatorActions
    worklist: Worklist
    subscriptions: Subscriptions
    event_reports: EventReports

    @classmethod
    def open(cls, settings: Settings, engine: Engine, spool: Spool, acceptor: Acceptor) -> WorklistServices:
        """Open the worklist over a database and a spool."""
        return cls(
            settings=settings,
            engine=engine,
            spool=spool,
            acceptor=acceptor,
            jobs=Jobs(engine),
            operator=OperatorActions(engine),
            worklist=Worklist(engine, spool),
            subscriptions=Subscriptions(engine),
            event_reports=EventReports(engine),
        )


def worklist_services(connection: HTTPConnection) -> WorklistServices:
    """Return the services of the application that answers this request."""
    return cast("WorklistServices", connection.app.state.worklist)
