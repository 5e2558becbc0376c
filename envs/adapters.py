"""Our environments behind the interfaces that other learners speak: gymnax and gymnasium.

Nothing here imports either package before it is asked for: importing gymnax takes seconds and initialises a
device. `GymnasiumEnv` and `GymnasiumVectorEnv` live in `envs.adapters_gymnasium` and can be imported from
here, too.

Axes: T bars, F features, K numbers of the account view. A dense observation is [lookback * F + K] float32:
the window of features, oldest row first, then the account.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs import actions as spaces
from envs.checks import value_findings, window_findings
from envs.observations import dense
from envs.orders import LIMIT, MARKET, STOP
from envs.single import make_single
from envs.types import Costs, Env, EnvParams, Market, Prices

_IN_GYMNASIUM = ("GymnasiumEnv", "GymnasiumVectorEnv")
LARGEST = float(np.finfo(np.float32).max)


def __getattr__(name: str) -> Any:
    """The names of `envs.adapters_gymnasium`, which imports gymnasium."""
    if name not in _IN_GYMNASIUM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from envs import adapters_gymnasium

    return getattr(adapters_gymnasium, name)


class Task(NamedTuple):
    """An environment, and the data that it is played on.

    Attributes:
      env: for one account.
      params: its bars and costs.
      features: [T, F] float32.
      lookback: rows of features in an observation.
    """

    env: Env
    params: EnvParams
    features: jax.Array
    lookback: int

    @property
    def observation_size(self) -> int:
        """Length of a dense observation."""
        return self.lookback * self.features.shape[1] + self.env.account_size


def make_task(env: Env, params: EnvParams, *, features: Any, lookback: int) -> Task:
    """The parts, once they are known to fit each other; arrays become float32.

    Raises:
      ValueError: features that are not finite or not one row a bar, a first bar without a whole window, a
        slice that is shorter than an episode, or a number out of its range.
    """
    rows = np.asarray(features, np.float32)
    num_bars, first, stop = len(params.market.gap), int(params.first), int(params.stop)
    findings = value_findings(params)
    findings += window_findings(params, num_bars=num_bars, episode_bars=env.episode_bars)
    if rows.ndim != 2 or len(rows) != num_bars:
        findings.append(f"features must be [{num_bars}, F], a row for each bar, got {rows.shape}")
    if lookback < 1:
        findings.append(f"lookback ({lookback}) must be at least 1")
    if 0 <= first < lookback - 1:
        findings.append(f"first ({first}) must be at least {lookback - 1}, the first whole window")
    if not findings and not np.isfinite(rows[first - lookback + 1 : stop]).all():
        findings.append("features that will be observed are not all finite: raise params.first")
    if findings:
        raise ValueError("; ".join(findings))
    return Task(env, params, jnp.asarray(rows), lookback)


def account_of(state: Any) -> Any:
    """The account in `state`, also in that of a recorded environment (`envs.transforms.record`)."""
    return getattr(state, "inner", state).account


class GymnaxParams(struct.PyTreeNode):
    """What gymnax passes as `params`; arrays, so that no value of theirs recompiles anything.

    Attributes:
      env_params: of our environment.
      features: [T, F] float32.
      max_steps_in_episode: [] int32; a number below `Env.episode_bars` truncates earlier.
    """

    env_params: EnvParams
    features: jax.Array
    max_steps_in_episode: jax.Array


class GymnaxState(struct.PyTreeNode):
    """What gymnax carries.

    Attributes:
      state: of our environment.
      time: [] int32, steps since the reset.
      terminated: [] bool, the account was closed in the last step.
      truncated: [] bool, the last step ended the window.
    """

    state: Any
    time: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class _Trading:
    """The methods of `gymnax.environments.environment.Environment` that an environment defines.

    Instances are static arguments of gymnax's jitted `step` and `reset`, so each compiles for itself: make
    one and keep it. Everything that has a value is in `GymnaxParams`.
    """

    def __init__(self, task: Task):
        self._env, self._lookback, self._size = task.env, task.lookback, task.observation_size
        self._params = GymnaxParams(task.params, task.features, jnp.int32(task.env.episode_bars))

    @property
    def default_params(self) -> GymnaxParams:
        return self._params

    @property
    def num_actions(self) -> int:
        actions = self._env.actions
        return self._env.num_actions or int(np.prod(actions.shape, dtype=int))

    def reset_env(self, key: jax.Array, params: GymnaxParams) -> tuple[jax.Array, GymnaxState]:
        state, observation = self._env.reset(key, params.env_params)
        no = jnp.zeros((), bool)
        seen = dense(params.features, observation.bar, observation.account, lookback=self._lookback)
        return seen, GymnaxState(state, jnp.int32(0), terminated=no, truncated=no)

    def step_env(self, key: jax.Array, state: GymnaxState, action: Any, params: GymnaxParams):
        native = _native(action, self._env)
        inner, out = self._env.step(key, state.state, native, params.env_params)
        after = GymnaxState(inner, state.time + 1, terminated=out.terminated, truncated=out.truncated)
        seen = out.observation
        observation = dense(params.features, seen.bar, seen.account, lookback=self._lookback)
        info = {
            "discount": jnp.where(out.terminated, 0.0, 1.0),
            "equity": jnp.exp(account_of(inner).log_equity),
            "fill": out.fill,
            "exit": out.exit,
            "reason": out.reason,
        }
        return observation, after, out.reward, out.terminated, info

    def observe(self, key, state: GymnaxState, action, params: GymnaxParams) -> jax.Array:
        del key, action  # the observation is a function of the state
        seen = self._env.observe(state.state)
        return dense(params.features, seen.bar, seen.account, lookback=self._lookback)

    def is_truncated(self, state: GymnaxState, params: GymnaxParams) -> jax.Array:
        return state.truncated | (state.time >= params.max_steps_in_episode)

    def is_terminated(self, state: GymnaxState, params: GymnaxParams) -> jax.Array:
        del params
        return state.terminated

    def action_mask(self, state: GymnaxState, params: GymnaxParams | None = None) -> jax.Array:
        """[num_actions] bool, what may be asked for in `state`; in a portfolio, what trades at the next open.

        A method instead of an entry of `info`, because `info` describes the state before gymnax's own reset.
        """
        params = self._params if params is None else params
        ruled = None if self._env.mask is None else self._env.mask(state.state, params.env_params)
        return jnp.ones(self.num_actions, bool) if ruled is None else ruled

    def action_space(self, params: GymnaxParams | None = None):
        """`Discrete`, a `Tuple` of them (gymnax has no MultiDiscrete), or `Box`, [1] for a single level."""
        from gymnax.environments import spaces as gymnax_spaces

        del params
        actions = self._env.actions
        if not actions.sizes:
            return gymnax_spaces.Box(actions.low, actions.high, actions.shape or (1,))
        parts = [gymnax_spaces.Discrete(size) for size in actions.sizes]
        return gymnax_spaces.Tuple(parts) if actions.shape else parts[0]

    def observation_space(self, params: GymnaxParams | None = None):
        """`Box`; the bounds are those of float32, so whatever is finite is in it."""
        from gymnax.environments import spaces as gymnax_spaces

        del params
        return gymnax_spaces.Box(-LARGEST, LARGEST, (self._size,), jnp.float32)

    def state_space(self, params: GymnaxParams | None = None):
        """What of the state has a range: the steps since the reset."""
        from gymnax.environments import spaces as gymnax_spaces

        del params
        return gymnax_spaces.Dict({"time": gymnax_spaces.Discrete(self._env.episode_bars + 1)})


def _native(action: Any, env: Env) -> jax.Array:
    """`action` as `env` takes it: components of a tuple stacked, and [1] of a single level as []."""
    if isinstance(action, tuple | list):
        action = jnp.stack([jnp.asarray(part) for part in action])
    return jnp.reshape(action, env.actions.shape)


@cache
def _gymnax_class() -> type:
    from gymnax.environments.environment import Environment

    return type("Trading", (_Trading, Environment), {"__doc__": _Trading.__doc__})


def to_gymnax(env: Env, params: EnvParams, *, features: Any, lookback: int) -> Any:
    """`env` as a `gymnax.environments.environment.Environment`.

    Observations are dense. gymnax resets in the step that ends an episode: the observation returned is the
    next episode's first, and `info["final_observation"]` the last of the one that ended. Terminated and
    truncated accounts alike start anew elsewhere, by `Env.reset`.

    Args:
      env: for one account.
      params: its bars and costs; the instance's `default_params` hold them.
      features: [T, F], a row for each bar.
      lookback: rows of features in an observation.

    Raises:
      ValueError: the parts do not fit each other; see `make_task`.
    """
    return _gymnax_class()(make_task(env, params, features=features, lookback=lookback))


class Bars(NamedTuple):
    """Open, high, low and close, [T] or [T, A] float64 each."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray


