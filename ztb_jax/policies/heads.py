"""From context and account to the outputs that a distribution reads, and a value."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ztb_jax.policies.initialisers import orthogonal

ROOT_TWO = 2.0**0.5
FEW = 4


class ActorCritic(nn.Module):
    """Tanh layers of `width`, the first completing the encoder's linear part, for actor and critic.

    With a shared torso context is [..., width] and one network serves both; with separate ones it is
    [..., 2 * width], the actor's half first.

    Attributes:
      width: units of a layer.
      num_outputs: P, what the distribution reads.
      shared: whether actor and critic share the torso.
      depth: layers, the encoder's linear part being of the first.
    """

    width: int
    num_outputs: int
    shared: bool
    depth: int = 2

    @nn.compact
    def __call__(self, context: jax.Array, account: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Context [..., D], account [..., K] -> outputs [..., P], value [...]."""
        account_part = nn.Dense(
            context.shape[-1],
            use_bias=False,
            kernel_init=orthogonal(ROOT_TWO),
            name="account",
        )
        first = context + account_part(account)
        if self.shared:
            return self._outputs(self._hidden(jnp.tanh(first), "torso"), "outputs")
        # Split before the nonlinearity, which can then read its half in place.
        actor, critic = (jnp.tanh(half) for half in jnp.split(first, 2, axis=-1))
        outputs = nn.Dense(
            self.num_outputs, kernel_init=orthogonal(0.01), dot_general=by_columns, name="logits"
        )
        value = nn.Dense(1, kernel_init=orthogonal(1.0), dot_general=by_columns, name="value")
        return outputs(self._hidden(actor, "actor")), value(self._hidden(critic, "critic"))[..., 0]

    def _hidden(self, x: jax.Array, name: str) -> jax.Array:
        for layer in range(2, self.depth + 1):
            named = name if layer == 2 else f"{name}_{layer}"
            x = jnp.tanh(nn.Dense(self.width, kernel_init=orthogonal(ROOT_TWO), name=named)(x))
        return x

    def _outputs(self, x: jax.Array, name: str) -> tuple[jax.Array, jax.Array]:
        # Small for the actor, so that a new policy is unbiased; unit for the value.
        scales = (*[0.01] * self.num_outputs, 1.0)
        dense = nn.Dense(
            self.num_outputs + 1, kernel_init=orthogonal(scales), dot_general=by_columns, name=name
        )
        both = dense(x)
        return both[..., :-1], both[..., -1]


def by_columns(x: jax.Array, kernel: jax.Array, *how: Any, **kwargs: Any) -> jax.Array:
    """`jax.lax.dot_general` of a dense layer, for `FEW` outputs one product with a vector each.

    The gradient of a kernel with two to four columns takes a CPU twice as long as that of its columns.
    """
    if kernel.shape[1] > FEW:
        return jax.lax.dot_general(x, kernel, *how, **kwargs)
    return jnp.stack([x @ column for column in kernel.T], axis=-1)


def rescale_value(params: dict, slope: jax.Array, shift: jax.Array) -> dict:
    """The weights of an `ActorCritic` whose value v has become slope * v + shift, the rest as it was.

    Args:
      params: of the head.
      slope: [].
      shift: [].
    """
    layers = params["params"]
    name = "outputs" if "outputs" in layers else "value"
    kernel, bias = layers[name]["kernel"], layers[name]["bias"]
    layer = {
        "kernel": kernel.at[:, -1].multiply(slope),
        "bias": bias.at[-1].set(slope * bias[-1] + shift),
    }
    return params | {"params": layers | {name: layer}}
