"""The policy record: `encode` once per bar, `apply` once per account."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ztb_jax.policies.encoders import CausalWindow, windows
from ztb_jax.policies.heads import ActorCritic
from ztb_jax.policies.sequences import GRU, Attention, LinearRecurrence

Params = Any
ENCODERS = ("window", "recurrence", "gru", "attention")


class Policy(NamedTuple):
    """A policy.

    Attributes:
      init: (key) -> params.
      encode: (params, features [T, F]) -> context [T, D]; row t uses rows t-lookback+1..t only.
      apply: (params, context [..., D], account [..., K]) -> (log_probs [..., A], value [...]).
      lookback: rows of features that a context depends on; the first lookback-1 bars cannot be traded.
      num_actions: A.
      grid: bars after which the encoder's memory restarts, counted from row lookback-1; 0 where every context
        has a window of its own.
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[[Params, jax.Array], jax.Array]
    apply: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    lookback: int
    num_actions: int
    grid: int = 0


def make_policy(
    *,
    num_features: int,
    account_size: int,
    num_actions: int,
    lookback: int = 32,
    width: int = 64,
    shared_torso: bool = True,
    encoder: str = "window",
    grid: int = 64,
) -> Policy:
    """Two tanh layers over a context of the last `lookback` bars and the account, the first one split in two.

    Args:
      num_features: F.
      account_size: K.
      num_actions: A.
      lookback: bars in the window.
      width: units of each layer.
      shared_torso: one network for actor and critic, or one each.
      encoder: one of `ENCODERS`: "window", which makes the whole an MLP over the last bars, or a memory,
        "recurrence", "gru" or "attention", of `width`.
      grid: bars that a GRU's memory runs on for; the others need none.

    Raises:
      ValueError: an encoder of another name.
    """
    if encoder not in ENCODERS:
        raise ValueError(f"there is no encoder {encoder!r}: take one of {', '.join(ENCODERS)}")
    context_size = width if shared_torso else 2 * width
    reader = _encoder(encoder, context_size=context_size, width=width, lookback=lookback, grid=grid)
    head = ActorCritic(width=width, num_actions=num_actions, shared=shared_torso)

    def init(key):
        encoder_key, head_key = jax.random.split(key)
        return {
            "encoder": reader.init(encoder_key, jnp.zeros((1, num_features), jnp.float32)),
            "head": head.init(head_key, jnp.zeros((context_size,)), jnp.zeros((account_size,))),
        }

    def encode(params, features) -> Any:
        return reader.apply(params["encoder"], features)

    def apply(params, context, account):
        outputs: Any = head.apply(params["head"], context, account)
        logits, value = outputs
        return jax.nn.log_softmax(logits), value

    return Policy(
        init=init,
        encode=encode,
        apply=apply,
        lookback=lookback,
        num_actions=num_actions,
        grid=grid if encoder == "gru" else 0,
    )


def _encoder(name: str, *, context_size: int, width: int, lookback: int, grid: int) -> nn.Module:
    sizes: Any = {"width": context_size, "lookback": lookback}
    if name == "window":
        return CausalWindow(**sizes)
    if name == "gru":
        return GRU(hidden=width, grid=grid, **sizes)
    return (LinearRecurrence if name == "recurrence" else Attention)(hidden=width, **sizes)


def per_account(policy: Policy, *, num_features: int) -> Policy:
    """`policy` that encodes the window of every account and step by itself, as if no bar were shared.

    It computes what `policy` does, where that has no grid, at the cost of `lookback` bars for every step, as
    learners do that know nothing of a shared market.
    """

    def encode(params, features):
        del params
        return windows(features, policy.lookback)

    def context_of(params, row):
        return policy.encode(params, row.reshape(policy.lookback, num_features))[-1]

    def apply(params, context, account):
        shape = jnp.broadcast_shapes(context.shape[:-1], account.shape[:-1])
        rows = jnp.broadcast_to(context, (*shape, context.shape[-1])).reshape(-1, context.shape[-1])
        contexts = jax.vmap(context_of, in_axes=(None, 0))(params, rows)
        return policy.apply(params, contexts.reshape(*shape, -1), account)

    return policy._replace(encode=encode, apply=apply, grid=0)