def synthetic_bars(shape: tuple[int, ...] = (4096,), *, seed: int = 0, sigma: float = 0.01) -> Bars:
    """Made-up bars of a market that can be learnt: r[t] = 0.3 r[t-1] + noise of deviation `sigma`.

    Args:
      shape: (T,), or (T, A) for instruments that do not know of each other.
      seed: of everything.
      sigma: deviation of the noise in the log returns close to close.
    """
    generator = np.random.default_rng(seed)
    noise = generator.normal(0.0, sigma, shape)
    returns = np.zeros(shape)
    for bar in range(1, shape[0]):
        returns[bar] = 0.3 * returns[bar - 1] + noise[bar]
    closed = 100.0 * np.exp(returns.cumsum(axis=0))
    opened = np.roll(closed, 1, axis=0) * np.exp(generator.normal(0.0, 0.1 * sigma, shape))
    opened[0] = closed[0]
    beyond = np.exp(np.abs(generator.normal(0.0, 0.5 * sigma, (2, *shape))))
    high, low = np.maximum(opened, closed) * beyond[0], np.minimum(opened, closed) / beyond[1]
    return Bars(opened, high, low, closed)


def _synthetic_features(bars: Bars, *, sigma: float = 0.01) -> np.ndarray:
    """[T, 2 x instruments] the last log return, and the last eight together, each of order one."""
    closed = bars.close.reshape(len(bars.close), -1)
    last = np.diff(np.log(closed), axis=0, prepend=np.log(closed[:1])) / sigma
    # Sums from the first bar on; row t knows rows up to t.
    total = np.concatenate([np.zeros((8, last.shape[1])), last]).cumsum(axis=0)
    return np.concatenate([last, (total[8:] - total[:-8]) / 8.0**0.5], axis=1)


