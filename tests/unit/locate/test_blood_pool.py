"""The attenuation of the blood between the lungs tells the contrast phase."""

import numpy as np
import pytest

from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.phantom import PhantomSettings, Phase, make_patient
from training.data.cohort import as_volume


@pytest.mark.parametrize(("phase", "low", "high"), [(Phase.NONE, 20, 70), (Phase.ARTERIAL, 120, 330), (Phase.VENOUS, 100, 200)])
def test_the_blood_pool_follows_the_contrast_phase(phase, low, high) -> None:
    made = make_patient(
        8, 1, PhantomSettings(size=256, spacing_mm=(1.4, 1.6), slices=(40, 40), thickness_mm=(3.0, 3.0), phase=phase)
    )
    found = ChestAnatomy(as_volume(made)).blood_hu
    assert found is not None
    assert low < found < high


def test_images_without_lungs_tell_nothing() -> None:
    made = make_patient(8, 1, PhantomSettings(size=256, spacing_mm=(1.4, 1.6), slices=(8, 8)))
    made.hu[:] = np.int16(40)
    assert ChestAnatomy(as_volume(made)).blood_hu is None
