"""What a portfolio may be: limits, how far a book is from them, and the nearest kept book by shrinking it.

Axes: A instruments, K sectors, P = A (A - 1) / 2 pairs i < j, row by row. The rules are in
`docs/reference/portfolio.md`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs.fusion import largest, norm, smallest, total
from envs.risk import z_score

OK, VAR, CORRELATION, SECTOR, MARGIN, WEIGHT, GROSS = range(7)
SENTENCES = (
    "all limits are kept",
    "the value at risk is above max_portfolio_var",
    "two correlated holdings are more of the book than max_correlation_exposure",
    "a sector is more of the equity than max_sector_allocation",
    "the margin asked for, with its buffer, is more than the equity",
    "a weight is above max_weight",
    "the sum of absolute weights is above max_gross",
)
TOLERANCE = 2e-6  # relative; a book brought to a limit is within it, whatever float32 makes of the last digit
ROUNDS = 64
_NOT_HELD = 1e9
AIM = 0.99  # a cut pair ends this share of its limit, so that few rounds are enough


class RiskLimits(struct.PyTreeNode):
    """Limits of a portfolio; all fractions of equity, [] float32. One that is None does not exist.

    Attributes:
      max_portfolio_var: of the value at risk over a bar, by variance and covariance.
      max_correlation_exposure: of `envs.risk.correlation_exposure`.
      max_sector_allocation: of the absolute weights of any sector.
      margin_rate: margin asked for each holding, over its value.
      margin_buffer: share of the margin that is kept on top of it.
      max_weight: of an absolute weight, [] or [A].
      max_gross: of the sum of absolute weights: the leverage.
      window: bars that covariance and correlation look back.
      confidence: of the value at risk.
    """

    max_portfolio_var: jax.Array | np.float32 | None = np.float32(0.02)
    max_correlation_exposure: jax.Array | np.float32 | None = np.float32(0.7)
    max_sector_allocation: jax.Array | np.float32 | None = np.float32(0.4)
    margin_rate: jax.Array | np.float32 | None = np.float32(0.02)
    margin_buffer: jax.Array | np.float32 = np.float32(0.1)
    max_weight: jax.Array | np.float32 | None = None
    max_gross: jax.Array | np.float32 | None = None
    window: int = struct.field(pytree_node=False, default=100)
    confidence: float = struct.field(pytree_node=False, default=0.95)


class Known(NamedTuple):
    """What the limits know at a close; shared by all accounts of a group.

    Attributes:
      factor: [A, A] a square root U of the covariance U'U.
      correlation: [P] absolute correlation of each pair; 0 where neither will be free.
      groups: [A, K] 1 for a member of a sector, else 0; None without sectors.
    """

    factor: jax.Array
    correlation: jax.Array
    groups: jax.Array | None


class Exposures(struct.PyTreeNode):
    """How large the risks of a book are. [] float32 each, fractions of equity unless told otherwise.

    Attributes:
      var: value at risk over a bar.
      correlation: `envs.risk.correlation_exposure`, a fraction of the gross.
      sector: the largest sector's share; 0 without sectors.
      gross: sum of absolute weights.
      excess: largest |w_i| over `max_weight`; 0 without that limit.
    """

    var: jax.Array
    correlation: jax.Array
    sector: jax.Array
    gross: jax.Array
    excess: jax.Array


def measure(weights: jax.Array, known: Known, limits: RiskLimits) -> Exposures:
    """The exposures of a book of `weights` [A]."""
    size = jnp.abs(weights)
    gross = total(size)
    none = jnp.zeros_like(gross)
    excess = none if limits.max_weight is None else largest(size / limits.max_weight)
    return Exposures(
        var=z_score(limits.confidence) * norm(_times(known.factor, weights)),
        correlation=_worst_share(size, known.correlation),
        sector=none if known.groups is None else largest(_times(known.groups.T, size)),
        gross=gross,
        excess=excess,
    )


def violations(exposures: Exposures, limits: RiskLimits) -> dict[int, jax.Array]:
    """[] bool for each limit that exists, by its code, in the order in which they are checked."""
    margin = None if limits.margin_rate is None else limits.margin_rate * (1.0 + limits.margin_buffer)
    compared = {
        VAR: (exposures.var, limits.max_portfolio_var),
        CORRELATION: (exposures.correlation, limits.max_correlation_exposure),
        SECTOR: (exposures.sector, limits.max_sector_allocation),
        MARGIN: (exposures.gross, None if margin is None else 1.0 / margin),
        WEIGHT: (exposures.excess, None if limits.max_weight is None else 1.0),
        GROSS: (exposures.gross, limits.max_gross),
    }
    return {code: _over(value, most) for code, (value, most) in compared.items() if most is not None}


def check(exposures: Exposures, limits: RiskLimits) -> tuple[jax.Array, jax.Array]:
    """([] bool, [] int32): whether all limits are kept, and the code of the first that is not.

    The order is value at risk, correlation, sector, margin, weight, gross; `SENTENCES[code]` says it.
    """
    code = jnp.int32(OK)
    for of, broken in reversed(violations(exposures, limits).items()):
        code = jnp.where(broken, of, code)
    return code == OK, code


def project(
    weights: jax.Array, known: Known, limits: RiskLimits, *, free: jax.Array | None = None
) -> jax.Array:
    """[A] `weights` shrunk until every limit is kept; the very same weights where they all are already.

    In order: each weight to its cap; each sector's members by one factor; the correlated pairs, see
    `_spread_out`; all weights by one factor to the gross and the margin; all by one factor to the value at
    risk, which is homogeneous of degree 1. What comes later undoes nothing that came before.

    Args:
      weights: [A] signed value over equity.
      known: at the close of the decision.
      limits: those that exist.
      free: [A] bool, what may be changed; None is all. The rest counts against the limits and stays as it is;
        where no choice of the free part keeps a limit, that part is flat, or of the value at risk what comes
        nearest, for it may be the hedge.
    """
    size = jnp.abs(weights)
    if limits.max_weight is not None:
        size = _shrunk(size, jnp.minimum(size, limits.max_weight), free)
    if limits.max_sector_allocation is not None and known.groups is not None:
        size = _fit_sectors(size, known.groups, limits.max_sector_allocation, free)
    if limits.max_correlation_exposure is not None and len(known.correlation):
        size = _spread_out(size, known.correlation, limits.max_correlation_exposure, free)
    most = _largest_gross(limits)
    if most is not None:
        fixed = jnp.float32(0) if free is None else total(jnp.where(free, 0.0, size))
        size = _shrunk(size, size * _fitting(total(size), fixed, most), free)
    weights = jnp.copysign(size, weights)
    if limits.max_portfolio_var is not None:
        deviation = limits.max_portfolio_var / z_score(limits.confidence)
        weights = _shrunk(weights, weights * _fitting_deviation(weights, known.factor, deviation, free), free)
    if free is not None and limits.max_correlation_exposure is not None and len(known.correlation):
        # What is fixed is a larger part of a smaller book.
        worst = _worst_share(jnp.abs(weights), known.correlation)
        broken = _over(worst, limits.max_correlation_exposure)
        weights = jnp.where(broken & free, 0.0, weights)
    return weights


def _over(value, most):
    return value > most * (1.0 + TOLERANCE)


def _shrunk(old, new, free):
    return new if free is None else jnp.where(free, new, old)


def _largest_gross(limits: RiskLimits):
    most = limits.max_gross
    if limits.margin_rate is None:
        return most
    by_margin = 1.0 / (limits.margin_rate * (1.0 + limits.margin_buffer))
    return by_margin if most is None else jnp.minimum(most, by_margin)


def _fitting(whole, fixed, most):
    """The factor of what may change that brings `whole`, of which `fixed` may not, to at most `most`."""
    room = jnp.maximum(most - fixed, 0.0) / jnp.maximum(whole - fixed, 1e-30)
    return jnp.where(_over(whole, most), jnp.minimum(room, 1.0), 1.0)


def _fit_sectors(size, groups, most, free):
    """Members of a sector above `most` by one factor; a member of several by the smallest of theirs."""
    whole = _times(groups.T, size)
    fixed = jnp.zeros_like(whole) if free is None else _times(groups.T, jnp.where(free, 0.0, size))
    factor = smallest(jnp.where(groups > 0, _fitting(whole, fixed, most)[None, :], 1.0))
    return _shrunk(size, size * factor, free)


def _fitting_deviation(weights, factor, most, free):
    """The largest factor of the free part m of w at which the deviation |U w| is at most `most`.

    It is most / |U w| where all is free, else 1 - t with the smaller root t of
    |U (w - t m)|^2 = |U w|^2 - 2 t U w . U m + t^2 |U m|^2 = most^2, within [0, 1]. Where there is no root,
    the factor at which the deviation is least, which keeps a free part that hedges what is fixed.
    """
    whole = _times(factor, weights)
    deviation = norm(whole)
    if free is None:
        fitting = most / jnp.maximum(deviation, most)
    else:
        moving = _times(factor, jnp.where(free, weights, 0.0))
        square, cross = total(moving**2), total(whole * moving)
        root = jnp.sqrt(jnp.maximum(cross**2 - square * (deviation**2 - most**2), 0.0))
        fitting = 1.0 - jnp.clip((cross - root) / jnp.maximum(square, 1e-30), 0.0, 1.0)
    return jnp.where(_over(deviation, most), fitting, 1.0)


def _spread_out(size, correlation, most, free):
    """[A] `size` cut until no pair's |rho| times its share of the gross is above `most`.

    Round by round the worst pair is brought to where it is just allowed: its larger leg is cut down to the
    smaller one, and from there on both. With r the rest of the gross, the pair may then be r m / (|rho| - m).
    If it is all there is, it goes, for its share is 1 at any size. What still exceeds after `ROUNDS` is flat.

    Of a pair with a single free leg, that leg is cut.
    """

    def proceed(carry):
        rounds, worst, _ = carry
        return _over(worst, most) & (rounds < ROUNDS)

    def cut(carry):
        rounds, _, size = carry
        pair = jnp.concatenate(list(_pairs(size, correlation))).argmax()
        size = _cut_pair(size, pair, correlation, AIM * most, free)
        return rounds + 1, _worst_share(size, correlation), size

    start = jnp.int32(0), _worst_share(size, correlation), size
    _, worst, cut_down = jax.lax.while_loop(proceed, cut, start)
    return _shrunk(size, jnp.where(_over(worst, most), 0.0, cut_down), free)


def _cut_pair(size, pair, correlation, goal, free):
    """[A] `size` with the legs of `pair` [] cut to where |rho| times their share is `goal`."""
    first, second = (jnp.asarray(legs)[pair] for legs in np.triu_indices(len(size), 1))
    one, other = size[first], size[second]
    rest = jnp.maximum(total(size) - one - other, 0.0)
    both = goal * rest / jnp.maximum(correlation[pair] - goal, 1e-6)
    low = jnp.minimum(jnp.minimum(one, other), 0.5 * both)
    new_one = jnp.where(one < other, low, both - low)
    new_other = jnp.where(one < other, both - low, low)
    if free is not None:
        new_one = jnp.where(free[second], new_one, jnp.maximum(both - other, 0.0))
        new_other = jnp.where(free[first], new_other, jnp.maximum(both - one, 0.0))
    index = jnp.arange(len(size))
    new = jnp.where(index == first, new_one, jnp.where(index == second, new_other, size))
    return _shrunk(size, jnp.minimum(size, new), free)


def _worst_share(size, correlation):
    """[] the largest |rho| times a pair's share of the gross; 0 where no two are held."""
    gross = total(size)
    worst = jnp.zeros_like(gross)
    for pairs in _pairs(size, correlation):
        worst = jnp.maximum(worst, largest(pairs))
    return worst / jnp.where(gross > 0, gross, 1.0)


def _pairs(size, correlation):
    """For each i: [A - 1 - i] |rho| x (|w_i| + |w_j|) of all j > i; negative where one is not held."""
    # Slices instead of indexed pairs, for a gather of single numbers is slow on a CPU.
    held, end = jnp.where(size > 0, size, -_NOT_HELD), 0
    for leg in range(len(size) - 1):
        start, end = end, end + len(size) - 1 - leg
        yield correlation[start:end] * (held[leg] + held[leg + 1 :])


def _times(matrix, vector):
    return total(matrix * vector[None, :])
