"""The ledger of test sets: one line for each pair of networks that is scored on a frozen test set, appended by the command that scores it.

A test set that is looked at again and again becomes a validation set. The page of the reproduction says "scored once" only if the ledger
has one line for the cohort.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from training.data import cohort as cohorts
from training.fit.member import training_code_digest

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from alnnode.model.manifest import Manifest
    from training.fit.reproduction_terms import ReproductionPlan


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One scoring of a test set.

    Attributes:
        cohort: what determines the test nodes: seed, code of the phantoms, size.
        profile: of the reproduction.
        day: ISO 8601.
        code: digest of the training code, shortened.
        networks: digest of the weights of the bundle's networks (`networks_digest`), shortened.
        auroc: of the paper's pair on the test nodes, with its interval.
    """

    cohort: str
    profile: str
    day: str
    code: str
    networks: str
    auroc: str


def cohort_identity(plan: ReproductionPlan) -> str:
    """Return what determines the test nodes of a plan."""
    profile = plan.profile
    return f"seed {plan.seed}, phantom code {cohorts.phantom_code()[:12]}, {profile.nodes} nodes of {profile.patients} phantoms"


def networks_digest(manifest: Manifest) -> str:
    """Return the digest (hex) of the networks of a bundle: of their weights, and not of the model card."""
    return hashlib.sha256("".join(member.sha256 for member in manifest.members).encode()).hexdigest()


def append_scoring(path: Path, plan: ReproductionPlan, networks: str, auroc: str, today: date) -> list[LedgerEntry]:
    """Append one scoring and return all scorings of this cohort, the oldest first.

    Networks and figure that the ledger already holds for this cohort are not appended again: a resumed run, or one that changes only the
    model card, gives the same scores.
    """
    entry = LedgerEntry(
        cohort_identity(plan), plan.profile.name, today.isoformat(), training_code_digest()[:12], networks[:12], auroc
    )
    known = read_ledger(path)
    if (entry.cohort, entry.networks, entry.auroc) not in {(old.cohort, old.networks, old.auroc) for old in known}:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as sink:
            sink.write(json.dumps(asdict(entry)) + "\n")
        known.append(entry)
    return [old for old in known if old.cohort == entry.cohort]


def read_ledger(path: Path) -> list[LedgerEntry]:
    """Return the lines of a ledger; an absent ledger is empty."""
    if not path.exists():
        return []
    return [LedgerEntry(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
