import numpy as np
import pytest

from alnnode.imaging.window import VoiLutFunction, apply_window


def test_ramp_of_the_standard():
    # PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2, white above c - 0.5 + (w - 1) / 2.
    hu = np.array([-200, -160, 39, 40, 239, 240, 3000], dtype=np.int16)
    grey = apply_window(hu, 40, 400)
    assert grey.dtype == np.float32
    expected = [0, 0, 0.5 - 0.5 / 399, 0.5 + 0.5 / 399, 0.5 + 199.5 / 399, 1, 1]
    np.testing.assert_allclose(grey, expected, atol=1e-6)


def test_width_of_one_is_a_step():
    assert apply_window(np.array([[9, 10, 11]], dtype=np.int16), 10, 1).tolist() == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize("width", [0, 0.5, -3, float("nan")])
def test_impossible_width(width):
    with pytest.raises(ValueError, match="at least 1"):
        apply_window(np.zeros(3, dtype=np.int16), 0, width)


def test_linear_exact_and_sigmoid_follow_the_standard():
    # PS3.3 C.11.2.1.3.2: black up to c - w / 2, white above c + w / 2. PS3.3 C.11.2.1.3.1: one half at the centre.
    values = np.array([-160, -60, 40, 240], dtype=np.float32)
    assert apply_window(values, 40, 400, VoiLutFunction.LINEAR_EXACT).tolist() == [0.0, 0.25, 0.5, 1.0]
    grey = apply_window(values, 40, 400, VoiLutFunction.SIGMOID)
    np.testing.assert_allclose(grey, 1 / (1 + np.exp(-4 * (values - 40) / 400)), rtol=1e-6)
    assert apply_window(values, 40, 0.5, VoiLutFunction.SIGMOID).dtype == np.float32
    with pytest.raises(ValueError, match="above 0"):
        apply_window(values, 40, 0, VoiLutFunction.LINEAR_EXACT)
