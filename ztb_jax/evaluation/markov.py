"""The optimal policy of a market whose future depends on one observed number, by value iteration.

The number, the *state* x, is what an agent can know of the future: the last return of an AR(1), a signal, a
leaked return, the belief in a hidden regime. It is a Markov chain that no trade moves, so the value of being
at a level is a function of the state alone. Axes: T bars, N points of a grid of states, A levels.

Relative value iteration for the average reward, with the reward to second order in log growth:

    Q(x, p) = p m(x) - p² sigma² / 2 + E[V(x', p) | x]        V(x, q) = max_p(Q(x, p) - cost |p - q|)

Source: Puterman 1994, Markov Decision Processes, section 8.5.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ztb_jax.evaluation.oracle import (
    DEFAULT_LEVELS,
    best_level,
    charge,
    checked_cost,
    checked_levels,
    checked_series,
    one_bar,
    walk,
)

SPAN = 8.0
SETTLED = 1e-12
QUADRATURE = 64


class MarkovPolicy(NamedTuple):
    """An optimal policy: calling it gives the level to take.

    Attributes:
      levels: [A] float64 candidate levels, ascending.
      grid: [N] float64 states at which `values` is known, ascending.
      values: [A, N] float64 value of being at a level until the next decision, before the cost of
        getting there; relative to an arbitrary constant.
      cost: one-way cost, fraction of the value traded.
      gain: optimal mean log growth per bar, net of costs.
    """

    levels: np.ndarray
    grid: np.ndarray
    values: np.ndarray
    cost: float
    gain: float

    def __call__(self, state: np.ndarray | float, previous: np.ndarray | float) -> np.ndarray:
        """Level to take in `state` when holding `previous`; both broadcast together, float64."""
        state, previous = np.broadcast_arrays(np.float64(state), np.float64(previous))
        values = np.stack([np.interp(state, self.grid, row) for row in self.values])
        return best_level(values, self.levels, previous, self.cost)

    def follow(self, states: np.ndarray) -> np.ndarray:
        """[T] float64 levels taken in each of states [T], starting flat."""
        held = np.union1d(self.levels, 0.0)
        return walk(self(checked_series(states, "states")[:, None], held[None, :]), held)


def signal_policy(
    persistence: float,
    innovation: float,
    cost: float,
    *,
    loading: float = 1.0,
    sigma: float = 0.0,
    levels: Sequence[float] = DEFAULT_LEVELS,
    grid: int = 801,
) -> MarkovPolicy:
    """The optimal policy of a market that is forecast by a Gaussian signal x:

        x[t+1] = persistence x[t] + innovation eps[t+1]         m(x) = loading x

    on a grid over ±8 stationary standard deviations, transitions by the normal probability of each cell.
    A leaked next return has persistence 0 and sigma 0. Limits: without persistence all levels that are
    equally far from the others are worth the same tomorrow, so trading is myopic between them; at zero cost
    the policy is the myopic one; where trading never pays it stays flat.

    Args:
      persistence: of the signal, in (-1, 1).
      innovation: standard deviation of what is new in the signal in a bar, positive.
      cost: one-way cost, fraction of the value traded; finite.
      loading: mean of the next return per unit of signal.
      sigma: standard deviation of the next return around that mean; 0 where the signal tells all.
      levels: levels that may be chosen.
      grid: number of grid points; values are interpolated between them.

    Raises:
      ValueError: an argument is out of range, or the iteration does not settle.
    """
    if not -1.0 < persistence < 1.0:
        raise ValueError(
            f"persistence (phi of an AR(1)) is {persistence}: a signal is stationary only between -1 "
            "and 1, both excluded."
        )
    _check_grid(grid)
    if not (math.isfinite(innovation) and innovation > 0.0):
        raise ValueError(f"innovation (sigma of an AR(1)) is {innovation}: give a positive deviation.")
    points = np.linspace(-SPAN, SPAN, grid) * innovation / np.sqrt(1.0 - persistence**2)
    transition = _normal_cells(points, persistence * points, innovation)
    return _iterate(points, loading * points, transition, sigma=sigma, cost=cost, levels=levels)


def ar1_policy(
    phi: float, sigma: float, cost: float, *, levels: Sequence[float] = DEFAULT_LEVELS, grid: int = 801
) -> MarkovPolicy:
    """The optimal policy of r[t+1] = phi r[t] + sigma eps[t+1], eps standard normal; the state is r[t].

    It is `signal_policy` of a signal that is the last return itself. Limits: at phi = 0 it never trades.
    """
    return signal_policy(phi, sigma, cost, loading=phi, sigma=sigma, levels=levels, grid=grid)


def regime_policy(
    drift: float,
    persistence: float,
    volatility: float,
    cost: float,
    *,
    levels: Sequence[float] = DEFAULT_LEVELS,
    grid: int = 401,
) -> MarkovPolicy:
    """The optimal policy of two hidden regimes of drift ±drift; the state is `regime_belief`.

    The belief b is all that the past tells of the future (Åström 1965), and m(b) = (2 b - 1) drift. It moves
    by the filter under the mixture that it believes in; the expectation is a Gauss-Hermite sum in each
    regime, and the new belief is shared out between the two nearest of the grid's points, evenly spaced
    in [1 - persistence, persistence].

    Args:
      drift: mean simple return of the rising regime, minus that of the falling one; in (0, 1).
      persistence: probability that a regime stays for a bar, in (½, 1).
      volatility: standard deviation of the log return within a regime, positive.
      cost: one-way cost, fraction of the value traded; finite.
      levels: levels that may be chosen.
      grid: number of grid points.

    Raises:
      ValueError: an argument is out of range, or the iteration does not settle.
    """
    _check_regimes(drift, persistence, volatility)
    _check_grid(grid)
    points = np.linspace(1.0 - persistence, persistence, grid)
    normals, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
    means = _regime_means(drift, volatility)
    transition = np.zeros((grid, grid))
    for mean, believed in zip(means, (points, 1.0 - points), strict=True):
        evidence = _log_odds_of(mean + volatility * normals, means, volatility)
        moved = _moved_on(points[:, None], evidence[None, :], persistence)
        chance = believed[:, None] * (weights / weights.sum())[None, :]
        transition += _shared_out(moved, chance, points)
    reward = drift * (2.0 * points - 1.0)
    return _iterate(points, reward, transition, sigma=volatility, cost=cost, levels=levels)


def regime_belief(returns: np.ndarray, *, drift: float, persistence: float, volatility: float) -> np.ndarray:
    """[T] float64 probability, after each return, that the *next* bar is of the rising regime.

    The Bayes filter of a hidden Markov model whose parameters are known, begun at ½:

        b[t] = P(up[t+1] | r[0..t]),    odds = b[t-1] / (1 - b[t-1]) · p(r[t] | up) / p(r[t] | down),
        b[t] = persistence u + (1 - persistence) (1 - u),    u = odds / (1 + odds)

    with log(1 + r) normal in each regime, of deviation `volatility`, such that E[r] = ±drift: the market
    `data.synthetic.regimes` without clusters of volatility and without jumps.

    Args:
      returns: [T] simple returns, each above -1.
      drift: as in `regime_policy`.
      persistence: as in `regime_policy`.
      volatility: as in `regime_policy`.

    Raises:
      ValueError: an argument is out of range, or returns are empty, not finite, or -1 or less.

    Source: Hamilton 1989, Econometrica 57(2).
    """
    _check_regimes(drift, persistence, volatility)
    values = checked_series(returns, "returns")
    if values.min() <= -1.0:
        raise ValueError(f"returns fall to {values.min()}: a simple return is above -1.")
    evidence = _log_odds_of(np.log1p(values), _regime_means(drift, volatility), volatility)
    belief, beliefs = 0.5, []
    for odds in np.exp(np.clip(evidence, -500.0, 500.0)).tolist():
        up = belief * odds / (belief * odds + 1.0 - belief)
        belief = persistence * up + (1.0 - persistence) * (1.0 - up)
        beliefs.append(belief)
    return np.asarray(beliefs)


def _iterate(
    points: np.ndarray,
    mean: np.ndarray,
    transition: np.ndarray,
    *,
    sigma: float,
    cost: float,
    levels: Sequence[float],
) -> MarkovPolicy:
    """Relative value iteration over states `points` [N] of conditional mean [N] and transition [N, N]."""
    if not (math.isfinite(checked_cost(cost)) and math.isfinite(sigma) and sigma >= 0.0):
        raise ValueError(
            f"cost is {cost} and sigma {sigma}: both must be finite, and sigma zero or more. With a cost "
            "that nobody pays there is no long run to optimise."
        )
    allowed = checked_levels(levels)
    reward = one_bar(mean[:, None], allowed, sigma).T
    switch = charge(np.abs(allowed[:, None] - allowed[None, :]), cost)
    middle = points.size // 2
    ahead = np.zeros((allowed.size, points.size))
    for _ in range(5_000):
        values = reward + ahead @ transition.T
        renewed = (values[None] - switch[:, :, None]).max(axis=1)
        change = renewed - ahead
        ahead = renewed - renewed[0, middle]
        if np.ptp(change) < SETTLED:
            return MarkovPolicy(allowed, points, values, cost, float(change.mean()))
    raise ValueError(
        f"Value iteration did not settle in 5,000 rounds at cost {cost}: the state is too persistent, or the "
        f"cost too large for conditional means of up to {np.abs(mean).max():.3g}."
    )


def _normal_cells(points: np.ndarray, means: np.ndarray, sigma: float) -> np.ndarray:
    """[N, N] probability that a normal of each mean falls in the cell around each point; rows sum to one."""
    edges = (points[1:] + points[:-1]) / 2.0
    below = _normal_cdf((edges[None, :] - means[:, None]) / sigma)
    cells = np.diff(below, axis=1, prepend=0.0, append=1.0)
    # Subnormal tails slow every later product down a hundredfold and weigh nothing.
    return np.where(cells > 1e-30, cells, 0.0)


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2.0)))


def _regime_means(drift: float, volatility: float) -> tuple[float, float]:
    """Means of log(1 + r) rising and falling, at which E[r] is ±drift."""
    return math.log1p(drift) - volatility**2 / 2.0, math.log1p(-drift) - volatility**2 / 2.0


def _log_odds_of(log_returns: np.ndarray, means: tuple[float, float], volatility: float) -> np.ndarray:
    """log p(log return | up) - log p(log return | down), normals of one deviation."""
    up, down = means
    return (up - down) * (log_returns - (up + down) / 2.0) / volatility**2


def _moved_on(belief: np.ndarray, evidence: np.ndarray, persistence: float) -> np.ndarray:
    """The filter's next belief after evidence in log odds."""
    odds = belief / (1.0 - belief) * np.exp(np.clip(evidence, -500.0, 500.0))
    return persistence + (1.0 - 2.0 * persistence) / (1.0 + odds)


def _shared_out(moved: np.ndarray, chance: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[N, N] chance [N, Z] of beliefs moved to [N, Z], each shared by its two neighbours among points [N]."""
    size = points.size
    place = np.clip((moved - points[0]) / (points[1] - points[0]), 0.0, size - 1.0)
    below = np.minimum(place.astype(np.int64), size - 2)
    share = place - below
    shared = np.zeros((size, size))
    rows = np.broadcast_to(np.arange(size)[:, None], moved.shape)
    np.add.at(shared, (rows, below), chance * (1.0 - share))
    np.add.at(shared, (rows, below + 1), chance * share)
    return shared


def _check_grid(grid: int) -> None:
    if grid < 3:
        raise ValueError(f"grid is {grid}: give at least 3 points.")


def _check_regimes(drift: float, persistence: float, volatility: float) -> None:
    findings = [] if 0.0 < drift < 1.0 else [f"drift is {drift}: give a return between 0 and 1"]
    if not 0.5 < persistence < 1.0:
        findings.append(f"persistence is {persistence}: give a probability between one half and 1")
    if not (math.isfinite(volatility) and volatility > 0.0):
        findings.append(f"volatility is {volatility}: give a positive deviation")
    if findings:
        raise ValueError("; ".join(findings) + ".")
