"""``python -m training.fit.levels``: fit the model of axillary levels on phantoms and write it into the settings of a detector."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from sklearn.linear_model import LogisticRegression

from alnnode import phantom
from alnnode.locate.anatomy import find_chest
from alnnode.locate.axillary_level import ORDER, PLACES, Landmarks, LevelModel, terms
from alnnode.locate.detector import DetectorSettings
from alnnode.locate.grid import Frame, coarsen
from alnnode.phantom import PhantomSettings
from training.data.cohort import as_volume

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Texts = npt.NDArray[np.str_]

CROWDED = PhantomSettings(min_nodes_per_side=7)  # the model learns positions, so each phantom has many nodes
DIGITS = 5


def places_of(index: int, seed: int, folder: Path) -> Path:
    """Write the places and levels of all nodes of one phantom to ``folder``, unless the file exists, and return its path."""
    path = folder / f"levels-{seed}-{index}.npz"
    if path.exists():
        return path
    made = phantom.make_patient(seed, index, CROWDED)
    volume = as_volume(made)
    frame = Frame.of(volume)
    coarse = coarsen(frame.canonical(volume.voxels), frame.spacing)
    chest = find_chest(coarse)
    rows, levels = np.zeros((0, PLACES)), []
    if chest is not None and made.nodes:
        landmarks, labels = Landmarks(coarse, chest), frame.canonical(made.labels)
        centres = [np.argwhere(labels == node.number).mean(axis=0) for node in made.nodes]
        rows = np.stack([landmarks.place(*map(float, centre)) for centre in centres])
        levels = [node.level.value for node in made.nodes]
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, places=rows, levels=np.array(levels, "U3"))
    part.replace(path)
    return path


def collect(seed: int, patients: int, folder: Path, processes: int) -> tuple[Floats, Texts]:
    """Return the places (n, `PLACES`) and levels (n,) of all nodes of a cohort."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        paths = list(pool.map(partial(places_of, seed=seed, folder=folder), range(patients)))
    parts = [np.load(path) for path in paths]
    return np.concatenate([part["places"] for part in parts]), np.concatenate([part["levels"] for part in parts])


def fit(places: Floats, levels: Texts) -> LevelModel:
    """Return the model fitted on places (n, `PLACES`) and levels (n,) "I" to "III"; every level must occur."""
    mean, scale = np.round(places.mean(axis=0), DIGITS), np.round(places.std(axis=0), DIGITS)
    inputs = np.stack([terms((place - mean) / scale) for place in places])
    model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=5000).fit(inputs, levels)
    weights = {str(name): tuple(np.round(row, DIGITS).tolist()) for name, row in zip(model.classes_, model.coef_, strict=True)}
    return LevelModel(tuple(mean.tolist()), tuple(scale.tolist()), tuple(weights[level.value] for level in ORDER))


def train(
    detector: Annotated[Path, typer.Option(help="Folder of detector.json, into which the model is written.")],
    work: Annotated[Path, typer.Option(help="Cache folder of the places; a second run resumes from it.")] = Path("runs/levels"),
    seed: Annotated[int, typer.Option(help="Seed of the training phantoms; the next seed is for the test phantoms.")] = 6000,
    patients: Annotated[int, typer.Option(help="Training phantoms.")] = 40,
    held_out: Annotated[int, typer.Option(help="Test phantoms.")] = 15,
    processes: Annotated[int, typer.Option(help="Number of parallel processes.")] = 2,
) -> None:
    """Fit the model of axillary levels, print its accuracy on held-out phantoms, and write it into the settings of the detector."""
    model = fit(*collect(seed, patients, work, processes))
    places, levels = collect(seed + 1, held_out, work, processes)
    predicted = [model.level(place) for place in places]
    right = sum(one is not None and one.value == level for one, level in zip(predicted, levels, strict=True))
    known = sum(one is not None for one in predicted)
    print(
        f"{len(levels)} nodes of {held_out} phantoms: level predicted for {known}, correct for {right} ({right / known:.3f} of those predicted)"
    )
    path = detector / "detector.json"
    settings = DetectorSettings.from_dict(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(replace(settings, levels=model).to_dict(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(train)
