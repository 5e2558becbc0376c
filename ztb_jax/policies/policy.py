"""The policy record: `encode` once per bar, `apply` once per account."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ztb_jax.policies.encoders import CausalWindow
from ztb_jax.policies.heads import ActorCritic

Params = Any


class Policy(NamedTuple):
    """A policy.

    Attributes:
      init: (key) -> params.
      encode: (params, features [T, F]) -> context [T, D]; row t uses rows t-lookback+1..t only.
      apply: (params, context [..., D], account [..., K]) -> (log_probs [..., A], value [...]).
      lookback: rows of features that a context depends on; the first lookback-1 bars cannot be traded.
      num_actions: A.
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[[Params, jax.Array], jax.Array]
    apply: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    lookback: int
    num_actions: int


def make_policy(
    *,
    num_features: int,
    account_size: int,
    num_actions: int,
    lookback: int = 32,
    width: int = 64,
    shared_torso: bool = True,
) -> Policy:
    """An MLP of two tanh layers over the last `lookback` bars and the account, its first layer split in two.

    Args:
      num_features: F.
      account_size: K.
      num_actions: A.
      lookback: bars in the window.
      width: units of each layer.
      shared_torso: one network for actor and critic, or one each.
    """
    context_size = width if shared_torso else 2 * width
    encoder = CausalWindow(width=context_size, lookback=lookback)
    head = ActorCritic(width=width, num_actions=num_actions, shared=shared_torso)

    def init(key):
        encoder_key, head_key = jax.random.split(key)
        return {
            "encoder": encoder.init(encoder_key, jnp.zeros((1, num_features), jnp.float32)),
            "head": head.init(head_key, jnp.zeros((context_size,)), jnp.zeros((account_size,))),
        }

    def encode(params, features) -> Any:
        return encoder.apply(params["encoder"], features)

    def apply(params, context, account):
        outputs: Any = head.apply(params["head"], context, account)
        logits, value = outputs
        return jax.nn.log_softmax(logits), value

    return Policy(init=init, encode=encode, apply=apply, lookback=lookback, num_actions=num_actions)
