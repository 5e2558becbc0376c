"""How often the verdict errs when policies are really trained, on markets whose truth is known.

Every market is cut into train, validation and test slices as a run's is, `SEEDS` policies are trained on it
by PPO, each keeps the window that validation chose, and each is judged on 2,520 untouched bars. At M = 1 the
first policy stands for the market; at M = 10 the market counts as a false edge if any of the ten is called
one. The same rule on the slice that the policies were trained on is shown beside it.

No policy can have an edge on four of the markets: independent normal returns, GARCH with Student's t
innovations, a drift of a Sharpe ratio of 0.6 a year that holding earns, too, and an AR(1) whose predictable
part is far smaller than what a trade costs. On the last one, AR(1) with slope 0.175, following the last
return's sign has a Sharpe ratio of about 2.2 before costs. All cost 1 bp a side but the fourth, 40 bp.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from benchmarks.harness import Row, finish
from ztb_jax import build, schedule
from ztb_jax.config import Config, resolve
from ztb_jax.data import synthetic
from ztb_jax.evaluation import judgement
from ztb_jax.evaluation.backtest import make_path_backtest, make_policy_backtest
from ztb_jax.evaluation.edge import judge_edge
from ztb_jax.features import recipe
from ztb_jax.runs import loop
from ztb_jax.trials import Trials, compile_trials

SIGMA, YEAR = 0.01, 261.0
TEST_BARS = 2520
SEEDS = 10
SETTINGS: Mapping[str, Any] = {
    "features.recipe": "returns",
    "features.lookback": 8,
    "data.embargo_bars": 8,
    "env.half_spread": 0.0,
    "env.slippage": 0.0,
    "policy.width": 32,
    "ppo.num_accounts": 256,
    "ppo.num_minibatches": 8,
    "ppo.learning_rate": 1e-3,
    "ppo.gamma": 0.9,
    "ppo.lam": 0.8,
    "run.window_updates": 4,
    "run.total_env_steps": 131_072,
}


class Kind(NamedTuple):
    """A family of markets.

    Attributes:
      returns: (rng, bars) -> [bars] simple returns.
      cost: one-way, of the notional.
      edge: whether there is any to find.
    """

    returns: Callable[[np.random.Generator, int], np.ndarray]
    cost: float
    edge: bool = False


def _normal(rng: np.random.Generator, bars: int) -> np.ndarray:
    return SIGMA * rng.standard_normal(bars)


def _garch(rng: np.random.Generator, bars: int) -> np.ndarray:
    """GARCH(1, 1) with 0.08 and 0.9, Student's t of 5 degrees of freedom, no drift."""
    noise = rng.standard_t(5, bars) / np.sqrt(5.0 / 3.0)
    moves, variance = np.empty(bars), SIGMA**2
    for bar in range(bars):
        moves[bar] = np.sqrt(variance) * noise[bar]
        variance = 0.02 * SIGMA**2 + 0.08 * moves[bar] ** 2 + 0.9 * variance
    return np.maximum(moves, -0.5)


def _drifting(rng: np.random.Generator, bars: int) -> np.ndarray:
    return _normal(rng, bars) + 0.6 * SIGMA / np.sqrt(YEAR)


