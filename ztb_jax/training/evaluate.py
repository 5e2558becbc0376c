"""`python -m ztb_jax.training.evaluate RUN`: judge a run's saved policy on a slice, and write the report."""

import dataclasses
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from ztb_jax import build
from ztb_jax.cli.tables import growth
from ztb_jax.config import Config, as_dict, layered
from ztb_jax.data.cache import default_cache_dir
from ztb_jax.data.frame import content_hash
from ztb_jax.data.load import SYNTHETIC, load_bars
from ztb_jax.errors import RunError, UserError
from ztb_jax.evaluation import compare, judgement, report, report_stress, targets
from ztb_jax.evaluation.backtest import Trace, make_policy_backtest
from ztb_jax.evaluation.verdict import SEEN, verdict_sentence
from ztb_jax.features import own, recipe
from ztb_jax.runs import checkpoint, directory, ledger
from ztb_jax.training import previous, provenance, run_seal, scoring
from ztb_jax.training.progress import Reporter

BEST = "best"  # the tree of a checkpoint that holds the weights to judge
STALE_OPENS = 0.1  # share of opens equal to the close before from which a reader is told


def load_frame(config: Config) -> pd.DataFrame:
    """The bars that a configuration names."""
    data = config.data
    cache_dir = default_cache_dir() if data.cache_dir is None else data.cache_dir
    return load_bars(
        data.symbol,
        data.timeframe,
        cache_dir=Path(cache_dir).expanduser(),
        start=data.start,
        end=data.end,
        synthetic_bars=data.synthetic_bars,
        seed=config.seed,
    )


