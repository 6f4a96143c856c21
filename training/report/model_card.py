"""The model card in a bundle (after CHAI, Mitchell et al. 2019), of a model of phantoms or of a hospital's nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from alnnode.records import Crop
from training.evaluate.bundle_metrics import metrics_table

if TYPE_CHECKING:
    from alnnode.imaging.crop import CropSettings
    from training.fit.bundle_contents import BundleContents

LIMITS: Final = "## Limits\n"


@dataclass(frozen=True, slots=True)
class Words:
    """What differs between drawings and patients."""

    notice: str
    locating: str
    made_with: str
    intended_use: str
    held_out: str
    malignant: str
    others: str
    located: str
    limits: str


LOCATING: Final = (
    "a separate 3D network, `detector.safetensors`, trained by `python -m training.detection train` on phantoms, and on the axillae of public CT series "
    "(TCIA, CC BY) with two lay readers' marks and drawn nodes; docs/detection.md names the series"
)
PHANTOMS: Final = Words(
    notice="**Demonstration model, synthetic training data, not for clinical use.** Every figure below was measured on drawings made by "
    "`alnnode phantom`. They say nothing about patients and must not be set beside figures that do.",
    locating=LOCATING,
    made_with=", then `python -m training evaluate --axilla --seed SEED` on any seed that is not one of the above",
    intended_use="showing that the node works, and as a starting point for training on one's own nodes",
    held_out="phantoms",
    malignant="drawn as metastatic",
    others="phantoms that were used for nothing else",
    located="nodes located by truth",
    limits="""- A phantom is a drawing: what separates its classes was put there by whoever drew it, from published distributions.
- Nodes found by the detector have other boxes than the truth; the end-to-end figures are worse than these.
- Nothing is known of scanners, kernels, contrast phases, arms, prostheses or diseases that the phantom does not draw.
""",
)
PATIENTS: Final = Words(
    notice="**Research use only.**",
    locating="`detector.safetensors` of another bundle (its name is in the manifest's provenance); its own card says on what it was trained",
    made_with="",
    intended_use="research at the site whose patients it was trained on, or at a site that has evaluated it",
    held_out="patients",
    malignant="labelled malignant",
    others="patients who were used for nothing else",
    located="nodes located as in the table of the cohort",
    limits="""- The figures are those of one cohort. Other scanners, protocols, diseases and selections of patients have other ones:
  `python -m training cohort evaluate` measures them.
- They are no better than the labels: how each node was matched with its pathology is for the site to say.
- Nodes found by the detector have other boxes than those in the table; the end-to-end figures are worse than these.
""",
)


def card(export: BundleContents) -> str:
    """Return the card as Markdown."""
    crops, figures = export.crops, export.figures
    windows = ", ".join(f"W{width:g} L{centre:g}" for centre, width in crops.windows)
    words = PHANTOMS if export.demonstration else PATIENTS
    return f"""# Model card: {export.name} {export.version}

> {words.notice}

| | |
|---|---|
| task | classify one located axillary lymph node on CT as metastatic or benign |
| method | after Park et al., Current Oncology 2024;31(4):2278; sizes, windows and training are our own choice |
| networks | {export.architectures[Crop.FSC]} on the fixed-size crop (FSC), {export.architectures[Crop.ASC]} on the adjustable-square crop (ASC), both of output stride {export.output_stride}; mean of the calibrated probabilities |
| crops | {crops.pixels} x {crops.pixels} pixels; FSC {crops.fsc_mm:g} mm; ASC box + {crops.asc_margin:.0%} (at least {crops.asc_min_margin_mm:g} mm) on each side; channels {windows}{_further(crops)} |
| calibration | temperature {export.temperature:g}, fitted on validation, where {export.prevalence:.0%} of the nodes are malignant; where fewer are, the probabilities are too high |
| training data | {export.training_data} |
| test data | {export.test_set} |
| locating | {words.locating} |
| made with | `{export.command}`{words.made_with} |
| intended use | {words.intended_use} |
| out of scope | any use for the care of a patient |

## Figures on held-out {words.held_out}

{figures.nodes} nodes ({figures.malignant} {words.malignant}) of {figures.patients} {words.others}; {words.located}.
Intervals: AUROC by DeLong with clusters of patients, the others Wilson's with the patients' design effect.

{metrics_table(figures)}

{" ".join(("The operating point was chosen on validation, not here. The test measures the shipped fp16 weights.", *export.notes))}

{LIMITS}
{words.limits}"""


def _further(crops: CropSettings) -> str:
    """Return what the networks see beside one slice."""
    found = ""
    if crops.slices > 1:
        found += f", each of {crops.slices} slices {crops.slice_step_mm:g} mm apart"
    if crops.blood_pool:
        found += "; one channel with the attenuation of the blood between the lungs, which tells the contrast phase"
    return found
