"""Training the detector's networks: one on all patients, which is shipped, and one without each patient, which is judged on that one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from alnnode.locate.detector import DetectorSettings
from alnnode.locate.network import AxillaNet
from alnnode.phantom import PhantomSettings, Surroundings
from training.detection import prepare
from training.detection.fit import FitSettings, Learner
from training.detection.samples import Kind, Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.detection.samples import Axilla

REPORT = 100  # steps between two lines and two checkpoints
WARM_UP_BATCH = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for: the options of ``python -m training.detection train``."""

    crops: Path
    out: Path
    leave_one_out: bool
    steps: int
    copies: int
    phantoms: int
    warm_up: int
    seed: int
    processes: int
    parallel: int


@dataclass(frozen=True, slots=True)
class Fold:
    """One network: ``name`` of its files, and the patient that it never sees (None: it sees all)."""

    name: str
    without: str | None
    number: int


def run(plan: Plan) -> None:
    """Draw what is learnt from, train every network that is not there yet, and write weights and settings."""
    plan.out.mkdir(parents=True, exist_ok=True)
    files = sorted(plan.crops.glob("*.axilla"))
    hard = PhantomSettings(surroundings=Surroundings.AXILLA)
    axillae = list(prepare.axillae(files, plan.copies, plan.phantoms, plan.seed, plan.processes, hard))
    print(f"{len(axillae)} axillae to learn from", flush=True)
    folds = folds_of(axillae, plan.leave_one_out)
    # The parent never touches CUDA, which does not survive a fork; what was drawn is shared, not copied.
    context = get_context("fork")
    if not (plan.out / "warm-up.pt").exists():
        _all_well([context.Process(target=_warm_up, args=(plan, axillae))])
    _all_well(
        [
            context.Process(target=_train_folds, args=(plan, axillae, folds[first :: plan.parallel]))
            for first in range(min(plan.parallel, len(folds)))
        ]
    )
    settings = plan.out / "detector.json"
    if not settings.exists():
        settings.write_text(json.dumps(DetectorSettings().to_dict(), indent=2) + "\n", encoding="utf-8")


def folds_of(axillae: Sequence[Axilla], leave_one_out: bool) -> list[Fold]:
    """The shipped network first, then those without one patient."""
    cases = sorted({axilla.case for axilla in axillae if axilla.case}) if leave_one_out else []
    return [Fold("detector", None, 0), *(Fold(f"without-{case}", case, n) for n, case in enumerate(cases, start=1))]


def seen_by(fold: Fold, axillae: Sequence[Axilla]) -> list[int]:
    """Numbers of the axillae that a network may learn from: none of its patient, neither as it is nor with drawings."""
    return [n for n, axilla in enumerate(axillae) if fold.without is None or axilla.case != fold.without]


def _all_well(processes: list) -> None:  # type: ignore[type-arg]  # of a context, which has a class of its own
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a training process failed; what it said stands above. The same command goes on from the checkpoints.")


def _device() -> torch.device:
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _warm_up(plan: Plan, axillae: Sequence[Axilla]) -> None:
    """Learn shapes from phantoms first: no patient is in it, so that all networks may begin there."""
    drawn = [axilla for axilla in axillae if axilla.kind is Kind.PHANTOM]
    settings = FitSettings(steps=plan.warm_up, batch=WARM_UP_BATCH, phantoms=1.0, drawn=0.0, rate=3e-3, seed=plan.seed)
    learner = Learner(Store(drawn, _device()), range(len(drawn)), settings)
    for step in range(plan.warm_up):
        loss = learner.step()
        if step % REPORT == 0:
            print(f"warm-up: step {step} of {plan.warm_up}, loss {float(loss):.3f}", flush=True)
    torch.save(learner.average.cpu().state_dict(), plan.out / "warm-up.pt")


def _train_folds(plan: Plan, axillae: Sequence[Axilla], folds: Sequence[Fold]) -> None:
    """Train some networks in turn on one device, step by step, and write their weights."""
    store = Store(axillae, _device())
    settings = FitSettings(steps=plan.steps)
    start = AxillaNet(settings.channels)
    start.load_state_dict(torch.load(plan.out / "warm-up.pt", weights_only=True))
    learners = {}
    for fold in folds:
        if not (plan.out / f"{fold.name}.safetensors").exists():
            learners[fold] = Learner(store, seen_by(fold, axillae), replace(settings, seed=plan.seed + 10 + fold.number), start)
            learners[fold].resume(plan.out / f"{fold.name}.checkpoint")
    while any(learner.done < plan.steps for learner in learners.values()):
        for fold, learner in learners.items():
            if learner.done < plan.steps:
                loss = learner.step()
                if learner.done % REPORT == 0:
                    print(f"{fold.name}: step {learner.done} of {plan.steps}, loss {float(loss):.3f}", flush=True)
                    learner.keep(plan.out / f"{fold.name}.checkpoint")
    for fold, learner in learners.items():
        _write(learner.average, plan.out / f"{fold.name}.safetensors")
        (plan.out / f"{fold.name}.checkpoint").unlink(missing_ok=True)


def _write(network: AxillaNet, path: Path) -> None:
    """Write weights in half precision."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    part = path.with_suffix(".part")
    save_file({name: value.cpu().contiguous() for name, value in state.items()}, part)
    part.replace(path)
