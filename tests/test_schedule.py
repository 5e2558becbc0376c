"""Updates and windows of a run fit together, whatever their lengths."""

from hypothesis import given
from hypothesis import strategies as st

from ztb_jax import schedule
from ztb_jax.config import Config
from ztb_jax.settings import PPOConfig, RunConfig

SIZES = {"accounts": st.integers(1, 9), "bars": st.integers(1, 9), "total": st.integers(1, 900)}


def config_of(accounts, bars, **run) -> Config:
    return Config(ppo=PPOConfig(num_accounts=accounts, rollout_bars=bars), run=RunConfig(**run))


@given(**SIZES, window=st.integers(1, 300))
def test_windows_of_environment_steps(accounts, bars, total, window):
    config = config_of(accounts, bars, total_env_steps=total, window_env_steps=window)
    update, count = accounts * bars, schedule.num_windows(config)
    trained = schedule.num_updates(config) * update
    assert total <= trained < total + update
    assert (count - 1) * window < trained <= count * window
    made = [schedule.updates_in(config, number) for number in range(count)]
    assert sum(made) == schedule.num_updates(config)
    for number in range(count):
        done = schedule.updates_before(config, number + 1) * update
        # The window is over as soon as whole updates can say so.
        assert done >= min((number + 1) * window, trained) > done - update
    at_once = schedule.updates_at_once(config)
    assert [schedule.calls_in(config, number) * at_once for number in range(count)] == made
    if window % update == 0 and trained % window == 0:
        assert at_once == window // update
    assert schedule.target_env_steps(config) == total
    last = schedule.last_window(config)
    assert sum(made[: last + 1]) == sum(made)
    assert last == count - 1 or not made[-1]


@given(**SIZES, updates=st.integers(1, 20))
def test_windows_of_updates_are_all_alike(accounts, bars, total, updates):
    config = config_of(accounts, bars, total_env_steps=total, window_updates=updates)
    steps = accounts * bars * updates
    assert schedule.window_env_steps(config) == steps
    assert schedule.updates_at_once(config) == updates
    assert schedule.target_env_steps(config) == schedule.num_windows(config) * steps >= total
    assert {schedule.updates_in(config, n) for n in range(schedule.num_windows(config))} == {updates}
