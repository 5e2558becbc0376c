"""What stands beside a study's strategy: whose orders meet the shuffled bars."""

from types import SimpleNamespace

import numpy as np
import pytest

from ztb_jax.data import folds
from ztb_jax.evaluation import controls
from ztb_jax.training import beside
from ztb_jax.training.chunks import Finished
from ztb_jax.training.histories import Histories, stretches_of
from ztb_jax.training.study import Study

GROUPS, HELD_OUT, CONFIGS, SEEDS = 4, 2, 2, (0, 1)


@pytest.fixture
def histories():
    """Levels that are 100 x the trial's number, and the position of the test range."""
    cut = folds.combinatorial_purged(
        400, groups=GROUPS, held_out=HELD_OUT, first=0, embargo=1, purge=0, validation=0.2
    )
    cut = tuple(fold._replace(test=tuple((a, min(b + 1, 400)) for a, b in fold.test)) for fold in cut)
    # A study without configurations, bars or features: only how its trials are numbered is asked here.
    study = Study((None,) * CONFIGS, cut, SEEDS, None, None, 252.0)  # pyright: ignore[reportArgumentType]
    arrays = [
        {f"levels_{place}": np.full(120, 100.0 * trial + place, np.float32) for place in range(HELD_OUT)}
        for trial in range(study.num_trials)
    ]
    stretches = stretches_of(cut, folds.paths(GROUPS, HELD_OUT))
    return Histories(study, stretches, Finished([], arrays))


def test_in_every_stretch_the_accounts_are_those_of_the_folds_that_test_it(histories, monkeypatch):
    asked = []
    monkeypatch.setattr(
        controls, "shuffled_accounts", lambda levels, *_, **rest: asked.append((levels, rest))
    )
    monkeypatch.setattr(controls, "leak", lambda *_, **rest: SimpleNamespace(_asdict=dict))
    chosen = np.array([0, 1, 1, 0, 1, 0])
    # Nothing is played, so of the market only its length is asked.
    market = beside.OutOfSample(SimpleNamespace(num_steps=399), None, np.zeros(400))  # pyright: ignore[reportArgumentType]
    told = beside.controls_report(histories, chosen, market, trials=3, seed=7)
    assert told == {"shuffled": None, "leak": {}}
    ((levels, rest),) = asked
    assert rest == {"bars_per_year": 252.0, "seed": 7}
    cut = histories.study.folds
    for group, (start, stop) in enumerate(sorted({test for fold in cut for test in fold.test})):
        testing = [fold for fold in range(6) if (start, stop) in cut[fold].test]
        expected = {
            100.0 * ((chosen[fold] * 6 + fold) * 2 + seed) + cut[fold].test.index((start, stop))
            for fold in testing
            for seed in SEEDS
        }
        assert levels[group].shape == (6, stop - start - 1)
        assert set(levels[group][:, 0]) == expected
        assert (levels[group] == levels[group][:, :1]).all()
