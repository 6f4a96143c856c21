"""Estimate how long the reproduction takes on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from alnnode import phantom
from alnnode.records import Crop
from training.fit import reproduction_terms as terms
from training.networks import build

if TYPE_CHECKING:
    from training.fit.reproduction_terms import ReproductionPlan

NODES_OF_PHANTOM: Final = 7.0  # that pretraining uses, on average


def estimate_seconds(plan: ReproductionPlan) -> float:
    """Estimate the duration of a complete run on this machine by timing one phantom and one step of each family."""
    profile = plan.profile
    begun = time.perf_counter()
    phantom.make_patient(plan.seed, 0, plan.phantoms)
    drawing = (
        1.6
        * (time.perf_counter() - begun)
        * (profile.patients + profile.pretraining + profile.fresh + profile.shifted)
        / max(plan.processes, 1)
    )
    batch = torch.rand(profile.batch, plan.crops.channels, profile.pixels, profile.pixels, device=plan.device)
    steps = 0.6 * profile.nodes / profile.batch * profile.epochs * (profile.folds + profile.seeds - 1) * len(Crop)
    steps += NODES_OF_PHANTOM * profile.pretraining / profile.batch * profile.pretraining_epochs * len(Crop)
    learning = 0.0
    torch.set_num_threads(1)
    for family in profile.families:
        model = build.build(family, batch.shape[1], profile.output_stride).to(plan.device)
        for warm in (False, True):
            begun = time.perf_counter()
            with torch.autocast(plan.device, torch.bfloat16, enabled=terms.training_settings(plan, family, Crop.FSC).bf16):
                loss = functional.softplus(model(batch).float()).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()
            learning += (time.perf_counter() - begun) * steps * warm
    return drawing + 1.15 * learning / max(plan.processes, 1)
