"""``python -m training.detection``: cut axillae out of marked series, and train the detector on them.

Apart from ``python -m training``, because it must run where only PyTorch, SciPy, scikit-image and pydicom are: on a rented GPU.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command("cut")
def cut(
    data: Annotated[Path, typer.Option(help="Folder with a folder of DICOM files for each series.")],
    marks: Annotated[Path, typer.Option(help="Folder with the readers' marks: A/CASE.json and B/CASE.json.")],
    out: Annotated[Path, typer.Option(help="Folder for the crops, two files for each case.")] = Path("runs/crops"),
    case: Annotated[list[str] | None, typer.Option(help="CASE=FOLDER, where it cannot be told from the voxel size.")] = None,
) -> None:
    """Cut both axillae out of every marked series, about 1 MB each; half a minute a series."""
    from alnnode.locate.chest_anatomy import ChestAnatomy  # not on a machine that only trains
    from training.detection import crops
    from training.detection.series import find_cases, given_cases, volume_of

    out.mkdir(parents=True, exist_ok=True)
    for name, (folder, reference) in find_cases(marks, data, given_cases(case or [])).items():
        for crop in crops.cut(ChestAnatomy(volume_of(folder)), name, reference):
            path = out / f"{name}-{crop.side}.axilla"
            path.write_bytes(crop.to_bytes())
            print(f"{path}: {crop.nodes.max()} nodes, {len(crop.uncertain)} uncertain places", flush=True)


@app.command("train")
def train(
    crops: Annotated[Path, typer.Option(help="Folder of crops (`cut`).")] = Path("runs/crops"),
    out: Annotated[Path, typer.Option(help="Folder for the weights; a second run goes on from its checkpoints.")] = Path(
        "runs/detector"
    ),
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Also train a network without each patient, to judge it on that patient.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Optimiser steps of each network.")] = 3000,
    copies: Annotated[int, typer.Option(help="How often nodes are drawn into each axilla.")] = 24,
    phantoms: Annotated[int, typer.Option(help="Phantoms to learn from.")] = 60,
    warm_up: Annotated[int, typer.Option(help="Steps on phantoms alone, once for all networks.")] = 600,
    seed: Annotated[int, typer.Option(help="Of drawings, phantoms, first weights and order.")] = 7,
    processes: Annotated[int, typer.Option(help="That draw.")] = os.cpu_count() or 2,
    parallel: Annotated[int, typer.Option(help="Networks trained side by side on the device.")] = 1,
) -> None:
    """Train the detector: by estimate 12 minutes on one H100-class GPU (--leave-one-out --parallel 5), a night on two CPU cores."""
    from training.detection.train import Plan, run

    run(Plan(crops, out, leave_one_out, steps, copies, phantoms, warm_up, seed, processes, parallel))


if __name__ == "__main__":
    app()