def saved_config(run: directory.RunDirectory, flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration that `run` was made with; `flags` say where its prices and its devices are by now.

    What contradicts itself was settled when the run was made, so that no later rule locks a run out.
    """
    directory.read_json(run.config)  # as YAML an empty file would be all defaults
    return layered(file=run.config, environ={}, flags=flags or {})


def own_facts(config: Config, prepared: build.Prepared) -> dict[str, Any]:
    """What a run on a user's own features depends on besides: SHA-256 of their file and of what it made.

    The second tells of what the file imports, too. Empty for a built-in recipe, which is among our sources.
    """
    if not own.is_own(config.features.recipe):
        return {}
    made = hashlib.sha256()
    for name in sorted(prepared.slices):
        made.update(np.asarray(prepared.slices[name].features).tobytes())
    file = own.load(config.features.recipe).sha256
    return {"recipe_file": file, "recipe_features": made.hexdigest()}


def backtest_of(config: Config, prepared: build.Prepared, name: str):
    """(params) -> Trace of the deterministic policy on the slice `name`."""
    policy = build.make_network(config, num_features=prepared.num_features)
    run = make_policy_backtest(policy, build.make_environment(config, measured=prepared.measured))
    return lambda params: jax.device_get(run(params, prepared.slices[name]))


def judge(
    run: directory.RunDirectory,
    reporter: Reporter,
    *,
    slice_name: str = "test",
    flags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate the saved policy of `run` and write `evaluation.json` and `report.html`.

    A run that has ended tells the new label in its metadata, too; one under way tells its own when it ends.

    Args:
      run: the run.
      reporter: told the phases.
      slice_name: "test", or another slice to look at, which goes to files of its own; only the test slice was
        kept from every choice.
      flags: settings that say where things are by now, by dotted key: data.cache_dir and run.ledger.

    Returns:
      What `evaluation.json` holds.

    Raises:
      RunError: the run has no checkpoint, its data have changed, or the scoring cannot be recorded.
    """
    config = saved_config(run, flags)
    reporter.phase("loading", f"{config.data.symbol} {config.data.timeframe}")
    metadata = directory.read_json(run.metadata)
    try:
        settings, bars = metadata["config_sha256"], metadata["data"]["content_hash"]
    except (KeyError, TypeError):
        raise RunError(
            f"{run.metadata} lacks what a run knows of itself: restore it, or train again"
        ) from None
    if directory.sha256(run.config) != settings:
        raise RunError(f"{run.config} is not the one the run was made with: restore it, or train again")
    frame = load_frame(config)
    if content_hash(frame) != bars:
        raise RunError(
            f"the bars of {config.data.symbol} {config.data.timeframe} are not those that {run.path} was "
            "trained on: import that version of the file again, or train again"
        )
    reporter.phase("indicators", config.features.recipe)
    prepared = build.prepare(config, frame, recipe.compute(config.features.recipe, frame))
    made = own_facts(config, prepared).get("recipe_features")
    if made is not None and made != run_seal.read_seal(run.seal).metadata.get("recipe_features"):
        raise RunError(
            f"features {config.features.recipe} are not those that {run.path} was trained on: restore that "
            "version of the file, or train again"
        )
    result = judge_prepared(run, reporter, config, prepared, slice_name=slice_name)
    label = result["edge"]["label"]
    if slice_name == "test" and metadata.get("status") != "running" and metadata.get("edge") != label:
        with directory.locked(run):
            directory.write_json(run.metadata, directory.read_object(run.metadata) | {"edge": label})
    return result


def judge_prepared(
    run: directory.RunDirectory,
    reporter: Reporter,
    config: Config,
    prepared: build.Prepared,
    *,
    slice_name: str = "test",
) -> dict[str, Any]:
    """`judge` for a market that is at hand; the metadata are the caller's to bring up to date."""
    reporter.phase("evaluate", f"{slice_name} slice, net of costs, beside the baselines")
    network = build.make_network(config, num_features=prepared.num_features)
    like = jax.eval_shape(network.init, jax.random.key(0))
    restored, passed_over = checkpoint.restore(run.checkpoints, {BEST: like})
    for each in passed_over:
        reporter.say(f"{'evaluate':<11}{each}: passed over")
    params = restored.trees[BEST]
    data = prepared.slices[slice_name]
    traces = {"policy": backtest_of(config, prepared, slice_name)(params)}
    env = build.make_environment(config, measured=prepared.measured)
    start, stop = getattr(prepared.split, slice_name)
    close = prepared.frame["close"].to_numpy(np.float64)[:stop]
    beside = compare.play_baselines(data, env, seed=config.seed, close=close, policy=traces["policy"])
    traces |= beside.traces
    row = scoring.row_of(
        run, config, prepared, slice_name=slice_name, params=params, returns=traces["policy"].gain
    )
    before = _previous_best(run, reporter, config, prepared, row)
    if before is not None:
        traces["previous_best"] = before
    gap, _ = compare.bars_of(data)
    accounts = {name: compare.account_of(trace, gap) for name, trace in traces.items()}
    metrics = {name: compare.summarise(account, prepared.bars_per_year) for name, account in accounts.items()}
    verdict = scoring.judge(
        run, reporter, config, prepared, slice_name=slice_name, params=params, accounts=accounts, row=row
    )
    stamps = pd.DatetimeIndex(prepared.frame.index)
    result = {
        "run_id": run.id,
        "symbol": config.data.symbol,
        "timeframe": config.data.timeframe,
        "slice": slice_name,
        "first_bar": str(stamps[start]),
        "last_bar": str(stamps[stop - 1]),
        "bars": stop - 1 - start,
        "bars_per_year": prepared.bars_per_year,
        "chosen_window": restored.plain["best_window"],
        "beats_buy_and_hold": bool(accounts["policy"].equity[-1] > accounts["buy_and_hold"].equity[-1]),
        "verdict": verdict_sentence(metrics, slice_name=slice_name, judged=True),
        "edge": verdict.edge,
        "stress": verdict.stress,
        "targets": [
            target
            for phase in ("phase 1", targets.OVERALL)
            for target in targets.targets(metrics["policy"], phase=phase)
        ],
        "notes": [*verdict.notes, *_notes(run, config, prepared), *_luck(beside.luck, slice_name)],
        "strategies": metrics,
    }
    strategies = {
        name: report.Strategy(account.equity, account.exposure, metrics[name])
        for name, account in accounts.items()
    }
    page = dataclasses.replace(
        _page(run, config, prepared, slice_name=slice_name),
        strategies=strategies,
        notes=result["notes"],
        edge=result["edge"],
        targets=result["targets"],
        stress=result["stress"],
        trades=_trades(prepared, (start, stop), accounts["policy"]),
    )
    result_file, page_file = run.results(slice_name)
    directory.write_json(result_file, result)
    directory.write_text(page_file, report.render(page))
    return result


def _previous_best(run, reporter, config, prepared, row) -> Trace | None:
    """What the best run before this one does on the same bars, at this one's costs; None without one."""
    rows = ledger.read(ledger.place(run.path.resolve().parent, config.run.ledger)).rows
    for name in previous.best_first(run, rows, row):
        other = directory.RunDirectory(run.path.resolve().parent / name)
        try:
            return _played_beside(other, config, prepared, row["slice"])
        except (UserError, ValueError) as error:
            reporter.say(f"{'evaluate':<11}{name}, the best run before, cannot be played any more: {error}")
    return None


def _played_beside(other: directory.RunDirectory, config, prepared, slice_name: str) -> Trace:
    theirs = saved_config(other)
    market = build.prepare(theirs, prepared.frame, recipe.compute(theirs.features.recipe, prepared.frame))
    if getattr(market.split, slice_name) != getattr(prepared.split, slice_name):
        raise ValueError("its slices are others")
    network = build.make_network(theirs, num_features=market.num_features)
    like = jax.eval_shape(network.init, jax.random.key(0))
    restored, _ = checkpoint.restore(other.checkpoints, {BEST: like})
    data = market.slices[slice_name]
    costs = prepared.slices[slice_name].env_params.costs
    market.slices[slice_name] = data.replace(env_params=data.env_params.replace(costs=costs))
    return backtest_of(theirs, market, slice_name)(restored.trees[BEST])


def print_result(result: dict[str, Any]) -> None:
    """The verdict and the table, for a person, on standard output."""
    strategies = result["strategies"]
    columns = (
        ("total return", "total_return", growth),
        ("annual return", "annual_return", growth),
        ("Sharpe", "sharpe", "{:.2f}".format),
        ("drawdown", "max_drawdown", "{:.1%}".format),
        ("turnover/year", "turnover", "{:,.1f}".format),
        ("trades", "num_trades", "{:,.0f}".format),
        ("costs", "fees_paid", growth),
    )
    rows = [["", *(label for label, _, _ in columns)]]
    for name, metrics in strategies.items():
        cells = ["–" if metrics[key] is None else form(metrics[key]) for _, key, form in columns]
        rows.append([name.replace("_", " "), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "",
        f"{result['symbol']} {result['timeframe']}, {result['slice']} slice {result['first_bar']} to "
        f"{result['last_bar']}, {result['bars']} bars, net of costs",
    ]
    for name, *cells in rows:
        texts = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([f"{name:<{widths[0]}}", *texts]))
    verdict = [*judgement.in_words(result["edge"]), targets.line(result["targets"])]
    if result["stress"] is not None:
        verdict.append(report_stress.line(result["stress"]))
    sys.stdout.write("\n".join([*lines, "", result["verdict"], *verdict, *result["notes"], ""]) + "\n")


def _page(run, config, prepared, *, slice_name: str) -> report.Report:
    """The report but for what the accounts did."""
    start, stop = getattr(prepared.split, slice_name)
    stamps = prepared.frame.index.to_numpy()
    metadata = directory.read_json(run.metadata)
    return report.Report(
        run_id=run.id,
        symbol=config.data.symbol,
        timeframe=config.data.timeframe,
        slice_name=slice_name,
        bars_per_year=prepared.bars_per_year,
        stamps=stamps[start:stop],
        price=prepared.frame["close"].to_numpy()[start:stop],
        strategies={},
        learning=_learning(run, metadata),
        slices=[
            report.Slice(name, stamps[a], stamps[b - 1], b - a)
            for name, (a, b) in prepared.split._asdict().items()
        ],
        data=metadata["data"],
        config=as_dict(config),
        environment=metadata["environment"],
        gates=provenance.gates_of(run, config),
        seal=provenance.seal_of(run, config, metadata),
    )


def _notes(run, config, prepared) -> list[str]:
    """What a reader must know to believe the figures as far as they go, and no further."""
    metadata = directory.read_json(run.metadata)
    notes = []
    done, planned = metadata["env_steps_total"], metadata["target_env_steps"]
    if done < planned:
        why = metadata["halt_reason"] or "it did not finish"
        notes.append(f"Training ended at {done / planned:.0%} of the planned steps: {why}.")
    if config.learner != "random" and metadata["best_window"] == 0 and metadata["windows_emitted"] > 1:
        notes.append("The policy is the first window's: on the validation slice no later one did better.")
    return notes + _stale_opens(config, prepared)


def _luck(luck: compare.Luck | None, slice_name: str) -> list[str]:
    """Whether its timing beats chance; nothing on bars that made it, or where chance has no choice."""
    if luck is None or slice_name in SEEN or (luck.accounts == luck.growth).all():
        return []
    count = luck.accounts.size
    return [
        f"In random orders, its own positions grew less in {round(luck.below * count)} of {count} accounts "
        f"(p = {luck.p_value:.2f})."
    ]


def _stale_opens(config, prepared) -> list[str]:
    """A note when many opens are the close before, or bars have one price: the fills there are idealised."""
    if config.data.symbol.startswith(SYNTHETIC):
        return []
    bars = {name: prepared.frame[name].to_numpy() for name in ("open", "high", "low", "close")}
    no_gap = np.append(False, bars["open"][1:] == bars["close"][:-1])
    one_price = (bars["high"] == bars["low"]) & (bars["open"] == bars["close"])
    shares = {
        name: float((no_gap | one_price)[start:stop].mean())
        for name, (start, stop) in prepared.split._asdict().items()
    }
    if max(shares.values()) <= STALE_OPENS:
        return []
    told = ", ".join(f"{share:.0%} of the {name} bars" for name, share in shares.items())
    return [
        f"The open is the close before, or a bar has one price, on {told}: fills there may be optimistic."
    ]


def _trades(prepared, bounds, account: compare.Account) -> list[report.Trade]:
    """Every fill in order, its size over the equity that the bar left, its cost over the one before."""
    start, stop = bounds
    stamps = prepared.frame.index.to_numpy()[start + 1 : stop]
    opened = prepared.frame["open"].to_numpy()[start + 1 : stop]
    return [
        report.Trade(
            stamp=stamps[n],
            side="buy" if account.traded[n, fill] > 0 else "sell",
            size=float(abs(account.traded[n, fill]) / account.equity[n + 1]),
            price=float(opened[n] * account.price[n, fill]),
            cost=float(account.costs[n, fill] / account.equity[n]),
        )
        for n, fill in np.argwhere(account.traded)
    ]


def _learning(run, metadata) -> report.LearningCurve | None:
    rows = directory.read_lines(run.windows)
    if not rows:
        return None
    return report.LearningCurve(
        windows=np.array([row["window_id"] for row in rows]),
        train_reward=np.array([row["reward_mean"] for row in rows]),
        validation_score=np.array([row["validation_log_growth"] for row in rows]),
        chosen=metadata["best_window"],
    )


if __name__ == "__main__":
    from ztb_jax.cli.main import run as run_command

    sys.exit(run_command(["evaluate", *sys.argv[1:]], prog="python -m ztb_jax.training.evaluate"))
