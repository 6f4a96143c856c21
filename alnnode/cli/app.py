"""The ``alnnode`` command.

Exit codes: 0 done; 1 something failed or is missing; 2 the command line was wrong; 3 the settings cannot be used;
4 a series could not be analysed (its reason is printed, and its report written).

Heavy rooms are imported inside the commands that need them: a listener must start in a second and never load torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from alnnode import __version__, logs
from alnnode.errors import AlnnodeError, JobNotFound, NotAnalysable, SettingsError
from alnnode.records import Side
from alnnode.settings import Settings, load

if TYPE_CHECKING:
    from alnnode.analyse.jobs import Jobs

EXIT_FAILED, EXIT_SETTINGS, EXIT_NOT_ANALYSABLE = 1, 3, 4
DEFAULT_CONFIG = Path("config.toml")

app = typer.Typer(
    help="An AI node beside a PACS: finds and classifies axillary lymph nodes on CT. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="ALNNODE_CONFIG", help="Settings file; ./config.toml when it exists, else the defaults."
    ),
]


class Sides(StrEnum):
    """Axillae, as the command line names them."""

    BOTH = "both"
    RIGHT = "right"
    LEFT = "left"

    @property
    def chosen(self) -> tuple[Side, ...]:
        """The patient's sides."""
        return tuple(Side) if self is Sides.BOTH else (Side(self.value),)


def main() -> None:
    """Run the command; turn the node's own errors into one clear line and an exit code."""
    try:
        app()
    except SettingsError as error:
        _stop(str(error), EXIT_SETTINGS)
    except NotAnalysable as error:
        _stop(str(error), EXIT_NOT_ANALYSABLE)
    except AlnnodeError as error:
        _stop(str(error), EXIT_FAILED)


def _stop(message: str, code: int) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(message, style="red", markup=False, highlight=False)
    sys.exit(code)


def _config_path(config: Path | None) -> Path | None:
    return config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)


def _settings(config: Path | None) -> Settings:
    settings = load(_config_path(config))
    logs.configure(settings.logging)
    return settings


def _jobs(settings: Settings) -> Jobs:
    from alnnode.analyse.jobs import Jobs  # noqa: PLC0415
    from alnnode.db import engine  # noqa: PLC0415

    return Jobs(engine.create(settings.database_url, settings.database.pool_size))


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Show the version, or run a command."""
    if version:
        typer.echo(f"alnnode {__version__}")
        raise typer.Exit


@app.command()
def serve(config: Config = None) -> None:
    """Run the whole node: listeners, sweep, workers and (by default) a private Redis, until stopped."""
    from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.serve(_settings(config), _config_path(config)))


@app.command()
def listen(config: Config = None) -> None:
    """Run the listeners and the sweep only; workers run elsewhere and share database, broker and spool."""
    from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.listen(_settings(config), _config_path(config)))


@app.command()
def work(config: Config = None) -> None:
    """Run the workers only (analysis and delivery)."""
    from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.work(_settings(config), _config_path(config)))


@app.command()
def web(config: Config = None) -> None:
    """Run the HTTP service only: DICOMweb, status page, health and metrics."""
    from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.web(_settings(config), _config_path(config)))


@app.command()
def token() -> None:
    """Make a token for the HTTP service: the secret for its user, and the digest for [[web.tokens]]."""
    secret = secrets.token_urlsafe(32)
    typer.echo(f"secret, for the user (not kept anywhere): {secret}")
    typer.echo(f'for config.toml:  sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"')


@app.command()
def migrate(config: Config = None) -> None:
    """Bring the database to this version's schema; safe to run again."""
    from alnnode.db.schema import migrate as run  # noqa: PLC0415

    settings = _settings(config)
    if not settings.database.url:
        settings.node.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    run(settings.database_url)
    typer.echo("the database is at this version's schema")


