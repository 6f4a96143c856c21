import numpy as np
import pytest

from alnnode.imaging import window


def test_ramp_of_the_standard():
    # PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2, white above c - 0.5 + (w - 1) / 2.
    hu = np.array([-200, -160, 39, 40, 239, 240, 3000], dtype=np.int16)
    grey = window.apply(hu, 40, 400)
    assert grey.dtype == np.float32
    expected = [0, 0, 0.5 - 0.5 / 399, 0.5 + 0.5 / 399, 0.5 + 199.5 / 399, 1, 1]
    np.testing.assert_allclose(grey, expected, atol=1e-6)


def test_width_of_one_is_a_step():
    assert window.apply(np.array([[9, 10, 11]], dtype=np.int16), 10, 1).tolist() == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize("width", [0, 0.5, -3, float("nan")])
def test_impossible_width(width):
    with pytest.raises(ValueError, match="at least 1 HU"):
        window.apply(np.zeros(3, dtype=np.int16), 0, width)
