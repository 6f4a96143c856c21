"""The HTML page: it shows all metrics, needs no other file, and escapes names."""

import re

import numpy as np

from alnnode.records import Interval
from training.data.cohort import Cohort
from training.evaluate import grad_cam
from training.report import page, preprocessing_picture


def test_the_page_holds_what_was_found_and_needs_no_other_file() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 0
    crops = rng.integers(0, 255, (60, 1, 1, 8, 8), np.uint8)
    patients = np.array([f"P{n // 3}" for n in range(60)])
    cohort = Cohort(crops, crops, labels, patients, rng.uniform(4, 15, 60).astype(np.float32))
    probability = np.clip(0.5 + 0.3 * (2 * labels - 1) + rng.normal(0, 0.2, 60), 0.01, 0.99)
    probability[0] = 0.001  # malignant, with a very low probability
    shares = grad_cam.CamEnergy(
        {"node": Interval(0.75, 0.7, 0.8), "margin": Interval(0.25, 0.2, 0.3)}, {"node": 3.0, "margin": 1.0}, 55
    )
    empty = grad_cam.energy_by_region(np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 8), np.intp), np.array(["a"]))
    found = page.render_page(
        page.Evaluation(
            "a <b>bundle</b>", "drawings", cohort, {"ensemble": probability, "short axis alone": cohort.short_axis}, 0.4,
            {"side": np.where(np.arange(60) < 30, "left", "right")}, {"FSC": shares, "ASC": empty}, {"FSC": 0.12, "ASC": float("nan")},
        )
    )  # fmt: skip
    assert "a &lt;b&gt;bundle&lt;/b&gt;" in found
    assert not re.search(r"(src|href)=['\"](?!data:)", found)
    assert "The decision curve shows the net benefit" in found
    assert "60 nodes (30 malignant) of 20 patients" in found
    text = re.sub(r"<[^>]+>", "|", found)
    for said in ("0.75 [0.70-0.80] (3.0)", "|55|", "|0.12|", "side: left", "short axis alone", "0.40", "Youden"):
        assert said in text
    assert not re.search(r"\bnan\b", re.sub(r"\"data:[^\"]*\"", "", found))
    assert "|ASC||-||-|" in text
    assert "nodes with a map" in text
    assert found.count("data:image/png;base64,") == 2


def test_the_steps_are_drawn(tmp_path) -> None:
    preprocessing_picture.draw_preprocessing(tmp_path / "steps.png")
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