def _synthetic_costs() -> Costs:
    return Costs(jnp.float32(2e-4), jnp.float32(1e-4), jnp.float32(1e-4))


def _synthetic_params(bars: Bars, *, first: int) -> EnvParams:
    before = np.concatenate([bars.open[:1], bars.close[:-1]])
    prices = Prices(*(jnp.asarray(part, jnp.float32) for part in bars))
    market = Market(
        gap=jnp.asarray(bars.open / before - 1.0, jnp.float32),
        body=jnp.asarray(bars.close / bars.open - 1.0, jnp.float32),
        prices=prices,
    )
    return EnvParams(
        market=market,
        costs=_synthetic_costs(),
        ruin_equity=jnp.float32(0.1),
        first=jnp.int32(first),
        stop=jnp.int32(len(bars.close)),
    )


def _single_task(*, params=None, features=None, lookback: int = 16, seed: int = 0, **options) -> Task:
    """`make_single(**options)` on the data given, or on synthetic bars."""
    if (params is None) != (features is None):
        raise ValueError("params and features belong together: give both, or neither for synthetic bars")
    if params is None:
        bars = synthetic_bars(seed=seed)
        params, features = _synthetic_params(bars, first=lookback - 1), _synthetic_features(bars)
    return make_task(make_single(**options), params, features=features, lookback=lookback)


def _orders_task(**options) -> Task:
    """The same with limit and stop orders and brackets."""
    kinds = ((MARKET, 0.0, 0.0), (LIMIT, 0.005, 0.0), (STOP, 0.0, 0.005))
    grid = spaces.grid(orders=kinds, brackets=(spaces.NO_BRACKET, (0.02, 0.04, float("inf"))))
    return _single_task(**{"actions": grid, **options})


def _portfolio_task(
    *, params=None, features=None, lookback: int = 16, seed: int = 0, num_instruments: int = 4, **options
) -> Task:
    """`make_portfolio(**options)` on the data given, or on synthetic bars."""
    from envs.portfolio import make_portfolio
    from envs.portfolio_market import make_portfolio_market, make_portfolio_params

    if (params is None) != (features is None):
        raise ValueError("params and features belong together: give both, or neither for synthetic bars")
    if params is None:
        bars = synthetic_bars((4096, num_instruments), seed=seed)
        market = make_portfolio_market(bars.open, bars.close, window=None)
        params = make_portfolio_params(market, _synthetic_costs(), first=lookback - 1)
        features = _synthetic_features(bars)
    env = make_portfolio(num_instruments=num_instruments, **options)
    return make_task(env, params, features=features, lookback=lookback)


TASKS: dict[str, Callable[..., Task]] = {
    "Trading-v0": _single_task,
    "TradingOrders-v0": _orders_task,
    "TradingPortfolio-v0": _portfolio_task,
}


def register_gymnax() -> tuple[str, ...]:
    """Let `gymnax.make` know the ids of `TASKS`, and return them; calling it again does nothing.

    `gymnax.make(id, params=…, features=…, lookback=…)` plays on the data given, and without data on synthetic
    bars of `seed`. All other keywords are those of `make_single`, or `make_portfolio`.
    """
    import gymnax

    for name, make in TASKS.items():
        if name not in gymnax.registered_envs:
            gymnax.register(name, partial(_make_gymnax, make))
    return tuple(TASKS)


def _make_gymnax(make: Callable[..., Task], **options) -> Any:
    return _gymnax_class()(make(**options))


def register_gymnasium() -> tuple[str, ...]:
    """The same for `gymnasium.make` and `gymnasium.make_vec`."""
    import gymnasium

    for name, make in TASKS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=partial(_make_gymnasium, "GymnasiumEnv", make),
                vector_entry_point=partial(_make_gymnasium, "GymnasiumVectorEnv", make),
            )
    return tuple(TASKS)


def _make_gymnasium(kind: str, make: Callable[..., Task], **options) -> Any:
    ours = {name: options.pop(name) for name in ("num_envs", "render_mode") if name in options}
    task = make(**options)
    return __getattr__(kind)(task.env, task.params, features=task.features, lookback=task.lookback, **ours)
