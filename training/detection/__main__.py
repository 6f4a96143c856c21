"""``python -m training.detection``: cut axillae out of marked series, and train the detector on them.

It is separate from ``python -m training``, because it must run on a GPU machine that has only PyTorch, SciPy, scikit-image and pydicom.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.command("cut")
def cut(
    data: Annotated[Path, typer.Option(help="Folder with one folder of DICOM files for each series.")],
    marks: Annotated[Path, typer.Option(help="Folder of the readers' marks: A/CASE.json and B/CASE.json.")],
    out: Annotated[Path, typer.Option(help="Folder to write the crops, two files for each case.")] = Path("runs/crops"),
    case: Annotated[
        list[str] | None,
        typer.Option(help="CASE=FOLDER for a case whose folder cannot be identified by voxel size; may be repeated."),
    ] = None,
) -> None:
    """Cut both axillae out of every marked series: about 1 MB for each axilla and half a minute for each series."""
    from alnnode.locate.chest_anatomy import ChestAnatomy  # a machine that only trains does not have its packages
    from training.detection import crops
    from training.detection.case_series import find_cases, given_cases, volume_of

    out.mkdir(parents=True, exist_ok=True)
    for name, (folder, reference) in find_cases(marks, data, given_cases(case or [])).items():
        for crop in crops.cut(ChestAnatomy(volume_of(folder)), name, reference):
            path = out / f"{name}-{crop.side}.axilla"
            path.write_bytes(crop.to_bytes())
            print(f"{path}: {crop.nodes.max()} nodes, {len(crop.uncertain)} uncertain places", flush=True)


@app.command("train")
def train(
    crops: Annotated[Path, typer.Option(help="Folder of the crops that `cut` wrote.")] = Path("runs/crops"),
    out: Annotated[Path, typer.Option(help="Folder to write the weights; a second run resumes from its checkpoints.")] = Path(
        "runs/detector"
    ),
    leave_out: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also train networks to evaluate on patients: each without this many of them, every patient once. "
            "1: leave one patient out; 0: only the network for the bundle.",
        ),
    ] = 0,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Folder of networks with the same names: each continues from its own, without pretraining.", exists=True
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps of each network.")] = 3000,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    patch: Annotated[
        int, typer.Option(help="Edge of the training patches, mm; a multiple of 16. 64 takes a third of the time of 96.")
    ] = 96,
    copies: Annotated[int, typer.Option(help="Number of times that nodes are drawn into each axilla.")] = 24,
    phantoms: Annotated[int, typer.Option(help="Number of training phantoms.")] = 60,
    warm_up: Annotated[int, typer.Option(help="Steps of pretraining on phantoms, once for all networks.")] = 600,
    seed: Annotated[int, typer.Option(help="Seed of drawings, phantoms, initial weights and order.")] = 7,
    processes: Annotated[int, typer.Option(help="Number of parallel processes that draw.")] = os.cpu_count() or 2,
    parallel: Annotated[int, typer.Option(help="Number of networks trained in parallel on the device.")] = 1,
) -> None:
    """Train the detector; estimate: 12 minutes on one H100-class GPU (--leave-out 1 --parallel 5), 3 hours for one network on two CPU cores."""
    from training.detection.train import DetectorPlan, train_detector

    if patch < 32 or patch % 16:
        raise typer.BadParameter("the edge must be a multiple of 16, and at least 32", param_hint="--patch")
    train_detector(
        DetectorPlan(crops, out, start, leave_out, steps, rate, patch, copies, phantoms, warm_up, seed, processes, parallel)
    )


if __name__ == "__main__":
    app()
