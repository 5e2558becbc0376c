"""What `reset(options=…)` of the gymnasium adapters takes, and what it refuses."""

import re

import numpy as np
import pytest

from envs import actions
from envs.adapters import TASKS
from envs.adapters_options import fixed
from envs.portfolio import Draw
from envs.types import Actions
from tests.envs.test_adapters_gymnasium import COMPONENTS, PLAIN, PORTFOLIO, single, vector


@pytest.mark.parametrize(
    ("options", "findings"),
    [
        ({"start": 151.5}, ["whole numbers between 15 and 4089, got 151.5"]),
        ({"start": np.nan, "level": np.nan}, ["start must be whole numbers", "level must be one of"]),
        ({"level": 7.0, "bar": 3}, [r"one of \[-1.0, 0.0, 1.0\], got 7.0", "bar is not known"]),
        ({"level": 0.5}, ["level must be one of"]),
        (
            {"level": "all", "start": [1, 2]},
            ["level must be numbers", r"start must be numbers of shape \(1,\)"],
        ),
    ],
)
def test_refuses_options_that_no_draw_could_have(options, findings):
    one = single(PLAIN)
    with pytest.raises(ValueError, match="options do not fit") as error:
        one.reset(options=options)
    for finding in findings:
        assert re.search(finding, str(error.value)), str(error.value)
    for weights in (np.nan, 50.0, [0.0, 0.0, np.inf, 0.0]):
        with pytest.raises(ValueError, match=r"weights must be from -1.0 to 1.0"):
            single(PORTFOLIO).reset(options={"weights": weights})


def test_any_holding_within_the_bounds_may_be_started_with():
    boxed = single(TASKS["Trading-v0"](actions=actions.continuous(low=-2.0, high=0.3)))
    for level in (-2.0, -0.7, 0.0, np.float32(0.3)):
        boxed.reset(options={"level": level})
    for level in (-2.01, 0.31, np.inf):
        with pytest.raises(ValueError, match=r"level must be from -2.0 to 0.3"):
            boxed.reset(options={"level": level})
    single(TASKS["Trading-v0"](actions=COMPONENTS)).reset(options={"level": -0.5})
    vector(PORTFOLIO, 2).reset(options={"weights": [[0.2, -0.3, 1.0, 0.0]] * 2, "start": 99.0})


def test_weights_that_actions_only_lead_to_have_either_sign():
    space = Actions(decode=lambda action: action, shape=(3,), low=0.0, high=1.0)
    drawn, params = Draw(np.zeros(1, np.int32), np.zeros((1, 1, 2), np.float32)), PORTFOLIO.params
    found = fixed(drawn, {"weights": [-0.4, 0.9]}, space, params, episode_bars=6)
    np.testing.assert_array_equal(found["weights"], np.float32([[[-0.4, 0.9]]]))
    with pytest.raises(ValueError, match=r"weights must be from -1.0 to 1.0"):
        fixed(drawn, {"weights": [-1.4, 0.9]}, space, params, episode_bars=6)
    with pytest.raises(ValueError, match=r"weights must be from 0.0 to 1.0"):
        fixed(drawn, {"weights": -0.1}, space._replace(shape=(2,)), params, episode_bars=6)
