"""Walk-forward studies through their command, recomputed from what each training left."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.training import studying
from tests.training.studying import VARY, chunks_of, command, result_of, study_in
from ztb_jax import trials
from ztb_jax.cli.main import run
from ztb_jax.config import flattened, resolve
from ztb_jax.evaluation import significance
from ztb_jax.runs import artifacts, directory, ledger, studies
from ztb_jax.training import beside, chunks, evaluate, study, walkforward
from ztb_jax.training.progress import Reporter

CONFIGS, FOLDS, SEEDS = 2, 3, 2
BARS = 1200


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("walked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trials.MOST_AT_ONCE, "cpu", 5)  # so that twelve trainings are three chunks of four
        assert command(root, "walkforward", "--folds", "3", "--seeds", "2", "--id", "wf", *VARY) == 0
    return root


@pytest.fixture(scope="module")
def store(root):
    return study_in(root, "wf")


@pytest.fixture(scope="module")
def result(store):
    return result_of(store)


@pytest.fixture(scope="module")
def frame(store):
    return evaluate.load_frame(
        resolve(environ={}, flags=flattened(json.loads(store.study.read_text())["config"]))
    )


def sharpe(returns, year) -> float:
    returns = np.asarray(returns, np.float64)
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(year))


def equal_capital(accounts) -> list[float]:
    """Returns of money that is spread evenly and left there."""
    money, found = np.full(len(accounts), 1.0 / len(accounts)), []
    for bar in range(len(accounts[0])):
        before = money.sum()
        money = money * (1.0 + np.array([account[bar] for account in accounts]))
        found.append(money.sum() / before - 1.0)
    return found


def total(returns) -> float:
    return math.prod(1.0 + each for each in returns) - 1.0


def number(config: int, fold: int, seed: int) -> int:
    return (config * FOLDS + fold) * SEEDS + seed


def test_every_training_is_told_once(store):
    rows = directory.read_lines(store.trials)
    found, arrays = chunks_of(store)
    assert len(list(store.chunks.iterdir())) == 3
    assert rows == found
    keys = [(row["config"], row["fold"], row["seed"]) for row in rows]
    assert keys == [(c, f, s) for c in range(2) for f in range(3) for s in (3, 4)]
    assert [row["trial"] for row in rows] == list(range(12))
    for row, mine in zip(rows, arrays, strict=True):
        artifacts.check("trial", row)
        (test,) = row["tests"]
        returns = mine["returns_0"][: test["bars"]]
        assert not mine["returns_0"][test["bars"] :].any()
        assert test["total_return"] == pytest.approx(total(returns))
    assert len({row["policy"] for row in rows}) == 12


def test_what_speaks_against_an_edge_was_played_too(store, result):
    """The strategy at doubled costs and with orders a bar late, strung together as it is itself."""
    rows, arrays = chunks_of(store)
    chosen = [fold["configuration"] for fold in result["folds"]]

    def history(kind):
        parts = []
        for fold, config in enumerate(chosen):
            bars = rows[number(config, fold, 0)]["tests"][0]["bars"]
            mine = [arrays[number(config, fold, seed)][f"{kind}_0"][:bars] for seed in range(SEEDS)]
            parts += equal_capital(mine)
        return parts

    evidence = result["edge"]["evidence"]
    assert evidence["doubled_costs"] == pytest.approx(total(history("doubled_costs")))
    assert evidence["doubled_costs"] < total(history("returns"))
    late = np.array(history("late"))
    assert not np.allclose(late, history("returns"))
    assert evidence["latency"] == pytest.approx(significance.mean_test(-late).p_value)


def test_the_orders_were_played_on_shuffled_bars_too(result, store):
    """As they were they are the strategy, but for what is sold and bought again between tests."""
    shuffled, leak = result["controls"]["shuffled"], result["controls"]["leak"]
    with np.load(store.returns) as file:
        strategy, held = file["strategy"], file["baselines/buy_and_hold"]
    assert shuffled["t"] == pytest.approx(significance.alpha_test(strategy, held).t, rel=0.1)
    assert shuffled["draws"] == 100
    passed = ["shuffled bars"] if shuffled["contradicts"] else []
    assert result["edge"]["evidence"]["controls"] == passed
    assert "controls" not in result["edge"]["evidence"]["missing"]
    assert leak["trades"] > 0
    assert leak["p_mean"] < 1e-3


def test_too_few_bars_to_shuffle_are_told_and_old_chunks_refused(root, tmp_path, monkeypatch, capsys):
    shutil.copytree(root, tmp_path / "copy")
    store = study_in(tmp_path / "copy", "wf")
    before = store.result.read_bytes()
    again = ["walkforward", "--resume", str(store.path)]
    with monkeypatch.context() as patch:
        patch.setattr(beside, "FEWEST_BARS", 10_000)
        assert run(again, prog="ztb") == 0
    result = result_of(store)
    assert result["controls"]["shuffled"] is None
    assert result["edge"]["evidence"]["controls"] is None
    assert (
        result["edge"]["evidence"]["missing"]["controls"]
        == f"{result['bars']} bars are too few to judge in any order"
    )
    assert run(again, prog="ztb") == 0
    assert store.result.read_bytes() == before
    for path in store.chunks.glob("*.npz"):
        with np.load(path) as file:
            kept = {name: file[name] for name in file.files if name != "levels_0"}
        told = json.loads(kept["rows.json"].tobytes())
        told["arrays"].remove("levels_0")
        kept["rows.json"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        studies.write_arrays(path, kept)
    assert run(again, prog="ztb") == 2
    assert "was kept without levels_0, by an older version" in capsys.readouterr().err


def test_the_files_are_what_their_schemas_say(store, result):
    artifacts.check("trial", directory.read_lines(store.trials)[0])
    for name, path in (("study", store.study), ("study_result", store.result), ("seal", store.seal)):
        artifacts.parse(name, path.read_bytes())
    told = json.loads(store.study.read_text())
    assert told["members"] == {"000-000": 4}
    assert told["trained"]["env_steps"] == 12 * 1024
    assert result["trainings"] == 12


def test_the_result_is_that_of_the_trainings(store, result, frame):
    rows, arrays = chunks_of(store)
    year = result["bars_per_year"]
    validation = np.array([row["validation_log_growth"] for row in rows]).reshape(CONFIGS, FOLDS, SEEDS)
    chosen = [int(np.argmax(validation[:, fold].mean(axis=1))) for fold in range(FOLDS)]
    assert [fold["configuration"] for fold in result["folds"]] == chosen
    lengths = [rows[number(0, fold, 0)]["tests"][0]["bars"] for fold in range(FOLDS)]

    def stretch(config, fold, seeds):
        accounts = [arrays[number(config, fold, seed)]["returns_0"][: lengths[fold]] for seed in seeds]
        return equal_capital(accounts)

    def history(config_of, seeds):
        return [each for fold in range(FOLDS) for each in stretch(config_of[fold], fold, seeds)]

    strategy = history(chosen, [0, 1])
    assert result["bars"] == len(strategy)
    assert result["strategy"]["total_return"] == pytest.approx(total(strategy))
    assert result["strategy"]["sharpe"] == pytest.approx(sharpe(strategy, year))
    assert result["seeds"]["sharpe"] == pytest.approx([sharpe(history(chosen, [s]), year) for s in (0, 1)])
    assert result["seeds"]["interquartile_mean"] is None
    assert result["paths"] == pytest.approx([sharpe(strategy, year)])
    for config, told in enumerate(result["configurations"]):
        assert told["settings"] == {"ppo.learning_rate": (1e-2, 1e-4)[config]}
        assert told["chosen"] == chosen.count(config)
        assert told["validation_log_growth"] == pytest.approx(validation[config].mean())
        assert told["summary"]["total_return"] == pytest.approx(total(history([config] * 3, [0, 1])))
        alone = [sharpe(history([config] * 3, [seed]), year) for seed in (0, 1)]
        assert told["seeds"]["sharpe"] == pytest.approx(alone)
    close = frame["close"].to_numpy()
    for fold, told in enumerate(result["folds"]):
        assert told["total_return"] == pytest.approx([total(stretch(chosen[fold], fold, [0, 1]))])
        assert told["seeds"] == [
            pytest.approx([total(stretch(chosen[fold], fold, [seed]))]) for seed in (0, 1)
        ]
        start, last = (frame.index.get_loc(pd.Timestamp(each)) for each in told["test"][0])
        moved = close[last] / close[start] - 1.0
        assert told["buy_and_hold"][0] == pytest.approx(moved, abs=2e-3)  # but for the first gap and its cost
        train_end = frame.index.get_loc(pd.Timestamp(told["train"][0][1]))
        chooses = [frame.index.get_loc(pd.Timestamp(each)) for each in told["validation"]]
        assert train_end + 4 < chooses[0] < chooses[1]
        assert chooses[1] + 4 < start
    first, last = (frame.index.get_loc(pd.Timestamp(result[name])) for name in ("first_bar", "last_bar"))
    assert (last - first, last) == (len(strategy), BARS - 1)


def test_returns_can_be_loaded_and_lie_on_their_bars(store, result, frame):
    with np.load(store.returns) as file:
        found = {name: file[name] for name in file.files}
    bars = result["bars"]
    stamps = frame.index[BARS - bars :]
    assert (found["stamps"] == stamps.to_numpy()).all()
    assert found["seeds"].shape == (SEEDS, bars)
    assert found["paths"].shape == (1, bars)
    assert found["configurations"].shape == (CONFIGS, SEEDS, bars)
    assert np.unique(found["stretch"]).tolist() == [0, 1, 2]
    assert total(found["strategy"]) == pytest.approx(result["strategy"]["total_return"])
    moved = frame["close"].to_numpy()[BARS - bars :] / frame["close"].to_numpy()[BARS - bars - 1 : -1] - 1.0
    held = found["baselines/buy_and_hold"]
    assert held[1:] == pytest.approx(moved[1:], abs=1e-4)  # it holds a little more than its equity
    for name, told in result["baselines"].items():
        assert total(found[f"baselines/{name}"]) == pytest.approx(told["total_return"], rel=1e-6)


def test_everything_that_was_looked_at_is_counted(root, store, result):
    rows = ledger.read(root / "scored.jsonl").rows
    assert {row["kind"] for row in rows} == {"walkforward"}
    assert {row["run_id"] for row in rows} == {"wf"}
    assert len(rows) == len({row["policy"] for row in rows}) == CONFIGS * SEEDS + 1
    assert result["edge"]["trials"] == CONFIGS * SEEDS + 1
    assert {row["bars"] for row in rows} == {result["bars"]}
    assert rows[-1]["sharpe"] == pytest.approx(result["strategy"]["sharpe"])
    told = [each for config in result["configurations"] for each in config["seeds"]["sharpe"]]
    assert [row["sharpe"] for row in rows[:-1]] == pytest.approx(told)
    assert len({row["config"] for row in rows[:-1]}) == CONFIGS
    assert rows[-1]["last"] == result["last_bar"].replace(" ", "T") + "Z"


def test_the_same_weights_are_one_policy_whatever_was_trained_beside_them():
    """Digests do not depend on the numbers of trials."""
    from ztb_jax.training.histories import Histories

    class Lone:
        def __init__(self, configs):
            self.shape = (configs, 2, 2)

        def trial(self, config, fold, seed):
            return (config * 2 + fold) * 2 + seed

    def histories(configs, names):
        rows = [{"policy": name} for name in names]
        return Histories(Lone(configs), None, chunks.Finished(rows, []))  # pyright: ignore[reportArgumentType]

    one, two = histories(1, "abcd"), histories(2, "wxyzabcd")
    assert one.policy(np.array([0, 0]), [0, 1]) == two.policy(np.array([1, 1]), [0, 1])
    assert one.policy(np.array([0, 0]), [0]) != one.policy(np.array([0, 0]), [1])
    assert two.policy(np.array([0, 1]), [0]) != two.policy(np.array([1, 0]), [0])


def test_a_finished_study_is_judged_again_to_the_same_bits_without_compiling(
    root, store, monkeypatch, capsys
):
    before = studying.kept(store)

    def never(*_, **__):
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(chunks, "compile_trials", never)
    assert command_resume(store) == 0
    assert studying.kept(store) == before
    assert "M = 5" in capsys.readouterr().out


def command_resume(store, *flags: str, name: str = "walkforward") -> int:
    from ztb_jax.cli.main import run

    return run([name, "--resume", str(store.path), *flags], prog="ztb")


ALWAYS = ("--learner", "random", "--env.levels", "0.999999", "1.0")
COSTS = ("--env.fee-rate", "0.0002", "--env.half-spread", "0.0001", "--env.slippage", "0.0")


@pytest.fixture(scope="module")
def combined(tmp_path_factory):
    """A policy that is always long, on every path through four groups: its returns are known."""
    root = tmp_path_factory.mktemp("combined")
    scheme = ("--scheme", "combinatorial", "--groups", "4", "--held-out", "2", "--seeds", "1")
    flags = ("--data.embargo-bars", "4", "--run.total-env-steps", "512", "--validation", "0")
    assert command(root, "walkforward", *scheme, *flags, *ALWAYS, *COSTS, "--id", "cp") == 0
    return root, study_in(root, "cp")


def test_bars_are_played_when_they_happened_and_seams_cost_what_they_cost(combined):
    """Bought at the open after a group's first close, sold at its last: each bar from prices alone."""
    _, store = combined
    told = json.loads(store.study.read_text())
    frame = evaluate.load_frame(resolve(environ={}, flags=flattened(told["config"])))
    opened, close = (frame[name].to_numpy() for name in ("open", "close"))
    with np.load(store.returns) as file:
        found = {name: file[name] for name in file.files}
    at = frame.index.get_indexer(pd.DatetimeIndex(found["stamps"]))
    assert (np.diff(at) == 1).all()
    wanted = close[at] / close[at - 1] - 1.0
    seams = np.flatnonzero(np.diff(found["stretch"]))
    cost = 0.0001 + 0.0002  # of one trade, to first order
    begins, ends = np.append(0, seams + 1), np.append(seams, len(at) - 1)
    assert len(begins) == 4
    wanted[begins] = close[at[begins]] / opened[at[begins]] * (1.0 - cost) - 1.0
    wanted[ends] = (1.0 + wanted[ends]) * (1.0 - cost) - 1.0
    assert found["strategy"] == pytest.approx(wanted, abs=2e-5)
    for path in found["paths"]:
        assert path == pytest.approx(wanted, abs=2e-5)
    held = found["baselines/buy_and_hold"]
    inside = np.setdiff1d(np.arange(1, len(at)), np.concatenate([begins, ends]))
    assert held[inside] == pytest.approx(wanted[inside], abs=2e-5)


