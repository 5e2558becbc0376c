"""Risk of a book of signed weights: value at risk, shared correlation, sectors, margin. Pure functions.

Axes: A instruments, n returns, K sectors. A weight is the signed value of a holding over *equity*, so every
figure grows with the size of the book, and a hedge counts as one.
"""

from statistics import NormalDist

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs.fusion import norm, product

METHODS = ("variance_covariance", "historical", "monte_carlo")
BAND = 0.1  # the lower and upper figures lie this fraction beside the value at risk


class ValueAtRisk(struct.PyTreeNode):
    """A loss of the next bar that is exceeded with probability 1 - confidence, as a fraction of equity.

    Attributes:
      var: [] float32, never negative.
      var_lower: [] float32, 0.9 x var.
      var_upper: [] float32, 1.1 x var.
      method: one of `METHODS`.
    """

    var: jax.Array
    var_lower: jax.Array
    var_upper: jax.Array
    method: str = struct.field(pytree_node=False)


def z_score(confidence: float) -> float:
    """The standard normal quantile: 1.282, 1.645, 2.326 and 3.090 at 0.90, 0.95, 0.99 and 0.999.

    Raises:
      ValueError: not strictly between 0 and 1.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not strictly between 0 and 1")
    return NormalDist().inv_cdf(confidence)


def covariance(returns: jax.Array) -> jax.Array:
    """[A, A] sample covariance of returns [n, A], over n - 1."""
    centred = _centred(returns)
    return product(centred.T, centred)


def correlation(matrix: jax.Array) -> jax.Array:
    """[A, A] correlation of a covariance [A, A]; what never moved is correlated with nothing but itself."""
    deviation = jnp.sqrt(jnp.diagonal(matrix))
    moves = deviation > 0
    scale = jnp.where(moves, 1.0 / jnp.where(moves, deviation, 1.0), 0.0)
    shared = jnp.clip(matrix * scale[:, None] * scale[None, :], -1.0, 1.0)
    return jnp.where(jnp.eye(len(matrix), dtype=bool), 1.0, shared)


def value_at_risk(
    weights: jax.Array,
    returns: jax.Array,
    *,
    confidence: float = 0.95,
    method: str = "variance_covariance",
    key: jax.Array | None = None,
    num_draws: int = 10_000,
) -> ValueAtRisk:
    """Value at risk over one bar; all zero without instruments or returns.

    With p = returns @ weights, c the confidence and p sorted ascending:
      variance_covariance: z(c) x the sample deviation of p, which is z(c) sqrt(w' S w). The mean of a bar is
        noise beside its deviation, and taken as 0, so a book and its mirror image are equally risky.
      historical: -p[int((1 - c) n)]: here they are not, for the tails differ. 0 if that return is a gain.
      monte_carlo: the same of `num_draws` draws from the normal distribution with covariance S and mean 0.

    Args:
      weights: [A] signed value of each holding over equity.
      returns: [n, A] simple returns of bars.
      confidence: strictly between 0 and 1.
      method: one of `METHODS`.
      key: of monte_carlo's draws.
      num_draws: of monte_carlo.

    Raises:
      ValueError: an unknown method, a confidence out of range, monte_carlo without a key.
    """
    chex.assert_rank([weights, returns], [1, 2])
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    score = z_score(confidence)
    if 0 in returns.shape:
        var = jnp.float32(0)
    elif method == "variance_covariance":
        var = score * norm(product(_centred(returns), weights))
    elif method == "historical":
        var = _tail_loss(product(returns, weights), confidence)
    else:
        if key is None:
            raise ValueError("monte_carlo draws at random: give it a key")
        factor = jnp.linalg.qr(_centred(returns), mode="r")
        draws = jax.random.normal(key, (num_draws, len(factor)))
        var = _tail_loss(product(draws, product(factor, weights)), confidence)
    return ValueAtRisk(var=var, var_lower=(1 - BAND) * var, var_upper=(1 + BAND) * var, method=method)


def correlation_exposure(weights: jax.Array, matrix: jax.Array) -> jax.Array:
    """[] the largest |rho_ij| (|w_i| + |w_j|) / sum |w| of two different instruments that are both held.

    1 when two perfectly correlated holdings are all there is, 0 with fewer than two holdings. A hedge counts
    like a doubled bet: both live by the correlation. Scaling the whole book changes nothing.

    Args:
      weights: [A].
      matrix: [A, A] correlation.
    """
    size = jnp.abs(weights)
    held = size > 0
    pair = held[:, None] & held[None, :] & ~jnp.eye(len(weights), dtype=bool)
    shared = jnp.where(pair, jnp.abs(matrix) * (size[:, None] + size[None, :]), 0.0)
    gross = size.sum()
    return shared.max(initial=0.0) / jnp.where(gross > 0, gross, 1.0)


def sector_shares(weights: jax.Array, groups: jax.Array) -> jax.Array:
    """[K] sum of |w| of each sector's members, over equity: long and short do not net.

    Args:
      weights: [A].
      groups: [A, K] 1 for a member, else 0.
    """
    return product(groups.astype(jnp.float32).T, jnp.abs(weights))


def margin_share(weights: jax.Array, *, rate: jax.Array, buffer: jax.Array) -> jax.Array:
    """[] share of equity that brokers ask for: `rate` of every holding, and `buffer` of that on top."""
    return rate * (1.0 + buffer) * jnp.abs(weights).sum()


def _centred(returns: jax.Array) -> jax.Array:
    """[n, A] deviations from the mean over sqrt(n - 1): a square root of the covariance."""
    return (returns - returns.mean(axis=0, keepdims=True)) / max(len(returns) - 1, 1) ** 0.5


def _tail_loss(profits: jax.Array, confidence: float) -> jax.Array:
    return jnp.maximum(-jnp.sort(profits)[int((1 - confidence) * len(profits))], 0.0)
