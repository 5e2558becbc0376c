"""Encoders with a memory of the last `lookback` bars, for whole stretches of bars at once.

Each maps features [T, F] to context [T, D], row t from rows t - lookback + 1 .. t alone; rows before
lookback - 1 mean nothing. The last layer is linear, as `CausalWindow` is: the head adds the account's share
and bends the sum.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ztb_jax.policies.initialisers import orthogonal

ROOT_TWO = 2.0**0.5
FAR = -1e9  # an attention score whose weight is 0
HEADS = 4  # of attention


class LinearRecurrence(nn.Module):
    """A gated linear recurrence h[t] = (1 - z[t]) h[t-1] + z[t] c[t], from zero at the window's first bar.

    Gate z = sigmoid(W x) and candidate c = V x see the bar alone, so the recurrence is associative and all
    windows of a stretch cost two scans over it instead of `lookback` steps each.

    Attributes:
      width: D.
      hidden: size of h.
      lookback: bars in the window.

    Source: the minGRU of Feng et al. 2024, https://arxiv.org/abs/2410.01201.
    """

    width: int
    hidden: int
    lookback: int

    @nn.compact
    def __call__(self, features: jax.Array, first: int = 0) -> jax.Array:
        """Features [T, F] -> context [T - first, D], of the rows from `first` on."""
        both = nn.Dense(2 * self.hidden, kernel_init=orthogonal(1.0), name="input")(features)
        gate, candidate = jnp.split(both, 2, axis=-1)
        gate = nn.sigmoid(gate)
        memory = sliding_recurrence(1.0 - gate, gate * candidate, self.lookback)
        return nn.Dense(self.width, kernel_init=orthogonal(ROOT_TWO), name="output")(memory[first:])


def sliding_recurrence(decay: jax.Array, inflow: jax.Array, length: int) -> jax.Array:
    """[T, D] h[t] of h[s] = decay[s] h[s-1] + inflow[s], started at zero `length` bars before t + 1.

    Blocks of `length` bars are scanned forwards and backwards; a window is the end of one block and the start
    of the next.
    """
    num_bars, size = decay.shape
    num_blocks = -(-num_bars // length)
    short = ((0, num_blocks * length - num_bars), (0, 0))
    blocks = tuple(jnp.pad(leaf, short).reshape(num_blocks, length, size) for leaf in (decay, inflow))
    from_start = jax.lax.associative_scan(_then, blocks, axis=1)
    to_end = jax.lax.associative_scan(lambda late, early: _then(early, late), blocks, axis=1, reverse=True)[1]
    # Row t needs the end of its window's first block, from t - length + 1 on: the block before, a row later.
    before = jnp.pad(to_end[:-1, 1:], ((1, 0), (0, 1), (0, 0)))
    return (from_start[0] * before + from_start[1]).reshape(-1, size)[:num_bars]


def _then(early, late):
    return early[0] * late[0], late[0] * early[1] + late[1]


class GRU(nn.Module):
    """A gated recurrent unit that starts from zero `lookback - 1` bars before each cell of `grid` bars.

    It is not associative, so a start for every bar would cost `lookback` steps a bar. The rows from
    lookback - 1 on are cut into cells of `grid`; within a cell the memory runs on. Rollouts begin at cells
    (`envs.transforms.aligned`), so that rollout, update and evaluation know the same past of every bar.

    Attributes:
      width: D.
      hidden: size of the memory.
      lookback: bars that the first bar of a cell sees.
      grid: bars of a cell.

    Source: Cho et al. 2014, https://arxiv.org/abs/1406.1078; the candidate's reset after the product, as
    cuDNN has it.
    """

    width: int
    hidden: int
    lookback: int
    grid: int

    @nn.compact
    def __call__(self, features: jax.Array, first: int = 0) -> jax.Array:
        """Features [T, F] -> context [T - first, D], of the rows from `first` on."""
        inputs = nn.Dense(3 * self.hidden, kernel_init=nn.initializers.lecun_normal(), name="input")(features)
        recurrent = self.param("recurrent", orthogonal(1.0), (self.hidden, 3 * self.hidden))
        bias = self.param("bias", nn.initializers.zeros, (self.hidden,))
        num_bars, warm = features.shape[0], self.lookback - 1
        num_cells = max(-(-(num_bars - warm) // self.grid), 1)
        padded = jnp.pad(inputs, ((0, warm + num_cells * self.grid - num_bars), (0, 0)))
        cells = jnp.stack(
            [padded[cell * self.grid : (cell + 1) * self.grid + warm] for cell in range(num_cells)], axis=1
        )

        def step(memory, now):
            reset_in, update_in, new_in = jnp.split(now, 3, axis=-1)
            reset_h, update_h, new_h = jnp.split(memory @ recurrent, 3, axis=-1)
            update = nn.sigmoid(update_in + update_h)
            new = jnp.tanh(new_in + nn.sigmoid(reset_in + reset_h) * (new_h + bias[None]))
            memory = update * memory + (1.0 - update) * new
            return memory, memory

        nothing = jnp.zeros_like(cells[0, :, : self.hidden])  # spread over devices where the bars are
        _, memories = jax.lax.scan(step, nothing, cells)
        known = jnp.moveaxis(memories[warm:], 0, 1).reshape(-1, self.hidden)
        memory = jnp.pad(known, ((warm, 0), (0, 0)))[:num_bars]
        return nn.Dense(self.width, kernel_init=orthogonal(ROOT_TWO), name="output")(memory[first:])


class Attention(nn.Module):
    """One block of causal attention over the window, and a two-layer net at every bar.

    A bar looks at itself and the `lookback - 1` before it, through scores that know how far back each is.
    Bars are grouped in blocks of `lookback`, so that a query meets two blocks of keys and not the stretch.

    Attributes:
      width: D.
      hidden: size of the residual stream.
      lookback: bars in the window.
      heads: of attention; divides `hidden`.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; distances as in Shaw et al. 2018.
    """

    width: int
    hidden: int
    lookback: int
    heads: int = HEADS

    @nn.compact
    def __call__(self, features: jax.Array, first: int = 0) -> jax.Array:
        """Features [T, F] -> context [T - first, D], of the rows from `first` on."""
        stream = nn.Dense(self.hidden, name="input")(features)
        queries, keys, values = jnp.split(
            nn.Dense(3 * self.hidden, use_bias=False, name="projections")(
                nn.LayerNorm(name="first_norm")(stream)
            ),
            3,
            axis=-1,
        )
        distance = self.param("distance", nn.initializers.zeros, (self.heads, self.lookback))
        looked = banded_attention(queries, keys, values, distance)
        stream = stream + nn.Dense(self.hidden, name="mixing")(looked)
        bent = nn.gelu(nn.Dense(2 * self.hidden, name="widening")(nn.LayerNorm(name="second_norm")(stream)))
        stream = stream + nn.Dense(self.hidden, name="narrowing")(bent)
        return nn.Dense(self.width, kernel_init=orthogonal(ROOT_TWO), name="output")(stream[first:])


def banded_attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, distance: jax.Array
) -> jax.Array:
    """[T, D] attention of each row over itself and the rows at most L - 1 before it.

    Args:
      queries: [T, D].
      keys: [T, D].
      values: [T, D].
      distance: [H, L] added to the score of a key by how many bars it is back.
    """
    num_bars, size = queries.shape
    heads, length = distance.shape
    num_blocks = -(-num_bars // length)

    def blocked(leaf):
        padded = jnp.pad(leaf, ((0, num_blocks * length - num_bars), (0, 0)))
        return padded.reshape(num_blocks, length, heads, size // heads)

    def with_previous(leaf):
        return jnp.concatenate([jnp.pad(leaf[:-1], ((1, 0), (0, 0), (0, 0), (0, 0))), leaf], axis=1)

    near, asked = with_previous(blocked(keys)), blocked(queries)
    scores = jnp.einsum("nqhd,nkhd->nhqk", asked, near) / (size // heads) ** 0.5 + _band(distance)[None]
    first = (jnp.arange(num_blocks) == 0)[:, None, None, None] & (jnp.arange(2 * length) < length)[
        None, None, None
    ]
    weights = nn.softmax(jnp.where(first, FAR, scores))
    looked = jnp.einsum("nhqk,nkhd->nqhd", weights, with_previous(blocked(values)))
    return looked.reshape(-1, size)[:num_bars]


def _band(distance: jax.Array) -> jax.Array:
    """[H, L, 2 L] of query q and key k, L + q - k bars back: `distance` [H, L] of that, `FAR` where unseen.

    The same row for every query, a column further each. Without a gather, whose gradient GPUs add up in any
    order.
    """
    heads, length = distance.shape
    row = jnp.pad(distance[:, ::-1], ((0, 0), (length, length)), constant_values=FAR)
    rows = jnp.broadcast_to(row[:, None], (heads, length, 3 * length)).reshape(heads, -1)
    skewed = rows[:, : length * (3 * length - 1)].reshape(heads, length, 3 * length - 1)
    return skewed[:, :, length - 1 :]
