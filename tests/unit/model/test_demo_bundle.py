"""The bundle that comes with the package."""

import json
from pathlib import Path

import numpy as np
import pytest

from alnnode import phantom
from alnnode.imaging.crop import crop_box
from alnnode.model import bundle
from alnnode.model import manifest as manifests
from alnnode.model.ensemble import Ensemble
from training.data.cohort import as_volume
from training.evaluate import roc

ROOT = Path(__file__).parents[3]
FRESH_SEED = 77001  # neither trained on nor in any table


@pytest.fixture(scope="module")
def loaded() -> bundle.Bundle:
    return bundle.load(bundle.resolve("demo"))


def test_it_says_that_it_is_a_demonstration(loaded: bundle.Bundle) -> None:
    assert loaded.identity.demonstration
    assert "synthetic phantoms only" in loaded.identity.training_data
    assert loaded.identity.banner == "DEMONSTRATION MODEL - SYNTHETIC TRAINING DATA - NOT FOR CLINICAL USE"


def test_its_card_is_the_one_in_the_documents_and_holds_its_figures(loaded: bundle.Bundle) -> None:
    card = loaded.contents["model-card.md"].decode()
    assert (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8") == card
    figures = loaded.manifest.provenance["figures"]
    shown = figures["auroc"]["ensemble"]
    assert f"| AUROC, ensemble | {shown['value']:.3f} | {shown['low']:.3f} to {shown['high']:.3f} |" in card
    assert shown["value"] >= 0.9


def test_its_manifest_has_the_byte_form_that_the_digest_stands_for(loaded: bundle.Bundle) -> None:
    raw = (bundle.resolve("demo") / bundle.MANIFEST).read_bytes()
    assert manifests.dump(manifests.Manifest.model_validate(json.loads(raw))) == raw


def test_it_ranks_nodes_of_phantoms_it_never_saw(loaded: bundle.Bundle) -> None:
    crops, labels, patients = [], [], []
    for index in range(3):
        settings = phantom.PhantomSettings(min_nodes_per_side=8, slices=(40, 40), thickness_mm=(3.0, 3.0), metastatic=True)
        made = phantom.make_patient(FRESH_SEED, index, settings)
        for node in made.nodes:
            crops.append(crop_box(as_volume(made), node.box, node.slice_index, loaded.crop_settings))
            labels.append(node.malignant)
            patients.append(str(index))
    found = np.array([prediction.probability for prediction in Ensemble(loaded, "cpu").predict(crops)])
    assert roc.auroc(np.array(labels), found, np.array(patients)).value >= 0.85
