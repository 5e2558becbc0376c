"""Our environments as gymnasium's `Env` and `VectorEnv`: numpy in, numpy out, one jitted call a step.

It imports gymnasium, so nothing of ours imports it but `envs.adapters`, when it is asked to.
Axes: N accounts, each with a clock of its own; D numbers of a dense observation. A single environment is a
vector of one. Keys of `info` are the same in both, and a vector's are batched as gymnasium batches them:
`info["_key"]` [N] bool says which accounts have a `key`.

  bar          int, the bar whose close was seen last
  equity       float64, in account currency; without `EnvParams.capital`, over the equity at the start
  action_mask  [A] int8, 1 where an action of a single choice may be asked for
  tradable     [A] bool, in a portfolio: instruments that trade at the next open
  fill         what the order executed, in steps in which it did: `bar`; `side`, 1 bought and -1 sold;
               `traded`, the notional before spread and slippage, and `cost`, both over the equity before the
               bar; `price` paid, in quote currency where `Market.prices` exist, else over the bar's open.
               Of [A] each in a portfolio
  exit         the same for a closing trade that nobody asked for, with `reason` (`envs.protection`)
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.adapters import LARGEST, Task, account_of, make_task
from envs.adapters_options import fixed
from envs.observations import dense
from envs.transforms import vectorise
from envs.types import Actions, Env, EnvParams, Fill, TimeStep

_METADATA: dict[str, Any] = {"render_modes": []}
_VECTOR_METADATA: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}


class View(NamedTuple):
    """What is shown of N accounts between steps.

    Attributes:
      observation: [N, D] float32.
      bar: [N] int32.
      log_equity: [N] float32.
      mask: [N, A] bool, None where nothing rules actions out.
    """

    observation: Any
    bar: Any
    log_equity: Any
    mask: Any


class Played(NamedTuple):
    """What a step did to N accounts.

    Attributes:
      reward: [N] float32.
      terminated: [N] bool.
      truncated: [N] bool.
      fills: what was executed, by its key in `info`.
    """

    reward: Any
    terminated: Any
    truncated: Any
    fills: dict[str, dict[str, Any]]


# The programs are shared by all instances over one `Env`: it and the sizes are what they are compiled for.
@partial(jax.jit, static_argnames=("env", "num"))
def _draw(env: Env, key, params: EnvParams, *, num: int):
    return env.draw(key, (num, 1), params)


@partial(jax.jit, static_argnames=("env", "lookback", "num"))
def _begin(env: Env, drawn, params: EnvParams, features, *, lookback: int, num: int):
    many = vectorise(env, num_groups=num)
    state = many.begin(drawn, params)
    return state, _view(many, state, params, features, lookback=lookback)


@partial(jax.jit, static_argnames=("env", "lookback", "num", "again"))
def _step(env: Env, carry, actions, params: EnvParams, features, *, lookback: int, num: int, again: bool):
    """The next carry, what was played, what was seen last and what is next, a start if it may, `again`."""
    many = vectorise(env, num_groups=num)
    state, key = carry
    key, step_key, draw_key = jax.random.split(key, 3)
    state, out = many.step(step_key, state, actions[:, None], params)
    final = _view(many, state, params, features, lookback=lookback)
    played = _played(out, params)
    ended = played.terminated | played.truncated

    def restart(state):
        fresh = many.begin(env.draw(draw_key, (num, 1), params), params)
        state = jax.tree.map(lambda new, old: _where(ended, new, old), fresh, state)
        return state, _view(many, state, params, features, lookback=lookback)

    seen = final
    if again:
        state, seen = jax.lax.cond(ended.any(), restart, lambda state: (state, final), state)
    return (state, key), played, final, seen


def _where(ended, new, old):
    return jnp.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _view(many: Env, state, params: EnvParams, features, *, lookback: int) -> View:
    seen = many.observe(state)
    mask = None if many.mask is None else many.mask(state, params)
    return View(
        observation=jax.vmap(partial(dense, features, lookback=lookback))(seen.bar, seen.account[:, 0]),
        bar=seen.bar,
        log_equity=account_of(state).log_equity[:, 0],
        mask=None if mask is None else mask[:, 0],
    )


def _played(out: TimeStep, params: EnvParams) -> Played:
    bar = out.observation.bar
    fills = {"fill": _told(out.fill, bar, params)}
    if out.exit is not None and out.reason is not None:
        fills["exit"] = {**_told(out.exit, bar, params), "reason": out.reason[:, 0]}
    return Played(out.reward[:, 0], out.terminated[:, 0], out.truncated, fills)


def _told(fill: Fill, bar, params: EnvParams) -> dict[str, Any]:
    prices = getattr(params.market, "prices", None)  # a portfolio's market has none
    price = fill.price[:, 0]
    return {
        "bar": bar,
        "side": jnp.sign(fill.traded[:, 0]).astype(jnp.int8),
        "traded": fill.traded[:, 0],
        "price": price if prices is None else price * prices.open[bar],
        "cost": fill.cost[:, 0],
    }


def action_space_of(actions: Actions) -> gymnasium.Space:
    """`Discrete`, `MultiDiscrete` or `Box`; one continuous level is a `Box` of [1], as learners expect."""
    if not actions.sizes:
        return gymnasium.spaces.Box(actions.low, actions.high, actions.shape or (1,), np.float32)
    if actions.shape:
        return gymnasium.spaces.MultiDiscrete(list(actions.sizes))
    return gymnasium.spaces.Discrete(actions.sizes[0])


class _Accounts:
    """N accounts and what is needed to step them: the common part of both classes below."""

    def __init__(self, task: Task, *, num: int, again: bool):
        self.task, self.num = task, num
        size = (task.observation_size,)
        # Bounds of float32 rather than infinity: whatever is finite is a member, and checkers do not warn.
        self.observation_space = gymnasium.spaces.Box(-LARGEST, LARGEST, size, np.float32)
        self.action_space = action_space_of(task.env.actions)
        capital = task.params.capital
        self.capital = 1.0 if capital is None else float(capital)
        sizes = {"lookback": task.lookback, "num": num}
        self._begin = partial(_begin, task.env, **sizes)
        self._advance = partial(_step, task.env, **sizes, again=again)
        self._carry: Any = None
        self.view: Any = None

    def reset(self, generator: np.random.Generator, options: Mapping[str, Any] | None) -> None:
        """Draw new starts from `generator`; `options` fix parts of the draw.

        Raises:
          ValueError: every option that is not known or out of range.
        """
        task = self.task
        draw_key, key = jax.random.split(jax.random.key(int(generator.integers(2**63))))
        drawn = _draw(task.env, draw_key, task.params, num=self.num)
        space, length = task.env.actions, task.env.episode_bars
        drawn = drawn._replace(**fixed(drawn, options or {}, space, task.params, episode_bars=length))
        state, view = self._begin(drawn, task.params, task.features)
        self._carry, self.view = (state, key), _copied(view)

    def step(self, actions: Any) -> tuple[Played, View]:
        """What [N, …] `actions` did, and what was seen after them, before any new start."""
        if self._carry is None:
            raise gymnasium.error.ResetNeeded("call reset before the first step")
        task, checked = self.task, self._checked(actions)
        self._carry, played, final, view = self._advance(self._carry, checked, task.params, task.features)
        played, self.view = _copied((played, view))
        # The final view is left on the device: it is of interest only when something ended.
        return played, final

    def _checked(self, actions: Any) -> np.ndarray:
        """`actions` in the environment's shape and type.

        Raises:
          ValueError: another shape, or a number that is not in the space.
        """
        space, given = self.task.env.actions, np.asarray(actions)
        shape = (self.num, *(self.action_space.shape or ()))
        if given.shape != shape:
            raise ValueError(f"actions must be {shape}, got {given.shape}")
        if not space.sizes:
            # Levels beyond the bounds are clipped by the environment: learners sample from Gaussians.
            if not np.isfinite(given).all():
                raise ValueError(f"actions must be finite, got {given}")
            return given.astype(np.float32).reshape(self.num, *space.shape)
        sizes = np.asarray(space.sizes if space.shape else space.sizes[0])
        if given.dtype.kind not in "iu" or (given < 0).any() or (given >= sizes).any():
            raise ValueError(f"actions must be integers from 0 to below {sizes}, got {given}")
        return given.astype(np.int32)

    def masks(self) -> np.ndarray:
        """[N, A] bool, choices that may be asked for now; those of all components, one after another."""
        actions = self.task.env.actions
        if not actions.sizes:
            raise AttributeError("a continuous action has no masks")
        if self._carry is None:
            raise gymnasium.error.ResetNeeded("call reset before asking for masks")
        mask = self.view.mask
        if mask is None:
            return np.ones((self.num, sum(actions.sizes)), bool)
        return mask

    def infos(self, view: View, who: np.ndarray) -> dict[str, Any]:
        """What is known between steps of the accounts `who` [N] bool."""
        infos = {"bar": view.bar, "equity": self.capital * np.exp(view.log_equity.astype(np.float64))}
        if self.task.env.num_actions:
            mask = np.ones((self.num, self.task.env.num_actions), np.int8) if view.mask is None else view.mask
            infos["action_mask"] = mask.astype(np.int8)
        elif view.mask is not None:
            infos["tradable"] = view.mask
        return _among(infos, who)


def _copied(tree: Any) -> Any:
    """`tree` as numpy arrays that its owner may write to."""
    return jax.tree.map(np.array, tree)


def _among(infos: dict[str, Any], who: np.ndarray) -> dict[str, Any]:
    """`infos` with the masks that gymnasium has beside every key."""
    return infos | {f"_{name}": who for name in infos}


def _fills_of(played: Played, who: np.ndarray) -> dict[str, Any]:
    """The fills of the accounts `who` [N] bool, where there are any."""
    infos: dict[str, Any] = {}
    for name, fill in played.fills.items():
        side = fill["side"]
        has = who & (side.reshape(len(side), -1) != 0).any(axis=1)
        if has.any():
            infos |= {name: _among(fill, has), f"_{name}": has}
    return infos


def _of_the_first(infos: dict[str, Any]) -> dict[str, Any]:
    """A vector's `infos` as those of its first account."""
    names = [name for name in infos if not name.startswith("_") and infos[f"_{name}"][0]]
    one = {name: infos[name] for name in names}
    return {name: _of_the_first(part) if isinstance(part, dict) else part[0] for name, part in one.items()}