def test_no_test_of_a_combinatorial_fold_is_near_its_training(combined):
    _, store = combined
    result = result_of(store)
    assert len(result["folds"]) == 6
    assert len(result["paths"]) == 3
    assert result["edge"]["trials"] == 1  # one configuration, one seed, and a strategy that is the same
    told = json.loads(store.study.read_text())
    index = evaluate.load_frame(resolve(environ={}, flags=flattened(told["config"]))).index

    def places(ranges):
        return [tuple(index.get_loc(pd.Timestamp(each)) for each in dates) for dates in ranges]

    for fold in result["folds"]:
        for first, last in places(fold["train"]):
            for start, stop in places(fold["test"]):
                # Lookback of four bars: no window of training holds a bar that was played, nor its return.
                assert last <= start or first - 3 > stop


def test_a_page_tells_of_paths_only_where_there_are_several(store, combined):
    assert "<h2>Paths: 3</h2>" in combined[1].report.read_text()
    page = store.report.read_text()
    assert "<h2>Paths" not in page
    assert "<h2>Folds: 3</h2>" in page
    assert page.index('class="word') < page.index("<h2>")


def test_a_training_without_a_policy_stays_flat_and_is_told(tmp_path, capsys):
    gate = ("--learner", "random", "--gates.least-trades", "1.0", "--gates.patience-updates", "1")
    scheme = ("--folds", "2", "--seeds", "1", "--run.total-env-steps", "512", "--id", "g")
    assert command(tmp_path, "walkforward", *scheme, *gate) == 1
    store = study_in(tmp_path, "g")
    result = result_of(store)
    assert (result["without_policy"], result["trainings"]) == (2, 2)
    assert result["stopped"] == {"hold_collapse": 2}
    assert result["strategy"]["total_return"] == 0.0
    rows, arrays = chunks_of(store)
    assert all(row["chosen_window"] is None and row["validation_log_growth"] is None for row in rows)
    assert not any(each[name].any() for each in arrays for name in ("returns_0", "levels_0"))
    assert result["controls"]["shuffled"]["t"] is None
    assert result["edge"]["label"] != "edge"
    out = capsys.readouterr().out
    assert "Gates stopped 2 trainings: hold_collapse 2." in out
    assert "No training brought a policy" in store.report.read_text()


