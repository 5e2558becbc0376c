"""The verdict on trained policies, in small: what `python -m benchmarks calibration` measures at length."""

import numpy as np
import pytest

from benchmarks import calibration


@pytest.mark.parametrize(("name", "edge"), [("normal", False), ("AR(1)", True)])
def test_trained_policies_are_judged_by_what_there_is(name, edge):
    """Three markets, two policies each: an edge in all that have one, and in none that has not."""
    found = calibration.calibrate(calibration.KINDS[name], markets=3, seeds=2)
    assert found.returns.shape == (3, 2, calibration.TEST_BARS)
    np.testing.assert_array_equal(found.many == "edge", edge)
    if edge:
        # Following the sign of the last return earns 0.175 sqrt(2 / pi) sqrt(261) = 2.26 before costs.
        assert 1.4 < found.sharpe.mean() < 2.5
    else:
        assert abs(found.sharpe.mean()) < 0.6
