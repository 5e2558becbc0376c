"""Small markets, policies and made-up rollouts that the tests of PPO share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ztb_jax.data import synthetic
from ztb_jax.data.market import MarketData, make_costs, make_market_data
from ztb_jax.optimizers import Trained, as_arrays, optimizer_of
from ztb_jax.policies.policy import Policy, make_policy, nothing_remembered
from ztb_jax.ppo.hyper import Hyper
from ztb_jax.ppo.minibatches import choose_minibatching, epoch_orders
from ztb_jax.ppo.rollout import Rollout
from ztb_jax.ppo.update import UpdateSpec, make_update, samples_of

# Half the time to compile; the arithmetic is the same.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

T, G, S = 8, 4, 4  # of made-up rollouts
LOOKBACK = 4


def market(num_bars: int = 200, *, seed: int = 0, lookback: int = LOOKBACK) -> MarketData:
    """An AR(1) market whose one feature is the last return."""
    frame = synthetic.ar1(seed, num_bars)
    returns = frame["close"].pct_change().fillna(0.0).to_numpy()
    return make_market_data(
        frame,
        (returns / returns.std())[:, None],
        costs=make_costs(fee_rate=5e-4, half_spread=0.0, slippage=0.0),
        lookback=lookback,
        start=lookback - 1,
    )


def network(**changes) -> Policy:
    sizes = {"num_features": 1, "account_size": 2, "num_actions": 3, "lookback": LOOKBACK, "width": 8}
    return make_policy(**{**sizes, **changes})


def unsettled(policy: Policy, *, scale: float = 0.5, outputs: float = 1.0):
    """Made-up weights, away from where training begins, so that no output is nearly constant.

    Drawn in NumPy: the orthogonal weights that a policy begins with take seconds to compile.

    Args:
      policy: whose weights.
      scale: of every weight.
      outputs: times this in the head's last layer.
    """
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        size = scale * (outputs if "outputs" in jax.tree_util.keystr(path) else 1.0)
        return jnp.asarray(size * rng.normal(size=leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def ready(policy: Policy, **scales) -> Policy:
    """`policy` that begins with `unsettled` weights."""

    def init(key):
        del key
        return unsettled(policy, **scales)

    return policy._replace(init=init)


def made_up(policy: Policy, *, num_bars: int = 200, seed: int = 0) -> Rollout:
    """A rollout that nobody played: any numbers will do for the arithmetic that follows one."""
    rng = np.random.default_rng(seed)
    shape = (T, G, S)

    def normal(*size, scale=1.0):
        return jnp.asarray(scale * rng.normal(size=size), jnp.float32)

    memory = nothing_remembered(policy, (G, S))
    return Rollout(
        start=jnp.asarray(rng.integers(policy.lookback - 1, num_bars - T - 1, G), jnp.int32),
        memory=None if memory is None else normal(*memory.shape, scale=0.5),
        fresh=jnp.asarray(rng.uniform(size=(G, S)) < 0.3),
        account=normal(*shape, 2),
        action=jnp.asarray(rng.integers(0, 3, shape), jnp.int32),
        log_prob=normal(*shape, scale=0.3) - 1.1,
        value=normal(*shape),
        reward=normal(*shape),
        terminated=jnp.asarray(rng.uniform(size=shape) < 0.15),
        allowed=None,
        final_value=normal(G, S),
    )


def spec(*, shuffle: str = "accounts", num_minibatches: int = 1, **changes) -> UpdateSpec:
    cut = choose_minibatching(
        num_groups=G, sharing=S, rollout_bars=T, num_minibatches=num_minibatches, shuffle=shuffle
    )
    return UpdateSpec(cut, rollout_bars=T, **{"epochs": 1, **changes})


@functools.cache
def compiled_update(policy: Policy, how: UpdateSpec):
    """(rollout, trained, data, hyper) -> (trained, metrics), with the key 0."""
    update = make_update(policy, how)

    @jit
    def run(rollout, trained, data, hyper):
        samples = samples_of(rollout, gamma=hyper.gamma, lam=hyper.lam)
        return update(
            jax.random.key(0), trained, start=rollout.start, samples=samples, data=data, hyper=hyper
        )

    return run


def updated(policy, how, rollout, *, params=None, data=None, **numbers):
    """What `compiled_update` makes of `rollout` with a new optimiser."""
    hyper = as_arrays(Hyper(**numbers))
    params = unsettled(policy) if params is None else params
    trained = Trained(params, optimizer_of(how.optimizer, hyper).init(params))
    return compiled_update(policy, how)(rollout, trained, market() if data is None else data, hyper)


def orders_of(how: UpdateSpec) -> np.ndarray:
    """[epochs, units] the orders that `compiled_update` takes."""
    return np.asarray(epoch_orders(jax.random.key(0), epochs=how.epochs, cut=how.cut))


def assert_close(one, other, *, rtol=1e-5, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)