def made(**flags):
    return resolve(environ={}, flags={key.replace("__", "."): value for key, value in flags.items()})


def grouped(*configs, folds: int = 3) -> list:
    return chunks.groups(
        study.Study(configs, (None,) * folds, (0,), None, None, 1.0)  # pyright: ignore[reportArgumentType]
    )


def test_numbers_share_a_program_and_nothing_else_does():
    base, other = made(), made(ppo__gamma=0.5, ppo__learning_rate_schedule=[0.5, 0.1])
    assert grouped(base, other) == [((0, 1), (0, 1, 2))]
    for different in (
        made(env__fee_rate=0.5), made(policy__width=8), made(ppo__epochs=9), made(ppo__target_kl=0.1),
        made(ppo__learning_rate_schedule=[1.0]), made(learner="random"),
    ):  # fmt: skip
        assert grouped(base, different, other) == [((0, 2), (0, 1, 2)), ((1,), (0, 1, 2))]
    measured = made(env__reward="differential_sharpe")
    assert grouped(measured, base, folds=2) == [((0,), (0,)), ((0,), (1,)), ((1,), (0, 1))]


def test_a_plan_has_the_first_bar_of_the_most_demanding_configuration():
    scheme = walkforward.Scheme(vary=("env.volatility_window=50,300",), folds=2)
    config = made(
        data__symbol="synthetic/ar1", features__recipe="returns", data__timeframe="1h",
        data__synthetic_bars=3000, env__volatility_target=0.2, env__episode_bars=64,
    )  # fmt: skip
    planned = walkforward.planned(config, scheme, Reporter())
    assert {fold.train[0][0] for fold in planned.folds} == {300}
