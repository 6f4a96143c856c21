"""The checklists of CLAIM and TRIPOD+AI for a trained bundle, filled in as far as the run knows the answer."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

import alnnode
from alnnode.records import Crop
from training.evaluate.tables import format_interval
from training.fit.member import WARM_UP

if TYPE_CHECKING:
    from training.fit.bundle_contents import BundleContents
    from training.fit.member import TrainSettings

ITEMS: Final = Path(__file__).with_suffix(".toml")
OPEN: Final = "**Fill in.**"
EXTERNAL: Final = (
    "None in this run: python -m training cohort evaluate measures the bundle on the patients of another hospital."
)


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What the checklists quote beside the contents of the bundle.

    Attributes:
        digest: of the bundle.
        nodes: number of nodes with a label, all parts.
        malignant: number of malignant ones.
        patients: number of patients.
        seed: of the split and of the initial weights.
        folds: number of folds, of the four.
        settings: how each network was trained.
        chosen: the best combination on validation.
        exported: the pair of networks in the bundle.
        reserved: whether the table reserves the test patients; otherwise they are drawn.
    """

    digest: str
    nodes: int
    malignant: int
    patients: int
    seed: int
    folds: int
    settings: TrainSettings
    chosen: str
    exported: str
    reserved: bool


def checklists(contents: BundleContents, facts: StudyFacts) -> str:
    """Return both checklists as Markdown; the authors fill in what no software knows."""
    answers = _answers(contents, facts)
    lists = tomllib.loads(ITEMS.read_text(encoding="utf-8"))
    parts = [
        f"# Checklists for a publication: {contents.name} {contents.version}\n",
        f"The export has filled in what the run knows. {OPEN} marks what the authors must write. Check every line before you submit it.\n",
    ]
    if contents.demonstration:
        parts.append("**The nodes are drawings. No figure below says anything about patients.**\n")
    for guideline in lists.values():
        parts.append(f"## {guideline['title']}\n\n| item | topic | answer |\n|---|---|---|")
        parts.extend(
            f"| {number} | {topic} | {answer[0].format(**answers) if answer else OPEN} |"
            for number, (topic, *answer) in guideline["items"].items()
        )
        parts[-1] += "\n"
    return "\n".join(parts)


def _answers(contents: BundleContents, facts: StudyFacts) -> dict[str, Any]:
    """Return the values that the answers quote, by name."""
    crops, figures, settings = contents.crops, contents.figures, facts.settings
    windows = ", ".join(f"W{width:g} L{centre:g}" for centre, width in crops.windows)
    epoch = "averaged weights" if settings.averaging else "the epoch with the lowest validation loss"
    further = [f"{crops.slices} slices"] * (crops.slices > 1) + ["the attenuation of the blood"] * crops.blood_pool
    return {
        "alnnode": alnnode.__version__,
        "assignment": (
            "The table reserves the test patients; of the others,"
            if facts.reserved
            else f"By patient, with both classes spread evenly, seed {facts.seed}: a fifth tests; of the others,"
        )
        + f" each quarter validates in turn ({facts.folds} of four folds were run).",
        "augmentation": "Crops are mirrored, rotated, shifted and made brighter, darker or noisier; only ASC crops are scaled.",
        "auroc": format_interval(figures.auroc["ensemble"]),
        "chosen": facts.chosen,
        "command": f"`{contents.command}`",
        "crops": (
            f"{crops.pixels} x {crops.pixels} pixels; FSC {crops.fsc_mm:g} mm; ASC box + {crops.asc_margin:.0%} on each side; windows {windows}"
        ),
        "digest": facts.digest[:12],
        "exported": facts.exported,
        "external": EXTERNAL,
        "folds": facts.folds,
        "further_inputs": " and ".join(further) or "no other input",
        "intended_use": "Research" if not contents.demonstration else "Demonstration, not for clinical use",
        "malignant": facts.malignant,
        "networks": ", ".join(f"{contents.architectures[crop]} on the {crop.value.upper()} crop" for crop in Crop),
        "nodes": facts.nodes,
        "patients": facts.patients,
        "preprocessing": "Hounsfield units by the rescale of each image; crops upright in the patient's position; windows scaled to 0 to 1 in 255 steps.",
        "prevalence": f"{contents.prevalence:.0%}",
        "seed": facts.seed,
        "sensitivity": format_interval(figures.sensitivity),
        "software": f"alnnode {alnnode.__version__}, PyTorch {torch.__version__}, MONAI {version('monai')}.",
        "specificity": format_interval(figures.specificity),
        "temperature": f"{contents.temperature:g}",
        "test_malignant": figures.malignant,
        "test_nodes": figures.nodes,
        "test_set": contents.test_set,
        "threshold": f"{figures.threshold:.2f}",
        "training": (
            f"{settings.epochs} epochs of batches of {settings.batch}; AdamW, learning rate {settings.learning_rate:g} in one cycle with "
            f"{WARM_UP:.0%} warm-up, weight decay {settings.weight_decay:g}; {epoch}."
        ),
        "training_data": contents.training_data,
    }
