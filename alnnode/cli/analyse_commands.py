"""Commands that work on folders, without a running node: analyse, phantom, demo."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from alnnode.cli.shared import EXIT_NOT_ANALYSABLE, Config, load_settings, results_folder
from alnnode.counted import counted
from alnnode.records import Side


class Sides(StrEnum):
    """Axillae, as the command line names them."""

    BOTH = "both"
    RIGHT = "right"
    LEFT = "left"

    @property
    def chosen(self) -> tuple[Side, ...]:
        """Return the patient's sides."""
        return tuple(Side) if self is Sides.BOTH else (Side(self.value),)


def analyse(
    folder: Annotated[
        Path, typer.Argument(help="Folder with the DICOM files of one or more CT series.", exists=True, file_okay=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results: sr.dcm, capture-NN.dcm, capture-NN.png, result.json.")
    ],
    prior: Annotated[
        list[Path] | None,
        typer.Option(
            help="Report (sr.dcm) of an earlier study of the same patient, to compare with. May be repeated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Analyse the CT series in a folder, without a running node."""
    from alnnode.cli.offline import OfflineAnalysis  # noqa: PLC0415
    from alnnode.model import bundle as bundles  # noqa: PLC0415
    from alnnode.pipeline import Models  # noqa: PLC0415

    settings = load_settings(config)
    console = Console(stderr=True)
    with results_folder(out, "--out"), console.status("load the model") as status:
        bundle = bundles.load(bundles.resolve(settings.analysis.bundle))
        models = Models.load(bundle, settings.analysis.device)
        outcomes = []
        for outcome in OfflineAnalysis(settings, models, status.update, prior or ()).analyse_folder(folder, out):
            outcomes.append(outcome)
            where = "" if outcome.folder is None else f" -> {outcome.folder}"
            result = outcome.reason or f"{counted(outcome.nodes, 'node')}, {outcome.suspicious} at or above the operating point"
            console.print(
                f"…{outcome.series_uid[-12:]} ({counted(outcome.images, 'image')}): {result}{where}",
                markup=False,
                highlight=False,
            )
    console.print(models.ensemble.identity.banner, style="bold", markup=False)
    if any(outcome.reason for outcome in outcomes):
        raise typer.Exit(EXIT_NOT_ANALYSABLE)


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write: a folder of DICOM files for each patient, and truth.json.")],
    patients: Annotated[int, typer.Option("--patients", "-n", min=1, help="Number of patients.")] = 1,
    seed: Annotated[
        int, typer.Option("--seed", "-s", help="Seed of the random numbers. The same seed gives the same bytes.")
    ] = 1,
    nodes: Annotated[
        tuple[int, int], typer.Option("--nodes", min=0, max=12, help="Least and greatest number of nodes in an axilla.")
    ] = (0, 12),
    sides: Annotated[Sides, typer.Option("--sides", help="Axillae that may have nodes.")] = Sides.BOTH,
    axilla: Annotated[
        bool, typer.Option("--axilla", help="Add what the axillae of patients have: strands, clusters, contact, metal.")
    ] = False,
) -> None:
    """Make synthetic axillary CT with its ground truth.

    It is input for tests and data for training, not an atlas of anatomy.
    """
    from alnnode import phantom as phantoms  # noqa: PLC0415

    console = Console(stderr=True)
    with results_folder(out, "OUT"), _progress(console) as progress:
        task = progress.add_task("phantoms", total=patients)
        phantoms.make_cohort(
            out,
            phantoms.CohortSettings(
                patients,
                seed,
                phantoms.PhantomSettings(
                    min_nodes_per_side=nodes[0],
                    max_nodes_per_side=nodes[1],
                    sides=sides.chosen,
                    surroundings=phantoms.Surroundings.AXILLA if axilla else phantoms.Surroundings.PLAIN,
                ),
            ),
            progress=lambda: progress.advance(task),
        )
    console.print(f"{counted(patients, 'synthetic patient')} and truth.json in {out}", markup=False)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that the demonstration writes.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option("--seed", "-s", help="Seed of the phantom.")] = 2024,
) -> None:
    """Demonstrate the node with a phantom and a stand-in PACS.

    The stand-in PACS gets report and heatmaps of a phantom study, and report.html shows them.
    """
    from alnnode.demo import run  # noqa: PLC0415

    # The demonstration is a node of its own and must not use the environment of the site.
    for name in [name for name in os.environ if name.startswith("ALNNODE_")]:
        del os.environ[name]
    raise typer.Exit(run.run(out, seed))


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
