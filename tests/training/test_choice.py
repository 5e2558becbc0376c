"""Which policy is judged, and on what: the test slice reaches neither training nor choice."""

import jax
import numpy as np

from tests.training.test_job import TINY, train
from ztb_jax import build
from ztb_jax.evaluation import compare
from ztb_jax.features import recipe
from ztb_jax.runs import checkpoint, directory
from ztb_jax.training import evaluate

FAST = ("--ppo.learning-rate", "0.05", "--seed", "0")


def rows(run):
    skip = {"run_id", "seconds", "steps_per_second"}
    return [
        {key: value for key, value in row.items() if key not in skip}
        for row in directory.read_lines(run.windows)
    ]


def trained(tmp_path):
    """A short run, its configuration, its bars and its slices."""
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(TINY)
    assert train(tiny, tmp_path, "--run.id", "one", *FAST) == 0
    run = directory.find(tmp_path / "one")
    config = evaluate.saved_config(run)
    frame = evaluate.load_frame(config)
    return run, config, frame, build.prepare(config, frame, recipe.compute("returns", frame))


def test_the_judged_weights_are_the_best_of_validation_and_know_nothing_of_the_test_slice(
    tmp_path, monkeypatch
):
    run, config, frame, prepared = trained(tmp_path)
    like = jax.eval_shape(build.make_network(config, num_features=1).init, jax.random.key(0))
    restored, _ = checkpoint.restore(run.checkpoints, {"best": like})
    params, counters = restored.trees["best"], restored.plain
    scores = [row["validation_log_growth"] for row in rows(run)]
    assert scores[-1] < max(scores), "the last window must not be the best for this test to see anything"
    scored = compare.log_growth(evaluate.backtest_of(config, prepared, "validation")(params))
    assert scored == max(scores) == counters["best_score"]

    other, stop = frame.copy(), prepared.split.test[0]
    other.iloc[stop:] *= np.random.default_rng(0).uniform(0.9, 1.1, (len(frame) - stop, 1))
    monkeypatch.setattr(evaluate, "load_frame", lambda config: other)
    assert train(tmp_path / "tiny.yaml", tmp_path, "--run.id", "two", *FAST) == 0
    assert rows(directory.find(tmp_path / "two")) == rows(run)
    assert (
        directory.read_json(directory.find(tmp_path / "two").evaluation)["strategies"]
        != (directory.read_json(run.evaluation)["strategies"])
    )


def test_the_listed_trades_are_the_fills_of_the_trace(tmp_path):
    _, config, frame, prepared = trained(tmp_path)
    start, stop = prepared.split.test
    path = np.zeros(stop - 1 - start, np.float32)
    path[5:9] = 1.0
    trace = compare.make_path_backtest()(path, prepared.slices["test"].env_params)
    account = compare.account_of(trace, compare.bars_of(prepared.slices["test"])[0])
    buy, sell = evaluate._trades(prepared, (start, stop), account)
    edge = config.env.half_spread + config.env.slippage
    for trade, side, bar in ((buy, "buy", start + 6), (sell, "sell", start + 10)):
        assert trade.side == side
        assert trade.stamp == frame.index.to_numpy()[bar]
        sign = 1 if side == "buy" else -1
        np.testing.assert_allclose(trade.price, frame["open"].iloc[bar] * (1 + sign * edge), rtol=1e-6)
    np.testing.assert_allclose(buy.size, 1.0, rtol=2e-2)