class GymnasiumEnv(gymnasium.Env):
    """One account as a `gymnasium.Env`.

    `reset(seed=…)` fixes the start and everything after it. `reset(options={"start": bar, "level": 0.0})`
    fixes any part of the environment's draw, for an evaluation from a known bar. What is held at the start
    must be nothing, or what the actions may ask for: one of their levels, else within their bounds.
    """

    metadata = _METADATA

    def __init__(
        self, env: Env, params: EnvParams, *, features: Any, lookback: int, render_mode: str | None = None
    ):
        """The arguments are those of `envs.adapters.to_gymnax`.

        Raises:
          ValueError: the parts do not fit each other.
          TypeError: a render mode: there is none.
        """
        _refuse_rendering(render_mode)
        self.render_mode = render_mode
        task = make_task(env, params, features=features, lookback=lookback)
        self._accounts = _Accounts(task, num=1, again=False)
        self.observation_space = self._accounts.observation_space
        self.action_space = self._accounts.action_space
        self._ended = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """The first observation [D] float32 of a new episode, and its info.

        Raises:
          ValueError: every option that is not known or out of range.
        """
        super().reset(seed=seed)
        self._accounts.reset(self.np_random, options)
        self._ended = False
        view = self._accounts.view
        return view.observation[0], _of_the_first(self._accounts.infos(view, np.ones(1, bool)))

    def step(self, action: Any):
        """Play one bar: observation, reward, terminated, truncated, info.

        Raises:
          ValueError: an action that is not in the space.
          gymnasium.error.ResetNeeded: the episode has ended, or never begun.
        """
        if self._ended:
            raise gymnasium.error.ResetNeeded("the episode has ended: call reset")
        played, _ = self._accounts.step(np.asarray(action)[None])
        terminated, truncated = bool(played.terminated[0]), bool(played.truncated[0])
        self._ended = terminated or truncated
        view, all_of_them = self._accounts.view, np.ones(1, bool)
        infos = self._accounts.infos(view, all_of_them) | _fills_of(played, all_of_them)
        return view.observation[0], float(played.reward[0]), terminated, truncated, _of_the_first(infos)

    def action_masks(self) -> np.ndarray:
        """[A] bool, as sb3-contrib's MaskablePPO asks for it.

        Raises:
          AttributeError: a continuous action.
          gymnasium.error.ResetNeeded: before the first reset.
        """
        return self._accounts.masks()[0]