@app.command()
def analyse(
    folder: Annotated[
        Path, typer.Argument(help="Folder with the DICOM files of one or more CT series.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for sr.dcm, capture-NN.dcm/.png and result.json.")],
    prior: Annotated[
        list[Path] | None,
        typer.Option(
            help="Report (sr.dcm) of an earlier study of the same patient to compare with; repeat for more.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Analyse a folder without network or database."""
    from alnnode.cli.offline import OfflineAnalysis  # noqa: PLC0415
    from alnnode.model import bundle as bundles  # noqa: PLC0415
    from alnnode.pipeline import Models  # noqa: PLC0415

    settings = _settings(config)
    console = Console(stderr=True)
    with console.status("loading the model") as status:
        bundle = bundles.load(bundles.resolve(settings.analysis.bundle))
        models = Models.load(bundle, settings.analysis.device)
        outcomes = []
        for outcome in OfflineAnalysis(settings, models, status.update, prior or ()).analyse_folder(folder, out):
            outcomes.append(outcome)
            where = "" if outcome.folder is None else f" -> {outcome.folder}"
            said = outcome.reason or f"{outcome.nodes} node(s), {outcome.suspicious} at or above the operating point"
            console.print(
                f"…{outcome.series_uid[-12:]} ({outcome.images} images): {said}{where}", markup=False, highlight=False
            )
    console.print(models.ensemble.identity.banner, style="bold", markup=False)
    if any(outcome.reason for outcome in outcomes):
        raise typer.Exit(EXIT_NOT_ANALYSABLE)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write: one folder of DICOM per patient, and truth.json.")],
    patients: Annotated[int, typer.Option("--patients", "-n", min=1, help="How many patients.")] = 1,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Same seed, same bytes.")] = 1,
    nodes: Annotated[tuple[int, int], typer.Option("--nodes", min=0, max=12, help="Fewest and most nodes on a side.")] = (
        0,
        12,
    ),
    sides: Annotated[Sides, typer.Option("--sides", help="Which axillae may hold nodes.")] = Sides.BOTH,
    axilla: Annotated[bool, typer.Option("--axilla", help="Strands, clusters, contact and metal as in patients.")] = False,
) -> None:
    """Make synthetic axillary CT with its truth: test input and training data, not anatomy to learn from."""
    from alnnode import phantom as phantoms  # noqa: PLC0415

    console = Console(stderr=True)
    with _progress(console) as progress:
        task = progress.add_task("phantoms", total=patients)
        phantoms.make_cohort(
            out,
            patients=patients,
            seed=seed,
            settings=phantoms.PhantomSettings(
                min_nodes_per_side=nodes[0],
                max_nodes_per_side=nodes[1],
                sides=sides.chosen,
                surroundings=phantoms.Surroundings.AXILLA if axilla else phantoms.Surroundings.PLAIN,
            ),
            progress=lambda: progress.advance(task),
        )
    console.print(f"{patients} synthetic patient(s) and truth.json in {out}", markup=False)


@app.command()
def check(config: Config = None) -> None:
    """Check settings, disk, database, broker, model, device and every destination; say what to do."""
    from alnnode.cli import check as checks  # noqa: PLC0415

    settings = _settings(config)
    table = Table("", "what", "found", "what to do", box=None, pad_edge=False)
    failed = False
    for result in checks.run(settings, _config_path(config)):
        failed = failed or not result.passed
        mark = "[green]✓[/]" if result.passed else "[red]✗[/]"
        table.add_row(mark, result.what, result.found, result.advice)
    Console(soft_wrap=True).print(table)
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def jobs(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for scripts.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 50,
) -> None:
    """List the jobs, newest first."""
    found = _jobs(_settings(config)).list(limit=limit)
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in found], indent=2, default=str))
        return
    table = Table(
        "job", "state", "rev", "images", "tries", "begun (UTC)", "results", "delivered", "reason", box=None, pad_edge=False
    )
    for job in found:
        sent = sum(delivery.sent_at is not None for delivery in job.deliveries)
        waiting = sum(delivery.state == "COMMITTING" for delivery in job.deliveries)
        table.add_row(
            job.job_id,
            job.state.value,
            str(job.revision),
            str(job.instances),
            str(job.attempts),
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            str(job.results),
            f"{sent}/{len(job.deliveries)}" + (f", {waiting} to commit" if waiting else ""),
            job.reason or "",
        )
    Console(soft_wrap=True).print(table)


@app.command()
def retry(job: Annotated[str, typer.Argument(help="Job id, as `alnnode jobs` lists it.")], config: Config = None) -> None:
    """Run a job again, or send its results again, while everything else goes on."""
    import getpass  # noqa: PLC0415

    from alnnode.audit.trail import Trail  # noqa: PLC0415

    settings = _settings(config)
    found = _jobs(settings)
    try:
        trail = Trail(settings)
    except OSError as error:
        _stop(
            f"the audit trail in {settings.node.data_dir} cannot be written ({error.strerror}); run this as the node's user",
            EXIT_FAILED,
        )
    try:
        state = found.retry(job)
        trail.put(trail.events.acted(getpass.getuser(), "", f"retry of job {job}, study {found.get(job).study_uid}"))
    except JobNotFound:
        _stop(f"no job {job}; `alnnode jobs` lists them", EXIT_FAILED)
    finally:
        trail.close()
    typer.echo(f"{job}: {state.value}; the node takes it up within a few seconds")


@app.command()
def advisories(
    files: Annotated[
        list[Path], typer.Argument(help="OSV advisories: JSON files, folders of them, or osv.dev's all.zip of PyPI.")
    ],
) -> None:
    """Hold the installed packages against advisories in files; no network is used."""
    from alnnode.cli import advisories as local  # noqa: PLC0415

    packages = local.installed()
    count, found = local.check(local.read(files), packages)
    for one in found:
        remedy = f"fixed in {one.fixed}" if one.fixed else "no fixed version is named"
        typer.echo(f"{one.package} {one.version}: {one.advisory}: {one.summary} ({remedy})")
    typer.echo(f"{len(packages)} packages, {count} advisories, {len(found)} findings")
    if found:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything the demonstration makes.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option("--seed", "-s", help="Which phantom.")] = 2024,
) -> None:
    """Show the whole way: a phantom study in, a report and heatmaps back at a stand-in PACS, a page to read."""
    from alnnode.demo import run  # noqa: PLC0415

    # The demonstration is its own node: it must not pick up the site's environment.
    for name in [name for name in os.environ if name.startswith("ALNNODE_")]:
        del os.environ[name]
    raise typer.Exit(run.run(out, seed))