def _autocorrelated(slope: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    def returns(rng: np.random.Generator, bars: int) -> np.ndarray:
        moves, last = SIGMA * np.sqrt(1.0 - slope**2) * rng.standard_normal(bars), 0.0
        for bar in range(bars):
            last = moves[bar] = slope * last + moves[bar]
        return moves

    return returns


KINDS: Mapping[str, Kind] = {
    "normal": Kind(_normal, 1e-4),
    "GARCH-t": Kind(_garch, 1e-4),
    "drift": Kind(_drifting, 1e-4),
    "costs": Kind(_autocorrelated(0.1), 4e-3),
    "AR(1)": Kind(_autocorrelated(0.175), 1e-4, edge=True),
}


class Judged(NamedTuple):
    """Labels of a kind's markets. Axes: D markets, S seeds, T bars.

    Attributes:
      single: [D, S] at M = 1, on the test slice.
      many: [D, S] at M = `SEEDS`.
      seen: [D, S] at M = 1, on the train slice.
      sharpe: [D, S] net, a year's, on the test slice.
      returns: [D, S, T] net, on the test slice.
      held: [D, T] of buy-and-hold.
      seconds: that it took.
      env_steps: that were trained.
    """

    single: np.ndarray
    many: np.ndarray
    seen: np.ndarray
    sharpe: np.ndarray
    returns: np.ndarray
    held: np.ndarray
    seconds: float
    env_steps: int


def calibrate(kind: Kind, *, markets: int, seeds: int, first: int = 0, **settings: Any) -> Judged:
    """Draw, train and judge.

    Args:
      kind: of market.
      markets: D, with the seeds `first` and on.
      seeds: S, policies trained on each.
      first: seed of the first market.
      **settings: over `SETTINGS`, with `__` for the dot.
    """
    started = time.perf_counter()
    flags = dict(SETTINGS) | {"env.fee_rate": kind.cost}
    config = resolve(environ={}, flags=flags | {k.replace("__", "."): v for k, v in settings.items()})
    prepared = [_prepared(config, kind, first + number) for number in range(markets)]
    slices = {
        name: _stacked([each.slices[name] for each in prepared]) for name in ("train", "validation", "test")
    }
    env = build.make_environment(config)
    backtest = make_policy_backtest(build.make_network(config, num_features=prepared[0].num_features), env)
    program = compile_trials(
        build.make_learner(config, num_features=prepared[0].num_features),
        slices["train"],
        trials=markets * seeds,
        num_windows=schedule.num_windows(config),
        window_updates=config.run.window_updates,
        backtest=backtest,
        validation=slices["validation"],
    )
    market = np.repeat(np.arange(markets), seeds)
    wanted = Trials(market, np.tile(np.arange(seeds), markets) + 1000 * (first + market))
    labels: dict[str, list[str]] = {"single": [], "many": [], "seen": []}
    ratios, earned = [], []
    play = {name: _player(backtest, data) for name, data in slices.items()}
    hold = {name: _holding(env, data) for name, data in slices.items()}
    for number in range(program.num_chunks):  # a chunk at a time: what is played stays small
        trained = program.run(wanted, number)
        assert trained is not None
        of = market[trained.trials]
        for returns, held in zip(play["test"](trained.params, of), hold["test"][of], strict=True):
            earned.append(returns)
            for name, trials in (("single", 1), ("many", SEEDS)):
                verdict = judge_edge(returns, held, trials=trials, bars_per_year=YEAR)
                labels[name].append(verdict.label)
            ratios.append(verdict.sharpe or 0.0)
        for returns, held in zip(play["train"](trained.params, of), hold["train"][of], strict=True):
            labels["seen"].append(judge_edge(returns, held, trials=1, bars_per_year=YEAR).label)
    shape = (markets, seeds)
    return Judged(
        **{name: np.array(found).reshape(shape) for name, found in labels.items()},
        sharpe=np.array(ratios).reshape(shape),
        returns=np.array(earned).reshape(*shape, -1),
        held=hold["test"],
        seconds=time.perf_counter() - started,
        env_steps=markets * seeds * schedule.target_env_steps(config),
    )


def _prepared(config: Config, kind: Kind, seed: int) -> build.Prepared:
    """A market of which exactly `TEST_BARS` are judged."""
    lookback, embargo = config.features.lookback, config.data.embargo_bars
    bars = round((TEST_BARS + 1) / config.data.test) + 2 * embargo + lookback
    returns = kind.returns(np.random.default_rng([seed, 0]), bars)
    frame = synthetic.from_returns(seed, returns, timeframe="1d")
    # 261 bars a year, as on weekdays.
    frame.index = pd.bdate_range("2000-01-03", periods=bars).as_unit("us")
    prepared = build.prepare(config, frame, recipe.compute(config.features.recipe, frame))
    assert prepared.slices["test"].num_steps == TEST_BARS, prepared.slices["test"].num_steps
    return prepared


def _stacked(datas: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *datas)


def _player(backtest: Callable[[Any, Any], Any], data: Any) -> Callable[[Any, np.ndarray], np.ndarray]:
    """(params [n, ...], markets [n]) -> [n, T] net returns."""
    play = jax.jit(jax.vmap(lambda params, one: backtest(params, one).gain))
    return lambda params, of: np.asarray(play(params, jax.tree.map(lambda leaf: leaf[of], data)), np.float64)


def _holding(env: Any, data: Any) -> np.ndarray:
    """[D, T] net returns of buy-and-hold."""
    play = make_path_backtest(env)
    path = jnp.ones(data.features.shape[1] - data.lookback, jnp.float32)
    return np.asarray(jax.vmap(lambda one: play(path, one.env_params).gain)(data), np.float64)


def run(*, json_file: Path | None, kinds: Sequence[str] | None = None) -> int:
    """Print how often the verdict errs, and how often it finds what is there."""
    loop.use_compilation_cache()
    judged = {}
    for name in kinds or KINDS:
        # Two of a market with an edge: the deflated Sharpe ratio wants to know how trials differ.
        sizes = {"markets": 200, "seeds": 2} if KINDS[name].edge else {"markets": 100, "seeds": SEEDS}
        judged[name] = calibrate(KINDS[name], **sizes)
        print(f"{name}: {judged[name].env_steps / 1e6:,.0f} M steps in {judged[name].seconds:,.0f} s")
    honest = [found for name, found in judged.items() if not KINDS[name].edge]
    rows = []
    for name, found in judged.items():
        if not KINDS[name].edge:
            rows += _errors(name, [found])
    if honest:
        rows += _errors("no edge, all", honest, bars=True)
    if "AR(1)" in judged:
        rows += _found(judged["AR(1)"])
    return finish("Calibration of the verdict, policies trained", rows, json_file=json_file)


def _errors(name: str, found: Sequence[Judged], *, bars: bool = False) -> list[Row]:
    """Markets without an edge: none may be called one."""
    single = np.concatenate([each.single[:, 0] for each in found])
    any_of_ten = np.concatenate([(each.many == "edge").any(axis=1) for each in found])
    unadjusted = np.concatenate([(each.single == "edge").any(axis=1) for each in found])
    seen = np.concatenate([each.seen[:, 0] for each in found])
    sharpe = np.concatenate([each.sharpe[:, 0] for each in found])
    told = ", ".join(f"{label} {count}" for label, count in Counter(single.tolist()).most_common())
    return [
        _share(f"{name}: no false edge, M = 1", single != "edge", 95.0 if bars else None, told),
        _share(
            f"{name}: no false edge, any of {SEEDS} policies, M = {SEEDS}",
            ~any_of_ten,
            98.0 if bars else None,
            f"judged at M = 1: {100.0 * unadjusted.mean():.1f} % have one",
        ),
        _share(
            f"{name}: told so, no edge, M = 1",
            single == "no edge",
            85.0 if bars else None,
            f"mean Sharpe ratio {sharpe.mean():+.2f}",
        ),
        _share(f"{name}: WARNING, an edge on its own train slice", seen == "edge", None, "M = 1"),
    ]


def _found(judged: Judged) -> list[Row]:
    """Markets with an edge, by the first policy of each, at M = 10; and with all evidence beside."""
    many = judged.many[:, 0]
    told = ", ".join(f"{label} {count}" for label, count in Counter(many.tolist()).most_common())
    weighed = [
        judgement.judge(
            returns[0],
            {"buy_and_hold": held, "flat": np.zeros_like(held)},
            trials=SEEDS,
            trial_sharpes=(sharpes / np.sqrt(YEAR)).tolist(),
            bars_per_year=YEAR,
        )["label"]
        for returns, held, sharpes in zip(judged.returns, judged.held, judged.sharpe, strict=True)
    ]
    return [
        _share(
            f"AR(1): edge found, M = {SEEDS}",
            many == "edge",
            90.0,
            f"{told}; mean Sharpe ratio {judged.sharpe[:, 0].mean():.2f}",
        ),
        _share(
            f"AR(1): still one beside deflated Sharpe ratio, bootstrap and SPA, M = {SEEDS}",
            np.array(weighed) == "edge",
            None,
            "of all markets",
        ),
        _share("AR(1): WARNING, an edge on its own train slice", judged.seen[:, 0] == "edge", None, "M = 1"),
    ]


def _share(name: str, hits: np.ndarray, bar: float | None, note: str) -> Row:
    """A share of markets in percent, with its 95 % interval (Clopper and Pearson 1934)."""
    interval: Any = proportion_confint(int(hits.sum()), hits.size, method="beta")
    low, high = map(float, interval)
    return Row(
        name,
        100.0 * hits.mean(),
        "%",
        100.0 * low,
        100.0 * high,
        bar=bar,
        note=f"{hits.size} markets; {note}",
    )
