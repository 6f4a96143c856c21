"""Commands that run whole protocols: lidc, reproduce, ablation."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from alnnode.model import bundle as bundles
from alnnode.model.ensemble import choose_device, describe_device
from alnnode.records import Crop
from training.fit import ablation as ablations
from training.fit import duration, grid, ledger, reproduction_terms
from training.fit import lidc as lidc_nodules
from training.fit import reproduce as reproduction
from training.report import ablation_report, bundle_export, lidc_report, reproduce_report
from training.report.progress import console, progress_bars

Cache = Annotated[Path, typer.Option(help="Cache folder of crops and checkpoints; a second run resumes from it.")]


def lidc(
    data: Annotated[Path, typer.Option(help="Folder of lidc_nodule_2crop.npz.")],
    work: Cache = Path("runs/lidc"),
    seed: Annotated[int, typer.Option(help="Seed of the folds and of the initial weights.")] = 7,
    epochs: Annotated[int, typer.Option(help="Epochs of each network.")] = 4,
    family: Annotated[list[str] | None, typer.Option(help="Network family to train; may be repeated. Default: all.")] = None,
    processes: Annotated[int, typer.Option(help="Number of networks trained in parallel, with one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="Document to write.")] = Path("docs/lidc.md"),
) -> None:
    """Run the two-crop protocol on real lung nodules (LIDC-IDRI): five folds by patient, each family under both crops."""
    families = tuple(family or lidc_nodules.FAMILIES)
    wanted = lidc_nodules.training_tasks(families, seed, epochs)
    work = work / lidc_nodules.arrays_digest(data)[:12]
    with progress_bars() as report:
        grid.train_networks(
            partial(lidc_nodules.fold_data, data, seed), wanted, work, report("networks", len(wanted)), processes
        )
        nodules = lidc_nodules.read_nodules(data)
        features = lidc_nodules.frozen_features(nodules, work, report("frozen features", len(Crop)))
    rows = lidc_report.rows_of(nodules, wanted, features, work, seed)
    command = f"python -m training lidc --data FOLDER --seed {seed} --epochs {epochs} " + " ".join(
        f"--family {name}" for name in families
    )
    out.write_text(lidc_report.markdown(nodules, rows, command, seed, describe_device(choose_device("cpu"))), encoding="utf-8")
    console.print(f"wrote {out}", markup=False)


def reproduce(
    profile: Annotated[
        str, typer.Option(help="full, two-cores, reduced, small or tiny, as defined in training/fit/reproduction.toml.")
    ] = "two-cores",
    work: Cache = Path("runs/reproduction"),
    out: Annotated[Path, typer.Option(help="Document to write.")] = Path("docs/reproduction.md"),
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle to write.")] = Path("runs/reproduction/bundle"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    processes: Annotated[int, typer.Option(help="Number of networks trained in parallel; on a CPU with one thread each.")] = 2,
    figures: Annotated[
        Path | None, typer.Option(help="JSON file that evaluate-detector --out wrote for this bundle, for the model card.")
    ] = None,
) -> None:
    """Run the protocol of the paper on a phantom cohort of the same size; an interrupted run resumes."""
    chosen = choose_device(device)
    plan = reproduction_terms.read_plan(profile, work, chosen.type, processes)
    if figures:
        plan = replace(plan, detection=json.loads(figures.read_text(encoding="utf-8")))
    minutes = duration.estimate_seconds(plan) / 60
    console.print(
        f"estimated duration without a cache: {minutes:.0f} minutes on {describe_device(chosen)}", markup=False, highlight=False
    )
    with progress_bars() as report:
        outcome = reproduction.run_reproduction(plan, report)
    digest = bundle_export.write_bundle(outcome.bundle, bundle, plan.detection)
    scorings = ledger.append_scoring(
        out.with_name("reproduction-ledger.jsonl"),
        plan,
        ledger.networks_digest(bundles.load(bundle).manifest),
        reproduce_report.paper_auroc(outcome),
        datetime.now(UTC).date(),
    )
    out.write_text(reproduce_report.markdown(plan, outcome, digest, describe_device(chosen), scorings), encoding="utf-8")
    console.print(f"wrote bundle {digest[:12]} to {bundle}, and {out}", markup=False)


def ablation(
    profile: Annotated[str, typer.Option(help="Profile of the cohort, as for reproduce.")] = "two-cores",
    family: Annotated[str, typer.Option(help="Network family of both networks.")] = "resnet18",
    epochs: Annotated[int, typer.Option(help="Epochs of each network.")] = 20,
    pretraining: Annotated[
        bool, typer.Option("--pretraining", help="Compare pretrained networks with those that start from random weights.")
    ] = False,
    work: Cache = Path("runs/reproduction"),
    out: Annotated[
        Path | None, typer.Option(help="Document to write. Default: docs/ablation.md, or docs/ablation-pretraining.md.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    processes: Annotated[int, typer.Option(help="Number of networks trained in parallel; on a CPU with one thread each.")] = 2,
) -> None:
    """Train the two networks of the reproduction with inputs left out, and compare them on its validation patients."""
    chosen = choose_device(device)
    plan = reproduction_terms.read_plan(profile, work, chosen.type, processes)
    with progress_bars() as report:
        result = ablations.run_ablation(plan, family, epochs, report, pretraining=pretraining)
    text = ablation_report.markdown(
        result.rows,
        seed=plan.seed,
        command=f"python -m training ablation --profile {profile} --family {family} --epochs {epochs}"
        + (" --pretraining" if pretraining else ""),
        family=family,
        epochs=epochs,
        nodes=result.nodes,
        device=describe_device(chosen),
    )
    out = out or Path("docs/ablation-pretraining.md" if pretraining else "docs/ablation.md")
    out.write_text(text, encoding="utf-8")
    console.print(f"wrote {out}", markup=False)
