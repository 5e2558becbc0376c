"""The policy record: `encode` once per bar, `apply` once per account."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from envs.types import Env
from ztb_jax.policies.distribution import Distribution
from ztb_jax.policies.distributions import categorical
from ztb_jax.policies.encoders import CausalWindow
from ztb_jax.policies.heads import ActorCritic
from ztb_jax.policies.initialisers import orthogonal
from ztb_jax.policies.sequences import GRU, HEADS, Attention, LinearRecurrence

Params = Any
ENCODERS = ("window", "recurrence", "gru", "attention")


class Memory(NamedTuple):
    """What an account remembers of its own steps: a recurrence that ends with its episode.

    Attributes:
      size: H; a memory begins as zeros.
      step: (params, memory [..., H], context [..., D], account [..., K]) -> memory [..., H].
    """

    size: int
    step: Callable[[Params, jax.Array, jax.Array, jax.Array], jax.Array]


class Policy(NamedTuple):
    """A policy.

    Attributes:
      init: (key) -> params.
      encode: (params, features [T, F], first=0) -> context [T - first, D] of the rows from `first` on; that
        of row t depends on rows t-lookback+1..t only.
      apply: (params, context [..., D], account [..., K]) -> (parameters of the distribution, value [...]).
        With a memory, account is [..., K + H]: the account view, then what is remembered.
      lookback: rows of features that a context depends on; the first lookback-1 bars cannot be traded.
      distribution: over actions.
      grid: bars after which the encoder's memory restarts, counted from row lookback-1; 0 where every context
        has a window of its own.
      window_cost: what encoding one window costs, in rows of a long stretch.
      memory: of each account; None where the bar and the account's own state are enough.
      adapt: (params, features [N, F], account [..., K], target [...]) -> params with the statistics in them
        brought up to date with one more rollout; None where there are none. Gradients leave them alone.
      value_space: (params, value) -> the value on the scale on which the critic is fitted.
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[..., jax.Array]
    apply: Callable[[Params, jax.Array, jax.Array], tuple[Any, jax.Array]]
    lookback: int
    distribution: Distribution
    grid: int = 0
    window_cost: float = 1.0
    memory: Memory | None = None
    adapt: Callable[..., Params] | None = None
    value_space: Callable[[Params, jax.Array], jax.Array] = lambda params, value: value


def check_actions(policy: Policy, env: Env) -> None:
    """Refuse a policy whose actions are not the environment's.

    Raises:
      ValueError: another number of choices, another shape, or choices where the environment takes numbers.
    """
    ours, space = policy.distribution, env.actions
    if space.sizes and ours.size != sum(space.sizes):
        raise ValueError(
            f"the policy has {ours.size} actions and the environment {sum(space.sizes)}: give both one"
        )
    played = jax.eval_shape(
        lambda outputs: ours.act(ours.mode(ours.parameters(outputs))),
        jax.ShapeDtypeStruct((ours.size,), jnp.float32),
    )
    if played.shape != space.shape:
        raise ValueError(
            f"the policy's actions have shape {played.shape} and the environment's {space.shape}"
        )
    chooses = jnp.issubdtype(played.dtype, jnp.integer)
    if chooses != bool(space.sizes):
        kinds = ("choices", "continuous") if chooses else ("continuous", "choices")
        raise ValueError(
            f"the policy's actions are {kinds[0]} and the environment's {kinds[1]}: take the distribution "
            "that `ztb_jax.policies.distributions.distribution_for` gives for the environment's actions"
        )


def mask_of(policy: Policy, env: Env, env_state: Any, env_params: Any) -> jax.Array | None:
    """[..., A] bool, the actions there are; None where nothing is ruled out or the policy cannot heed it."""
    if env.mask is None or policy.distribution.restrict is None:
        return None
    return env.mask(env_state, env_params)


def nothing_remembered(policy: Policy, shape: tuple[int, ...]) -> jax.Array | None:
    """[*shape, H] the memory of accounts that have done nothing yet; None where the policy has none."""
    return None if policy.memory is None else jnp.zeros((*shape, policy.memory.size), jnp.float32)


def recalled(policy: Policy, params: Any, memory: Any, fresh: Any, seen: Any) -> tuple[Any, jax.Array]:
    """The memory [..., H] of one bar more, and the account view that the policy is applied to.

    Args:
      policy: the network.
      params: its weights.
      memory: [..., H] of the bar before; None without a memory.
      fresh: [...] bool, nothing of it belongs to this life.
      seen: (context [..., D], account [..., K]) of the bar.
    """
    context, account = seen
    if policy.memory is None:
        return None, account
    before = jnp.where(fresh[..., None], 0.0, memory)
    memory = policy.memory.step(params, before, context, account)
    return memory, jnp.concatenate([account, memory], axis=-1)


