"""Distributions over continuous actions.

A raw action is what has no bound: the value before tanh, the logit of a share, the logs of shares. Nothing
has to be clipped away from an edge, so the log-probability that is stored is that of what was played.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, digamma

from ztb_jax.keys import in_a_row
from ztb_jax.policies.distribution import Distribution

# Log of a Gaussian's deviation before tanh. Above 1 nearly all of it lies at the two bounds.
LOG_STD_RANGE = (-5.0, 1.0)
INITIAL_STD = 0.6
# Outputs of a concentration. Above, float32 loses the normaliser's last digits; below, softplus is 0.
CONCENTRATION_RANGE = (-10.0, 1000.0)
LEAST_CONCENTRATION = 0.1

# Gauss-Hermite for a standard normal. They err by 4e-4 nats at a deviation of 1.6, by 8e-3 at the largest.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


class Gaussian(NamedTuple):
    """Parameters of `squashed_gaussian`, [...] or [..., n] float32 each, before tanh."""

    mean: jax.Array
    log_std: jax.Array


class Excess(NamedTuple):
    """Parameters of `beta`: what the concentrations exceed 1 by, [...] or [..., n] float32 each, positive."""

    high: jax.Array
    low: jax.Array


def squashed_gaussian(n: int | None = None, *, low: float = -1.0, high: float = 1.0) -> Distribution:
    """A Gaussian through tanh, scaled to [low, high], for `n` independent components.

    The raw action u is the value before tanh, so log-probabilities are exact:

        a = low + (high - low) (tanh u + 1) / 2
        log p(a) = log N(u; mean, std) - log((high - low) / 2) - 2 (log 2 - u - softplus(-2 u))

    Outputs are n means, then n logs of std, offset so that 0 is `INITIAL_STD` and clipped to `LOG_STD_RANGE`.
    The entropy is the Gaussian's plus the expected log of the derivative, which has no closed form:
    Gauss-Hermite quadrature at fixed nodes. The mode is the median, tanh of the mean.

    Args:
      n: components; None is one action of shape ().
      low: smallest value of the action.
      high: largest.

    Raises:
      ValueError: no component, or bounds that are not finite or not in order.

    Source: Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905, appendix C.
    """
    _check(n, low, high)
    half = 0.5 * (high - low)

    def parameters(outputs):
        mean, log_std = _halves(outputs, n)
        return Gaussian(mean, jnp.clip(log_std + math.log(INITIAL_STD), *LOG_STD_RANGE))

    def log_slope(raw):
        return math.log(half) + 2.0 * (math.log(2.0) - raw - jax.nn.softplus(-2.0 * raw))

    def log_prob(at, raw):
        distance = (raw - at.mean) * jnp.exp(-at.log_std)
        density = -0.5 * jnp.square(distance) - at.log_std - 0.5 * math.log(2.0 * math.pi)
        return _total(density - log_slope(raw), n)

    def entropy(at):
        nodes = jnp.asarray(_NODES, jnp.float32).reshape((1,) * at.mean.ndim + (-1,))
        slopes = log_slope(at.mean[..., None] + jnp.exp(at.log_std)[..., None] * nodes)
        weights = jnp.asarray(_WEIGHTS, jnp.float32).reshape(nodes.shape)
        expected = (weights * slopes).sum(axis=-1)
        return _total(0.5 * math.log(2.0 * math.pi * math.e) + at.log_std + expected, n)

    return Distribution(
        size=2 * (n or 1),
        shape=_shape(n),
        draw=lambda key, shape: in_a_row(jax.random.normal, key, (*shape, *_shape(n))),
        parameters=parameters,
        sample=lambda noise, at: at.mean + jnp.exp(at.log_std) * noise,
        log_prob=log_prob,
        entropy=entropy,
        mode=lambda at: at.mean,
        act=lambda raw: jnp.clip(low + half * (jnp.tanh(raw) + 1.0), low, high),
    )


def beta(n: int | None = None, *, low: float = -1.0, high: float = 1.0) -> Distribution:
    """A beta distribution over [low, high], with one mode, for `n` independent components.

    The raw action r is the logit of the share x of the range:

        x = sigmoid r,  a = low + (high - low) x
        log p(a) = (A - 1) log x + (B - 1) log(1 - x) - log Beta(A, B) - log(high - low)

    with A = 1 + softplus of the first n outputs and B of the last, clipped to `CONCENTRATION_RANGE`. The
    noise is a key for each step. What an evaluation plays is the mean: near the uniform distribution, where a
    policy begins, the mode (A - 1) / (A + B - 2) is anything between the bounds.

    Args:
      n: components; None is one action of shape ().
      low: smallest value of the action.
      high: largest.

    Raises:
      ValueError: no component, or bounds that are not finite or not in order.

    Source: Chou et al. 2017, https://proceedings.mlr.press/v70/chou17a.html.
    """
    _check(n, low, high)
    log_width = math.log(high - low)

    def parameters(outputs):
        return Excess(*_halves(jax.nn.softplus(jnp.clip(outputs, *CONCENTRATION_RANGE)), n))

    def sample(key, at):
        gammas = jax.random.loggamma(key, 1.0 + jnp.stack(at))
        return gammas[0] - gammas[1]

    def log_prob(at, raw):
        shares = at.high * jax.nn.log_sigmoid(raw) + at.low * jax.nn.log_sigmoid(-raw)
        return _total(shares - betaln(1.0 + at.high, 1.0 + at.low) - log_width, n)

    def entropy(at):
        both = at.high + at.low
        expected = (
            at.high * digamma(1.0 + at.high) + at.low * digamma(1.0 + at.low) - both * digamma(2.0 + both)
        )
        return _total(betaln(1.0 + at.high, 1.0 + at.low) - expected + log_width, n)

    return Distribution(
        size=2 * (n or 1),
        shape=_shape(n),
        draw=_keys,
        parameters=parameters,
        sample=sample,
        log_prob=log_prob,
        entropy=entropy,
        mode=lambda at: jnp.log1p(at.high) - jnp.log1p(at.low),
        act=lambda raw: jnp.clip(low + (high - low) * jax.nn.sigmoid(raw), low, high),
    )


def dirichlet(n: int, *, cash: bool = True) -> Distribution:
    """Long-only weights of `n` instruments, which add up to 1 with cash, or without it to at most 1.

    The raw action is the logs of the shares x [n + 1], cash last, or [n] where there is no cash:

        log p(x) = sum (A_i - 1) log x_i - sum log Gamma(A_i) + log Gamma(sum A_i)

    with A = `LEAST_CONCENTRATION` + softplus(outputs + offset), its argument clipped to
    `CONCENTRATION_RANGE`. The offset makes A 1 at 0, so that a new policy is uniform over the simplex. The
    density is over all shares but one. The noise is a key for each step. As the mode is a corner where A is
    below 1, evaluation plays the mean, A / sum A.

    Args:
      n: instruments.
      cash: whether a part may stay uninvested.

    Raises:
      ValueError: fewer than two shares.
    """
    count = n + cash
    if n < 1 or count < 2:
        raise ValueError(
            f"a share of {n} instruments without another is always 1: take n=2 or more, or cash=True"
        )
    offset = math.log(math.expm1(1.0 - LEAST_CONCENTRATION))

    def parameters(outputs):
        return LEAST_CONCENTRATION + jax.nn.softplus(jnp.clip(outputs + offset, *CONCENTRATION_RANGE))

    def normaliser(alpha):
        # Broken off share by share: the sum of log-gammas less that of the sum cancels in float32.
        rest = jnp.flip(jnp.cumsum(jnp.flip(alpha, -1), axis=-1), -1)
        return betaln(alpha[..., :-1], rest[..., 1:]).sum(axis=-1)

    def entropy(alpha):
        total = alpha.sum(axis=-1)
        expected = ((alpha - 1.0) * (digamma(alpha) - digamma(total)[..., None])).sum(axis=-1)
        return normaliser(alpha) - expected

    return Distribution(
        size=count,
        shape=(count,),
        draw=_keys,
        parameters=parameters,
        sample=lambda key, alpha: jax.nn.log_softmax(jax.random.loggamma(key, alpha)),
        log_prob=lambda alpha, raw: ((alpha - 1.0) * raw).sum(axis=-1) - normaliser(alpha),
        entropy=entropy,
        mode=lambda alpha: jnp.log(alpha / alpha.sum(axis=-1, keepdims=True)),
        act=lambda raw: jnp.exp(raw[..., :n]),
    )


def _check(n: int | None, low: float, high: float) -> None:
    findings = (
        [] if n is None or n >= 1 else [f"n ({n}) must be at least 1, or None for an action of shape ()"]
    )
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        findings.append(f"low ({low}) must be below high ({high}), and both finite")
    if findings:
        raise ValueError("; ".join(findings))


def _shape(n: int | None) -> tuple[int, ...]:
    return () if n is None else (n,)


def _halves(outputs, n: int | None):
    """[..., 2 n] -> twice [..., n]; twice [...] where n is None."""
    first, last = jnp.split(outputs, 2, axis=-1)
    return (first[..., 0], last[..., 0]) if n is None else (first, last)


def _total(each, n: int | None):
    """[...] over independent components."""
    return each if n is None else each.sum(axis=-1)


def _keys(key, shape):
    return jax.random.split(key, shape[0])
