"""Commands on the jobs of a node: jobs, retry."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.cli.shared import EXIT_FAILED, Config, load_settings, open_database, open_jobs, print_table, stop
from alnnode.errors import JobNotFound

if TYPE_CHECKING:
    from alnnode.db.rows import JobStatus

COLUMNS = ("job", "state", "rev", "images", "tries", "begun (UTC)", "results", "delivered", "reason")


def jobs(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, for scripts.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show only the N most recent jobs.", metavar="N")] = 50,
) -> None:
    """List the jobs, the most recent first."""
    found = open_jobs(load_settings(config)).list(limit=limit)
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in found], indent=2, default=str))
    else:
        print_table(COLUMNS, map(_row, found))


def _row(job: JobStatus) -> list[str]:
    sent = sum(delivery.sent_at is not None for delivery in job.deliveries)
    waiting = sum(delivery.state == "COMMITTING" for delivery in job.deliveries)
    return [
        job.job_id,
        job.state.value,
        str(job.revision),
        str(job.instances),
        str(job.attempts),
        f"{job.created_at:%Y-%m-%d %H:%M:%S}",
        str(job.results),
        f"{sent}/{len(job.deliveries)}" + (f", {waiting} to commit" if waiting else ""),
        job.reason or "",
    ]


def retry(job: Annotated[str, typer.Argument(help="Job id, as `alnnode jobs` lists it.")], config: Config = None) -> None:
    """Analyse or deliver a job once more. The node need not be stopped."""
    import getpass  # noqa: PLC0415

    from alnnode.analyse.jobs import Jobs  # noqa: PLC0415
    from alnnode.analyse.operator_actions import OperatorActions  # noqa: PLC0415
    from alnnode.audit.trail import Trail  # noqa: PLC0415

    settings = load_settings(config)
    database = open_database(settings)
    try:
        trail = Trail(settings)
    except OSError as error:
        stop(
            f"Cannot write the audit trail in {settings.node.data_dir} ({error.strerror}): run this command as the user of the node.",
            EXIT_FAILED,
        )
    try:
        state = OperatorActions(database).retry(job)
        trail.put(trail.events.acted(getpass.getuser(), "", f"retry of job {job}, study {Jobs(database).get(job).study_uid}"))
    except JobNotFound:
        stop(f"There is no job {job}: `alnnode jobs` lists the job ids.", EXIT_FAILED)
    finally:
        trail.close()
    typer.echo(f"{job}: {state.value}; the node starts it within a few seconds")