def make_policy(
    *,
    num_features: int,
    account_size: int,
    num_actions: int | None = None,
    distribution: Distribution | None = None,
    lookback: int = 32,
    width: int = 64,
    depth: int = 2,
    shared_torso: bool = True,
    encoder: str = "window",
    grid: int = 64,
    memory: int = 0,
) -> Policy:
    """Tanh layers over a context of the last `lookback` bars and the account, the first one split in two.

    Args:
      num_features: F.
      account_size: K.
      num_actions: choices, for a categorical head.
      distribution: any other head, of `ztb_jax.policies.distributions`.
      lookback: bars in the window.
      width: units of each layer.
      depth: layers.
      shared_torso: one network for actor and critic, or one each.
      encoder: one of `ENCODERS`: "window", which makes the whole an MLP over the last bars, or a memory,
        "recurrence", "gru" or "attention", of `width`.
      grid: bars that a GRU's memory runs on for; the others need none.
      memory: units that each account remembers its own steps with, a GRU cell; 0 is none.

    Raises:
      ValueError: a size below 1, an encoder of another name, a width that attention cannot divide, or not
        exactly one of num_actions and distribution; all findings at once.
    """
    sizes = {"num_features": num_features, "lookback": lookback, "width": width, "depth": depth, "grid": grid}
    _check(sizes, encoder=encoder, memory=memory, heads=(num_actions, distribution))
    if distribution is None:
        assert num_actions is not None
        distribution = categorical(num_actions)
    context_size = width if shared_torso else 2 * width
    reader, window_cost = make_encoder(
        encoder, context_size=context_size, width=width, lookback=lookback, grid=grid
    )
    head = ActorCritic(width=width, num_outputs=distribution.size, shared=shared_torso, depth=depth)
    cell = nn.GRUCell(memory, recurrent_kernel_init=orthogonal(1.0))

    def init(key):
        encoder_key, head_key, memory_key = jax.random.split(key, 3)
        params = {
            "encoder": reader.init(encoder_key, jnp.zeros((1, num_features), jnp.float32)),
            "head": head.init(head_key, jnp.zeros((context_size,)), jnp.zeros((account_size + memory,))),
        }
        if memory:
            seen = jnp.zeros((context_size + account_size,))
            params["memory"] = cell.init(memory_key, jnp.zeros((memory,)), seen)
        return params

    def encode(params, features, first=0) -> Any:
        return reader.apply(params["encoder"], features, first)

    def apply(params, context, account):
        result: Any = head.apply(params["head"], context, account)
        outputs, value = result
        # Networks may compute in less; probabilities and values need all of float32.
        return distribution.parameters(outputs.astype(jnp.float32)), value.astype(jnp.float32)

    def remember(params, before, context, account) -> Any:
        shared = jnp.broadcast_to(context, (*account.shape[:-1], context_size))
        after, _ = cell.apply(params["memory"], before, jnp.concatenate([shared, account], axis=-1))  # pyright: ignore[reportGeneralTypeIssues]
        return after

    return Policy(
        init=init,
        encode=encode,
        apply=apply,
        lookback=lookback,
        distribution=distribution,
        grid=grid if encoder == "gru" else 0,
        window_cost=window_cost,
        memory=Memory(memory, remember) if memory else None,
    )


def _check(sizes: dict[str, int], *, encoder: str, memory: int, heads: tuple[Any, Any]) -> None:
    findings = encoder_findings(encoder, **sizes)
    if memory < 0:
        findings.append(f"memory must be at least 0, got {memory}")
    if (heads[0] is None) == (heads[1] is None):
        findings.append("give either num_actions or distribution")
    if findings:
        raise ValueError("; ".join(findings))


def encoder_findings(encoder: str, *, width: int, **sizes: int) -> list[str]:
    """What is wrong with an encoder's name and with sizes that must be at least 1."""
    sizes = {"width": width, **sizes}
    findings = [f"{name} must be at least 1, got {size}" for name, size in sizes.items() if size < 1]
    if encoder not in ENCODERS:
        findings.append(f"there is no encoder {encoder!r}: take one of {', '.join(ENCODERS)}")
    if encoder == "attention" and width % HEADS:
        findings.append(
            f"attention shares width ({width}) among {HEADS} heads: take {HEADS * math.ceil(width / HEADS)}"
        )
    return findings


def make_encoder(
    name: str, *, context_size: int, width: int, lookback: int, grid: int
) -> tuple[nn.Module, float]:
    """The encoder and its `window_cost`, the latter as measured (`docs/explanation/encoders.md`)."""
    sizes: Any = {"width": context_size, "lookback": lookback}
    if name == "window":
        return CausalWindow(**sizes), 1.0
    if name == "gru":
        return GRU(hidden=width, grid=grid, **sizes), 0.7 * lookback
    if name == "recurrence":
        return LinearRecurrence(hidden=width, **sizes), 1.5 * lookback
    return Attention(hidden=width, **sizes), 0.25 * lookback
