"""The promised classes: keys and defaults of the documents, what they mean, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.adapters import GymnasiumVectorEnv
from envs.hierarchy_market import momentum, with_signals
from envs.protection import STOP
from envs.specialists import account_layout, account_view, make_partition
from ztb_jax.data import synthetic
from ztb_jax.data.market import MarketData
from ztb_jax.errors import ConfigError, DataError
from ztb_jax.training.environments import (
    JointSettings,
    JointTrainingEnv,
    MetaControllerTrainingEnv,
    MetaSettings,
    SpecialistSettings,
    SpecialistTrainingEnv,
    read,
)

TWO = {"instruments": ["EURUSD", "XAUUSD"], "episode_length": 6}
FRAMES = {name: synthetic.gbm(seed, 140, timeframe="1d") for seed, name in enumerate(("EURUSD", "XAUUSD"))}


def follow(bars):
    return momentum(bars.closed, window=5)


def meta(config=None, data=FRAMES, **options):
    return MetaControllerTrainingEnv({**TWO, **(config or {})}, data, **{"specialists": follow} | options)


def joint(config=None, data=FRAMES, **options):
    return JointTrainingEnv({**TWO, **(config or {})}, data, **options)


def single(config=None, data=FRAMES, **options):
    return SpecialistTrainingEnv({"episode_length": 6, **(config or {})}, data, **options)


def test_keys_and_defaults_are_those_of_the_documents():
    common = {
        "episode_length": 1000,
        "warmup_steps": 50,
        "initial_capital": 100000.0,
        "transaction_cost": 0.003,
        "max_position_size": 0.1,
    }
    eight = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "WTIUSD", "SPX500", "NAS100", "US30")
    limits = {"max_portfolio_var": 0.02, "max_correlation_exposure": 0.7, "max_sector_allocation": 0.4}
    flags = {"gradient_coordination": True, "curriculum_learning": True}
    assert vars(read(SpecialistSettings, {})) == common | {"instrument": "EURUSD", "stop_loss_pct": 0.02}
    assert vars(read(MetaSettings, {})) == common | {"instruments": eight} | limits
    assert vars(read(JointSettings, {})) == common | {"instruments": eight} | limits | flags


@pytest.mark.parametrize("make", [single, meta, joint], ids=lambda make: make.__name__)
def test_passes_gymnasiums_checks_and_tells_equity_in_money(make):
    env = make({"initial_capital": 5000.0})
    check_env(env, skip_render_check=True)
    _, info = env.reset(seed=0)
    assert info["equity"] == 5000.0
    assert info["bar"] >= 50
    for step in range(6):
        _, _, _, truncated, info = env.step(env.action_space.sample())
        assert truncated == (step == 5)
    assert info["equity"] != 5000.0


def test_settings_reach_the_parameters():
    costly = {"transaction_cost": 0.001, "max_position_size": 0.3, "warmup_steps": 110}
    limits = {"max_portfolio_var": 0.05, "max_correlation_exposure": 0.8, "max_sector_allocation": 0.6}
    params = joint(costly | limits).task.params
    assert float(params.costs.fee_rate) == np.float32(0.001)
    assert int(params.first) == 110
    bound = params.limits
    told = (bound.max_weight, bound.max_portfolio_var, bound.max_correlation_exposure)
    assert (*told, bound.max_sector_allocation) == tuple(map(np.float32, (0.3, 0.05, 0.8, 0.6)))
    assert int(joint().task.params.first) == 100, "the window of the limits comes first"
    env = single({"warmup_steps": 90})
    assert int(env.task.params.first) == 90
    assert int(single({"warmup_steps": 0}, lookback=3).task.params.first) > 20, "indicators warm up"
    assert env.task.env.episode_bars == 6
    flags = joint({"curriculum_learning": False}).settings
    assert (flags.curriculum_learning, flags.gradient_coordination) == (False, True)


def test_an_instrument_never_holds_more_than_its_largest_position():
    env = joint({"max_portfolio_var": 0.9, "max_correlation_exposure": 1.0, "max_sector_allocation": 9.0})
    env.reset(seed=0)
    layout = account_layout(make_partition(instruments=TWO["instruments"]))
    seen, *_ = env.step(np.ones(5, np.float32))
    view = account_view(seen[-env.task.env.account_size :], layout)
    np.testing.assert_allclose(view.level, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(view.exposure, [0.1, 0.1], rtol=0.1)


def test_the_specialists_stop_and_position_are_real():
    env = single({"stop_loss_pct": 0.004, "transaction_cost": 0.0})
    env.reset(seed=1, options={"level": 0.0})
    stopped = 0
    for seed in range(4):
        env.reset(seed=seed, options={"level": 0.0})
        for _ in range(6):
            seen, _, _, _, info = env.step(2)
            assert abs(seen[-4]) <= 0.1 * 1.1
            stopped += info.get("exit", {}).get("reason") == STOP
            if "fill" in info:
                assert abs(info["fill"]["traded"]) == pytest.approx(0.1, rel=0.1)
    assert stopped > 3


def test_the_meta_environment_plays_the_specialists_given():
    bars = []

    def none(aligned):
        bars.append(aligned)
        return np.zeros(aligned.closed.shape)

    env = meta(specialists=none, macro=lambda aligned: np.ones((len(aligned.closed), 2)))
    assert bars[0].names == ("EURUSD", "XAUUSD")
    assert env.task.features.shape == (140, 1 + 2 + 2 * 8)
    np.testing.assert_array_equal(env.task.features[:, 1:3], 1.0)
    env.reset(seed=0, options={"weights": np.zeros(2)})
    for _ in range(3):
        *_, info = env.step(np.ones(3, np.float32))
    assert info["equity"] == 100000.0


def test_ready_data_are_played_by_the_configurations_costs_and_limits():
    task = meta().task
    ready = MarketData(task.features, task.params, jnp.float32(1), 1)
    env = meta({"transaction_cost": 0.0}, ready, specialists=None)
    assert float(env.task.params.costs.fee_rate) == 0.0
    assert env.task.params.market is task.params.market
    alone = single().task
    again = single({"max_position_size": 0.5}, MarketData(alone.features, alone.params, jnp.float32(1), 1))
    assert float(again.task.params.market.scale[0]) == 0.5
    assert isinstance(joint(data=ready).task.params.limits.max_weight, np.float32)
    for make, data, message in (
        (meta, ready, "only with them"),
        (joint, MarketData(alone.features, alone.params, jnp.float32(1), 1), "PortfolioMarket"),
    ):
        with pytest.raises(DataError, match=message):
            make(data=data)
    with pytest.raises(DataError, match="give specialists"):
        meta(specialists=None)
    assert with_signals(task.params.market, np.zeros((140, 2))).signals is not None


def test_many_accounts_are_played_by_one_program():
    task = joint().task
    many = GymnasiumVectorEnv(
        task.env, task.params, features=task.features, lookback=task.lookback, num_envs=5
    )
    observations, _ = many.reset(seed=0)
    assert observations.shape == (5, *joint().observation_space.shape)


def test_refuses_every_unknown_key_and_bad_value_at_once():
    wrong = {"episode_lenght": 5, "transaction_cost": -1, "max_portfolio_var": "much", "stop_loss_pct": 0.02}
    with pytest.raises(ConfigError) as error:
        read(MetaSettings, wrong)
    assert len(error.value.findings) == 4
    for part in (
        "episode_lenght: unknown key; did you mean episode_length?",
        "transaction_cost: input should be greater than or equal to 0, got -1",
        "max_portfolio_var: input should be a valid number, unable to parse string as a number, got 'much'",
        "stop_loss_pct: unknown key; known are episode_length, ",
    ):
        assert part in str(error.value)
    for kind, bad in (
        (MetaSettings, {"gradient_coordination": True}),
        (JointSettings, {"gradient_coordination": 1}),
        (SpecialistSettings, {"max_position_size": 1.5}),
        (SpecialistSettings, {"warmup_steps": -1}),
        (MetaSettings, {"initial_capital": float("nan")}),
    ):
        with pytest.raises(ConfigError):
            read(kind, bad)


def test_refuses_data_that_do_not_fit():
    with pytest.raises(DataError, match="no frame of GBPUSD; there are EURUSD, XAUUSD"):
        joint({"instruments": ["GBPUSD", "EURUSD"]})
    with pytest.raises(ConfigError, match="BTCUSD has no specialist"):
        joint({"instruments": ["BTCUSD"]})
    with pytest.raises(ValueError, match="hold no episode of 1000"):
        joint({"episode_length": 1000})
    with pytest.raises(DataError, match="has every feature"):
        single(data={"EURUSD": FRAMES["EURUSD"][:10]})


@pytest.mark.parametrize("make", [single, meta, joint], ids=lambda make: make.__name__)
def test_refuses_bars_that_are_none_all_at_once(make):
    broken = FRAMES["EURUSD"].copy()
    broken.iloc[100, broken.columns.get_loc("high")] = broken["low"].iloc[100] * 0.9
    broken.iloc[110, broken.columns.get_loc("open")] = broken["high"].iloc[110] * 1.1
    broken.iloc[120, broken.columns.get_loc("close")] = -5.0
    with pytest.raises(DataError) as error:
        make(data={**FRAMES, "EURUSD": broken})
    for row, rule in ((100, "a high below the low"), (110, "open or close outside"), (120, "price of zero")):
        told = [line for line in error.value.findings if f"row {row} " in line and rule in line]
        assert len(told) == 1, (rule, error.value.findings)
        assert told[0].startswith("EURUSD: ")
    slack = FRAMES["EURUSD"].assign(high=FRAMES["EURUSD"]["high"] * (1 - 1e-8))
    make(data={**FRAMES, "EURUSD": slack}).reset(seed=0)
    swapped = {name: frame.rename(columns={"high": "low", "low": "high"}) for name, frame in FRAMES.items()}
    with pytest.raises(DataError, match=r"EURUSD: 1\d\d of 140 rows have a high below the low"):
        make(data=swapped)


def test_a_specialist_is_rewarded_on_quiet_markets_as_on_loud_ones():
    paid = {}
    for quiet in (1.0, 0.01):
        prices = ["open", "high", "low", "close"]
        frame = FRAMES["EURUSD"].assign(**{name: FRAMES["EURUSD"][name] ** quiet for name in prices})
        env = single({"episode_length": 60, "transaction_cost": 0.0}, {"EURUSD": frame})
        env.reset(seed=0)
        paid[quiet] = np.array([env.step(2)[1] for _ in range(50)])
    assert (paid[0.01] != 0).mean() > 0.9
    assert 0.2 < paid[0.01].std() / paid[1.0].std() < 5.0
