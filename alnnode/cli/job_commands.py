"""Commands on the jobs of a node: jobs, retry."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.cli.shared import EXIT_FAILED, Config, load_settings, open_database, stop
from alnnode.errors import JobConflict, JobNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Engine

    from alnnode.analyse.jobs import Jobs
    from alnnode.audit.trail import Trail
    from alnnode.db.rows import JobStatus
    from alnnode.records import JobState
    from alnnode.settings import Settings

COLUMNS = ("job", "state", "rev", "images", "tries", "begun (UTC)", "results", "delivered")
SHORTEST = 8  # characters of a job id in the list; more where two jobs begin alike
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
MOST = 100_000  # jobs that one `alnnode retry --failed` retries


def _since(text: str) -> datetime:
    """Return the time that ``--since`` names: an age such as 90m, 24h or 7d, or a date and time of ISO 8601 (UTC)."""
    age = re.fullmatch(r"(\d{1,6})([mhd])", text)
    try:
        if age:
            return datetime.now(UTC) - timedelta(**{UNITS[age[2]]: int(age[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is neither an age (90m, 24h, 7d) nor a date (2026-11-26, 2026-11-26T08:00)"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _state(text: str) -> JobState:
    from alnnode.records import JobState  # noqa: PLC0415

    try:
        return JobState(text.upper())
    except ValueError as error:
        raise typer.BadParameter(f"no such state; states are {', '.join(JobState)}", param_hint="--state") from error


Since = Annotated[
    datetime | None,
    typer.Option(parser=_since, metavar="TIME", help="Only jobs begun since then: 90m, 24h, 7d, or a date (UTC)."),
]


def jobs(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, for scripts.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show only the N most recent jobs.", metavar="N")] = 50,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only jobs in this state, such as FAILED.")] = None,
    since: Since = None,
) -> None:
    """List the jobs, the most recent first."""
    from alnnode.analyse.jobs import Jobs  # noqa: PLC0415

    chosen = _state(state) if state else None
    found = Jobs(open_database(load_settings(config), config)).list(chosen, limit, since)
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in found], indent=2, default=str))
    elif found:
        typer.echo("\n".join(_lines(found)))
    else:
        typer.echo("No such job." if state or since else "No jobs: the node has not received a series yet.", err=True)


def _lines(found: Sequence[JobStatus]) -> Iterator[str]:
    """Yield the lines of the list. No line is cut or folded: each id is a word that `alnnode retry` accepts."""
    shown = _shortened([job.job_id for job in found])
    rows = [COLUMNS, *(_row(job, short) for job, short in zip(found, shown, strict=True))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    reasons = ["", *(job.reason for job in found)]
    for row, reason in zip(rows, reasons, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if reason:
            yield f"    {reason}"


def _shortened(ids: Sequence[str]) -> list[str]:
    """Return the shortest beginnings of equal length that distinguish the ids."""
    longest = max(map(len, ids))
    length = next((size for size in range(SHORTEST, longest) if len({one[:size] for one in ids}) == len(set(ids))), longest)
    return [one[:length] for one in ids]


def _row(job: JobStatus, job_id: str) -> tuple[str, ...]:
    sent = sum(delivery.sent_at is not None for delivery in job.deliveries)
    waiting = sum(delivery.state == "COMMITTING" for delivery in job.deliveries)
    return (
        job_id,
        job.state.value,
        str(job.revision),
        str(job.instances),
        str(job.attempts),
        f"{job.created_at:%Y-%m-%d %H:%M}",
        str(job.results),
        f"{sent}/{len(job.deliveries)}" + (f", {waiting} to commit" if waiting else ""),
    )


def retry(
    job_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB]...", help="Job ids, or their first characters, as `alnnode jobs` lists them."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Retry every FAILED job.")] = False,
    since: Since = None,
    config: Config = None,
) -> None:
    """Analyse or deliver jobs once more. The node need not be stopped."""
    from alnnode.analyse.jobs import Jobs  # noqa: PLC0415
    from alnnode.records import JobState  # noqa: PLC0415

    if bool(job_ids) == failed:
        raise typer.BadParameter("give job ids (`alnnode jobs` lists them), or --failed")
    if since and not failed:
        raise typer.BadParameter("--since is for --failed", param_hint="--since")
    settings = load_settings(config)
    database = open_database(settings, config)
    table = Jobs(database)
    ids = [job.job_id for job in table.list(JobState.FAILED, MOST, since)] if failed else []
    unknown = 0
    for text in job_ids or ():
        try:
            ids.append(_resolve(text, table))
        except JobNotFound as error:
            unknown += 1
            typer.echo(str(error), err=True)
    if failed and not ids:
        typer.echo("No such job has failed.")
    retried = _retry_each(list(dict.fromkeys(ids)), database, settings)
    if retried:
        _say_when(settings)
    if unknown or retried < len(set(ids)):
        raise typer.Exit(EXIT_FAILED)


def _resolve(text: str, table: Jobs) -> str:
    """Return the id that begins with a text.

    Raises:
        JobNotFound: no id begins with it, or several do.
    """
    found = table.beginning_with(text) if text else ()
    if not found:
        raise JobNotFound(f"There is no job {text}: `alnnode jobs` lists the job ids.")
    if len(found) > 1:
        raise JobNotFound(f"Several job ids begin with {text}; give more characters: {', '.join(found)}")
    return found[0]


def _retry_each(ids: Sequence[str], database: Engine, settings: Settings) -> int:
    """Retry the jobs, and print a line for each; return how many could be retried."""
    import getpass  # noqa: PLC0415

    from alnnode.analyse.jobs import Jobs  # noqa: PLC0415
    from alnnode.analyse.operator_actions import OperatorActions  # noqa: PLC0415

    table, actions, retried = Jobs(database), OperatorActions(database), 0
    with closing(_open_trail(settings)) as trail:
        for job in ids:
            try:
                state = actions.retry(job)
            except (JobConflict, JobNotFound) as error:
                typer.echo(f"{job}: not retried: {error}", err=True)
                continue
            retried += 1
            trail.put(trail.events.acted(getpass.getuser(), "", f"retry of job {job}, study {table.get(job).study_uid}"))
            typer.echo(f"{job}: {state.value}")
    return retried


def _open_trail(settings: Settings) -> Trail:
    from alnnode.audit.trail import Trail  # noqa: PLC0415

    try:
        return Trail(settings)
    except OSError as error:
        stop(
            f"Cannot write the audit trail in {settings.node.data_dir} ({error.strerror}): run this command as the user of the node.",
            EXIT_FAILED,
        )


def _say_when(settings: Settings) -> None:
    """Say when the retried jobs start: at once, or when the node does."""
    from alnnode.process import heartbeat  # noqa: PLC0415

    ages = heartbeat.ages(settings.node.data_dir).values()
    if min(ages, default=heartbeat.LATE) < heartbeat.LATE:
        typer.echo("The node starts them within a few seconds.")
    else:
        typer.echo("No node runs with these settings: the jobs wait until `alnnode serve` (or `alnnode work`) runs.", err=True)
