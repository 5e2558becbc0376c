"""Episodes of one policy with everything that happened in them: what replays are made of.

Axes: N episodes, T bars, K account view, A choices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.checks import check_unbroken
from envs.single import Draw
from envs.types import Env, Fill
from ztb_jax.data.market import MarketData, check_lookback
from ztb_jax.keys import split_named
from ztb_jax.policies.play import ruled_out
from ztb_jax.policies.policy import Policy, check_actions, mask_of, nothing_remembered, recalled


class Frames(NamedTuple):
    """What happened bar by bar, [N, T] each; nothing after `terminated` has a meaning.

    Attributes:
      bar: int32, the row of the data whose close was seen; the action is carried out in the next one.
      account: [N, T, K], the account view acted on.
      action: [N, T, ...], the environment's.
      invalid: bool, the action was ruled out.
      log_prob: of the action.
      value: what the policy expects of the state acted on.
      asked: the level that the action asks for.
      level: the level before it.
      reward: as the environment pays it.
      terminated: bool, the account was closed in this bar.
      truncated: bool, the episode was cut off after it.
      log_equity: at the close of the bar carried out in, over the start.
      exposure: likewise, signed value held over equity.
      fill: what the order executed; over the equity at the last close.
      exit: what closed the holding later in the bar; None in an environment without such orders.
      reason: int32, why; likewise.
    """

    bar: jax.Array
    account: jax.Array
    action: jax.Array
    invalid: jax.Array
    log_prob: jax.Array
    value: jax.Array
    asked: jax.Array
    level: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    log_equity: jax.Array
    exposure: jax.Array
    fill: Fill
    exit: Fill | None
    reason: jax.Array | None


def make_episodes(
    policy: Policy, env: Env, *, steps: int, deterministic: bool = True
) -> Callable[[Any, MarketData, jax.Array], Frames]:
    """(params, data, keys [N]) -> Frames of N episodes of `steps` bars from random starts, flat at first.

    All are played in one scan, on one encoding of the data; compiles once for each length of them.

    Args:
      policy: the network; `ztb_jax.policies.transforms.uniform` makes one that trades at random.
      env: one account's environment; its own window does not matter.
      steps: T.
      deterministic: play the most probable action; otherwise draw one.

    Raises:
      ValueError: the policy has other actions; and, when called, the data another lookback, fewer bars, or
        bars that are several stretches in a row.
    """
    check_actions(policy, env)
    family = policy.distribution

    def chosen(parameters, noise, allowed):
        if allowed is not None:
            parameters = family.restrict(parameters, allowed)  # pyright: ignore[reportOptionalCall]
        raw = family.mode(parameters) if deterministic else family.sample(noise, parameters)
        invalid = ruled_out(allowed, raw)
        wrong = jnp.bool_(False) if invalid is None else invalid
        return family.act(raw), wrong, family.log_prob(parameters, raw)

    def episode(key: jax.Array, params: Any, contexts: jax.Array, data: MarketData) -> Frames:
        drawn = split_named(key, "start", "action")
        rules, first = data.env_params, data.lookback - 1
        start = first + jax.random.randint(drawn["start"], (), 0, rules.stop - first - steps)
        state = env.begin(Draw(start, jnp.float32(0.0)), rules).replace(end=start + steps)

        def step(carry, noise):
            state, memory, fresh = carry
            seen, context = env.observe(state), contexts[state.bar - first]
            memory, view = recalled(policy, params, memory, fresh, (context, seen.account))
            parameters, value = policy.apply(params, context, view)
            action, invalid, log_prob = chosen(parameters, noise, mask_of(policy, env, state, rules))
            order = env.actions.decode(action)
            moved, out = env.advance(state, order, rules)
            frame = Frames(
                bar=seen.bar,
                account=seen.account,
                action=action,
                invalid=invalid,
                log_prob=log_prob,
                value=value,
                asked=order.level,
                level=state.account.level,
                reward=out.reward,
                terminated=out.terminated,
                truncated=out.truncated,
                log_equity=moved.account.log_equity,
                exposure=moved.account.exposure,
                fill=out.fill,
                exit=out.exit,
                reason=out.reason,
            )
            return (moved, memory, jnp.bool_(False)), frame

        carry = (state, nothing_remembered(policy, ()), jnp.bool_(True))
        return jax.lax.scan(step, carry, family.draw(drawn["action"], (steps,)))[1]

    def play(params: Any, data: MarketData, keys: jax.Array) -> Frames:
        check_lookback(policy, data)
        check_unbroken(data.env_params)
        if data.num_steps < steps:
            raise ValueError(f"an episode of {steps} bars does not fit into {data.num_steps}: take fewer")
        contexts = policy.encode(params, data.features)[data.lookback - 1 :]
        return jax.vmap(episode, in_axes=(0, None, None, None))(keys, params, contexts, data)

    return jax.jit(play)
