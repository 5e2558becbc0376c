"""One network for every instrument of a portfolio: what is learnt on one serves all.

Axes: A instruments, F features of each, W width, P numbers that the distribution reads.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ztb_jax.policies.distribution import Distribution
from ztb_jax.policies.heads import ROOT_TWO
from ztb_jax.policies.initialisers import orthogonal
from ztb_jax.policies.policy import Policy, encoder_findings, make_encoder


class SharedActorCritic(nn.Module):
    """Two tanh layers for each instrument, the same for all; the second also sees the mean over instruments.

    Permuting the instruments permutes what is said of them and changes no value (Zaheer et al. 2017,
    https://arxiv.org/abs/1703.06114).

    Attributes:
      width: units of a layer.
      num_outputs: P, a whole number for each instrument, and what is left for the whole book (cash).
    """

    width: int
    num_outputs: int

    @nn.compact
    def __call__(self, context: jax.Array, account: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Context [..., A, W], account [..., A, K] -> outputs [..., P], value [...].

        Outputs are laid out as distributions read them: the first number of every instrument, then the
        second, and the book's last.
        """
        num_instruments = account.shape[-2]
        each, rest = divmod(self.num_outputs, num_instruments)
        part = nn.Dense(self.width, use_bias=False, kernel_init=orthogonal(ROOT_TWO), name="account")
        first = jnp.tanh(context + part(account))
        own = nn.Dense(self.width, kernel_init=orthogonal(ROOT_TWO), name="own")(first)
        others = nn.Dense(self.width, use_bias=False, kernel_init=orthogonal(1.0), name="others")
        second = jnp.tanh(own + others(first.mean(axis=-2, keepdims=True)))
        pooled = second.mean(axis=-2)
        said = nn.Dense(each, kernel_init=orthogonal(0.01), name="weights")(second)
        outputs = jnp.swapaxes(said, -1, -2).reshape(*said.shape[:-2], each * num_instruments)
        if rest:
            book = nn.Dense(rest, kernel_init=orthogonal(0.01), name="book")(pooled)
            outputs = jnp.concatenate([outputs, book], axis=-1)
        return outputs, nn.Dense(1, kernel_init=orthogonal(1.0), name="value")(pooled)[..., 0]


def make_portfolio_policy(
    *,
    num_instruments: int,
    num_features: int,
    distribution: Distribution,
    lookback: int = 32,
    width: int = 64,
    encoder: str = "window",
    grid: int = 64,
) -> Policy:
    """A policy for `envs.portfolio` whose encoder and head are shared by all instruments.

    Features are [T, A F], all of the first instrument's, then the second's. A context is [T, A W]: every
    instrument encoded by itself, once per bar for all accounts.

    Args:
      num_instruments: A.
      num_features: F.
      distribution: over [A] weights, such as `distribution_for(env.actions)`.
      lookback: bars in the window.
      width: W.
      encoder: one of `ztb_jax.policies.policy.ENCODERS`.
      grid: bars that a GRU's memory runs on for.

    Raises:
      ValueError: a size below 1, an encoder of another name, a width that attention cannot divide, or a
        distribution over fewer numbers than there are instruments; all findings at once.
    """
    sizes = {"num_instruments": num_instruments, "num_features": num_features}
    findings = encoder_findings(encoder, width=width, lookback=lookback, grid=grid, **sizes)
    if distribution.size < num_instruments:
        findings.append(
            f"the distribution reads {distribution.size} numbers for {num_instruments} instruments: take "
            "one over all of them"
        )
    if findings:
        raise ValueError("; ".join(findings))
    reader, window_cost = make_encoder(encoder, context_size=width, width=width, lookback=lookback, grid=grid)
    head = SharedActorCritic(width=width, num_outputs=distribution.size)

    def init(key):
        encoder_key, head_key = jax.random.split(key)
        context, account = jnp.zeros((num_instruments, width)), jnp.zeros((num_instruments, 2))
        return {
            "encoder": reader.init(encoder_key, jnp.zeros((1, num_features), jnp.float32)),
            "head": head.init(head_key, context, account),
        }

    def encode(params, features, first=0) -> Any:
        own = jnp.moveaxis(features.reshape(-1, num_instruments, num_features), 1, 0)
        contexts: Any = jax.vmap(lambda rows: reader.apply(params["encoder"], rows, first))(own)
        return jnp.moveaxis(contexts, 0, 1).reshape(-1, num_instruments * width)

    def apply(params, context, account):
        # The account view is the weights last asked for, then the weights held.
        own = jnp.swapaxes(account.reshape(*account.shape[:-1], 2, num_instruments), -1, -2)
        result: Any = head.apply(
            params["head"], context.reshape(*context.shape[:-1], num_instruments, width), own
        )
        outputs, value = result
        return distribution.parameters(outputs.astype(jnp.float32)), value.astype(jnp.float32)

    return Policy(
        init=init,
        encode=encode,
        apply=apply,
        lookback=lookback,
        distribution=distribution,
        grid=grid if encoder == "gru" else 0,
        window_cost=window_cost,
    )
