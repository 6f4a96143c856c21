"""Train the networks of the detector: one on all patients, for the bundle, and others without some patients, on whom they are evaluated."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from alnnode.locate.detector import DetectorSettings
from alnnode.locate.network import AxillaNet
from alnnode.phantom import PhantomSettings, Surroundings
from training.detection import prepare
from training.detection.fold_names import BETWEEN, fold_name
from training.detection.learner import FitSettings, Learner
from training.detection.samples import Kind, Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.detection.samples import Axilla

REPORT_STEPS = 100  # steps between two printed lines and two checkpoints
WARM_UP_BATCH = 16


@dataclass(frozen=True, slots=True)
class DetectorPlan:
    """The options of ``python -m training.detection train``.

    Attributes:
        start: folder with networks of the same names; each network continues from its own. None: all start from the pretraining.
    """

    crops: Path
    out: Path
    start: Path | None
    leave_out: int
    steps: int
    rate: float
    patch: int
    copies: int
    phantoms: int
    warm_up: int
    seed: int
    processes: int
    parallel: int


@dataclass(frozen=True, slots=True)
class Fold:
    """One network: the name of its files, and the patients without whom it is trained."""

    name: str
    without: tuple[str, ...]
    number: int


def train_detector(plan: DetectorPlan) -> None:
    """Make the training axillae, train every network whose weights do not exist yet, and write weights and settings."""
    plan.out.mkdir(parents=True, exist_ok=True)
    files = sorted(plan.crops.glob("*.axilla"))
    hard = PhantomSettings(surroundings=Surroundings.AXILLA)
    counts = prepare.AxillaCounts(plan.copies, plan.phantoms, plan.seed, plan.processes)
    axillae = list(prepare.training_axillae(files, counts, hard))
    print(f"{len(axillae)} training axillae", flush=True)
    folds = folds_of(axillae, plan.leave_out)
    check_start(plan, folds)
    # The parent process never uses CUDA, which does not survive a fork. A fork shares the axillae instead of copying them.
    context, processes = get_context("fork"), min(plan.parallel, len(folds))
    if plan.start is None and not (plan.out / "warm-up.pt").exists():
        _run_processes([context.Process(target=_warm_up, args=(plan, axillae))])
    _run_processes(
        [
            context.Process(
                target=train_folds, args=(plan, axillae, folds[first::processes], (os.cpu_count() or 1) // processes)
            )
            for first in range(processes)
        ]
    )
    settings = plan.out / "detector.json"
    if not settings.exists():
        settings.write_text(json.dumps(DetectorSettings().to_dict(), indent=2) + "\n", encoding="utf-8")


def folds_of(axillae: Sequence[Axilla], leave_out: int) -> list[Fold]:
    """Return the network for the bundle first, then those that are each trained without ``leave_out`` patients, every patient once."""
    cases = sorted({axilla.case for axilla in axillae if axilla.case})
    if unfit := [case for case in cases if BETWEEN in case]:
        raise SystemExit(f"the names of cases may not contain {BETWEEN}: rename the crops of {', '.join(unfit)}")
    groups = [tuple(cases[first : first + leave_out]) for first in range(0, len(cases), leave_out)] if leave_out else []
    return [Fold("detector", (), 0), *(Fold(fold_name(group), group, n) for n, group in enumerate(groups, start=1))]


def axillae_of_fold(fold: Fold, axillae: Sequence[Axilla]) -> list[int]:
    """Return the numbers of the axillae for a network: none of an excluded patient, neither unchanged nor with drawn nodes."""
    return [n for n, axilla in enumerate(axillae) if axilla.case not in fold.without]


def check_start(plan: DetectorPlan, folds: Sequence[Fold]) -> None:
    """Check that each network has one to continue from, if the plan asks for that.

    Raises:
        SystemExit: some do not.
    """
    files = [_start_file(plan.start, fold) for fold in folds] if plan.start else []
    if absent := ", ".join(path.name for path in files if not path.exists()):
        raise SystemExit(f"{plan.start} has no network to continue from: {absent}")


def _run_processes(processes: list) -> None:  # type: ignore[type-arg]  # the process class depends on the context
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a training process failed: see its error above; the same command resumes from the checkpoints")


def _device(threads: int | None = None) -> torch.device:
    """Return the device; on a CPU this process uses as many threads, by default one for each processor."""
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(max(1, threads or os.cpu_count() or 1))  # the drawing of axillae has set one
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _start_file(folder: Path, fold: Fold) -> Path:
    """Return the file of the network that a network continues from: of the same name, so that no network has seen its own patients."""
    return folder / f"{fold.name}.safetensors"


def _start(plan: DetectorPlan, fold: Fold, settings: FitSettings) -> AxillaNet:
    """Return the network with which the training begins."""
    network = AxillaNet(settings.channels)
    if plan.start is None:
        state = torch.load(plan.out / "warm-up.pt", weights_only=True)
    else:
        state = load_file(_start_file(plan.start, fold))
    network.load_state_dict(state)  # copies half precision into float32
    return network


def _warm_up(plan: DetectorPlan, axillae: Sequence[Axilla]) -> None:
    """Pretrain on phantoms; no patient is used, so all networks may start from the result."""
    drawn = [axilla for axilla in axillae if axilla.kind is Kind.PHANTOM]
    settings = FitSettings(steps=plan.warm_up, batch=WARM_UP_BATCH, phantoms=1.0, drawn=0.0, rate=3e-3, seed=plan.seed)
    learner = Learner(Store(drawn, _device(), plan.patch), range(len(drawn)), settings)
    for step in range(plan.warm_up):
        loss = learner.step()
        if step % REPORT_STEPS == 0:
            print(f"warm-up: step {step} of {plan.warm_up}, loss {float(loss):.3f}", flush=True)
    torch.save(learner.average.cpu().state_dict(), plan.out / "warm-up.pt")


def train_folds(plan: DetectorPlan, axillae: Sequence[Axilla], folds: Sequence[Fold], threads: int) -> None:
    """Train several networks on one device, one step of each in turn, and write their weights."""
    store = Store(axillae, _device(threads), plan.patch)
    settings = FitSettings(steps=plan.steps, rate=plan.rate)
    learners = {}
    for fold in folds:
        if not (plan.out / f"{fold.name}.safetensors").exists():
            own = replace(settings, seed=plan.seed + 10 + fold.number)
            learners[fold] = Learner(store, axillae_of_fold(fold, axillae), own, _start(plan, fold, own))
            learners[fold].resume(plan.out / f"{fold.name}.checkpoint")
    while any(learner.done < plan.steps for learner in learners.values()):
        for fold, learner in learners.items():
            if learner.done < plan.steps:
                loss = learner.step()
                if learner.done % REPORT_STEPS == 0:
                    print(f"{fold.name}: step {learner.done} of {plan.steps}, loss {float(loss):.3f}", flush=True)
                    learner.save_checkpoint(plan.out / f"{fold.name}.checkpoint")
    for fold, learner in learners.items():
        _write(learner.average, plan.out / f"{fold.name}.safetensors")
        (plan.out / f"{fold.name}.checkpoint").unlink(missing_ok=True)


def _write(network: AxillaNet, path: Path) -> None:
    """Write the weights in half precision."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    part = path.with_suffix(".part")
    save_file({name: value.cpu().contiguous() for name, value in state.items()}, part)
    part.replace(path)