class GymnasiumVectorEnv(VectorEnv):
    """N accounts as a `gymnasium.vector.VectorEnv`, stepped by one program.

    Accounts are reset in the step that ends their episode (`AutoresetMode.SAME_STEP`): the observation
    returned is the next episode's first, `info["final_obs"]` holds the last of the one that ended, and
    `info["final_info"]` its info. Terminated and truncated accounts alike start anew elsewhere.
    """

    metadata = _VECTOR_METADATA

    def __init__(
        self,
        env: Env,
        params: EnvParams,
        *,
        features: Any,
        lookback: int,
        num_envs: int,
        render_mode: str | None = None,
    ):
        """The arguments are those of `envs.adapters.to_gymnax`, and the number of accounts.

        Raises:
          ValueError: the parts do not fit each other, or no account.
          TypeError: a render mode: there is none.
        """
        _refuse_rendering(render_mode)
        if num_envs < 1:
            raise ValueError(f"num_envs ({num_envs}) must be at least 1")
        self.render_mode, self.num_envs = render_mode, num_envs
        task = make_task(env, params, features=features, lookback=lookback)
        self._accounts = _Accounts(task, num=num_envs, again=True)
        self.single_observation_space = self._accounts.observation_space
        self.single_action_space = self._accounts.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """The first observations [N, D] float32, and infos. One seed is for all accounts, which differ."""
        super().reset(seed=seed)
        self._accounts.reset(self.np_random, options)
        view = self._accounts.view
        return view.observation, self._accounts.infos(view, np.ones(self.num_envs, bool))

    def step(self, actions: Any):
        """Play one bar of every account: observations, rewards [N] float64, terminated, truncated, infos.

        Raises:
          ValueError: actions that are not in the space.
          gymnasium.error.ResetNeeded: before the first reset.
        """
        played, final = self._accounts.step(actions)
        ended, view = played.terminated | played.truncated, self._accounts.view
        infos = self._accounts.infos(view, np.ones(self.num_envs, bool)) | _fills_of(played, ~ended)
        if ended.any():
            last = jax.device_get(final)
            observations = np.full(self.num_envs, None, object)
            for index in np.flatnonzero(ended):
                observations[index] = last.observation[index]
            told = self._accounts.infos(last, ended) | _fills_of(played, ended)
            infos |= _among({"final_obs": observations, "final_info": told}, ended)
        rewards = played.reward.astype(np.float64)
        return view.observation, rewards, played.terminated, played.truncated, infos

    def action_masks(self) -> np.ndarray:
        """[N, A] bool, what may be asked for now; raises as a single account's."""
        return self._accounts.masks()


def _refuse_rendering(render_mode: str | None) -> None:
    # Learners that make an environment by its id ask for pictures first, and without them on a TypeError.
    if render_mode is not None:
        raise TypeError(f"render_mode must be None, got {render_mode!r}: there is nothing to look at")
