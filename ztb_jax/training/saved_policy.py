"""A policy that was kept in a file of its own, and the network and environment that belong to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from envs.types import Env
from ztb_jax import build
from ztb_jax.config import Config, as_dict, flattened, layered
from ztb_jax.errors import FormatError, UserError
from ztb_jax.policies import transforms
from ztb_jax.policies.policy import Policy
from ztb_jax.runs import packing, policy_files

MADE_FROM = ("config", "num_features", "measured", "policy_arch")


class SavedPolicy(NamedTuple):
    """What a file holds, ready to play.

    Attributes:
      policy: the network; of a run that trades at random one that does so.
      env: one account's environment, as it was trained in.
      params: the weights.
      header: what else the file says.
    """

    policy: Policy
    env: Env
    params: Any
    header: dict[str, Any]


def architecture(config: Config) -> str:
    """The network of a configuration in a word, such as `mlp-256x256-tanh-v1`."""
    wanted = config.policy
    encoder = "mlp" if wanted.encoder == "window" else wanted.encoder
    layers = "x".join([str(wanted.width)] * wanted.depth)
    told = {
        "separate": not wanted.shared_torso,
        wanted.head: wanted.head != "categorical",
        f"memory{wanted.memory}": bool(wanted.memory),
        wanted.value_scale: wanted.value_scale != "none",
        "normalised": wanted.normalise_observations,
    }
    return "-".join([encoder, layers, "tanh", *(name for name, there in told.items() if there), "v1"])


def header_of(config: Config, prepared: build.Prepared) -> dict[str, Any]:
    """What a file says of every policy of a run, but for the window."""
    network = build.make_network(config, num_features=prepared.num_features)
    env = build.make_environment(config, measured=prepared.measured)
    return {
        "policy_arch": architecture(config),
        "obs_shape": [network.lookback * prepared.num_features + env.account_size],
        "n_actions": sum(env.actions.sizes) or None,
        "num_features": prepared.num_features,
        "measured": list(prepared.measured),
        "normaliser": prepared.scaler.to_dict(),
        "config": as_dict(config),
    }


def weights_of(params: Any) -> dict[str, np.ndarray]:
    """Weights on the host by name; they outlive the donation of what they were read from."""
    return {name: packing.on_host(leaf) for name, leaf in _named(params)}


def _named(params: Any) -> list[tuple[str, Any]]:
    return [(name.removeprefix("weights/"), leaf) for name, leaf in packing.named({"weights": params})]


def load(path: str | Path, known: SavedPolicy | None = None) -> SavedPolicy:
    """The policy that a file holds.

    Args:
      path: of `checkpoints/ckpt_<window>.pt`.
      known: another one of the same run: its functions are taken, so that what was compiled for it serves.

    Raises:
      RunError: the file is missing or damaged; a FormatError, which is a ValueError, where it is of another
        format or its weights are not of the network that it names.
    """
    path = Path(path)
    header, weights = policy_files.read(path)
    missing = [name for name in MADE_FROM if name not in header]
    if missing:
        raise FormatError(f"{path} does not say what makes its policy again: it lacks {', '.join(missing)}")
    if known is not None and all(header.get(name) == known.header.get(name) for name in MADE_FROM):
        policy, env = known.policy, known.env
    else:
        try:
            policy, env = _made_from(header)
        except FormatError:
            raise
        except (UserError, AttributeError, TypeError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise FormatError(
                f"{path} does not say what makes its policy again ({cause}): train again"
            ) from None
    if weights is None:
        return SavedPolicy(policy, env, {}, header)
    return SavedPolicy(policy, env, _params(path, policy, weights), header)


def _made_from(header: Mapping[str, Any]) -> tuple[Policy, Env]:
    config = layered(environ={}, flags=flattened(header["config"]))
    if header["policy_arch"] != architecture(config):
        raise FormatError(
            f"policy_arch {header['policy_arch']!r} is not what its configuration makes, "
            f"{architecture(config)!r}: the file was changed, or another version wrote it"
        )
    policy = build.make_network(config, num_features=header["num_features"])
    env = build.make_environment(config, measured=build.Measured(*header["measured"]))
    if header["checkpoint_format"] == policy_files.RANDOM:
        policy = transforms.uniform(policy, env.actions)
    return policy, env


def _params(path: Path, policy: Policy, weights: Mapping[str, np.ndarray]) -> Any:
    like = jax.eval_shape(policy.init, jax.random.key(0))
    wanted = dict(_named(like))
    wrong = [f"{name} is missing" for name in wanted.keys() - weights.keys()]
    wrong += [f"{name} is unknown" for name in weights.keys() - wanted.keys()]
    wrong += [
        f"{name} is {weights[name].dtype}{list(weights[name].shape)} and not {leaf.dtype}{list(leaf.shape)}"
        for name, leaf in wanted.items()
        if name in weights and (weights[name].shape, weights[name].dtype) != (leaf.shape, leaf.dtype)
    ]
    if wrong:
        raise FormatError(f"{path} does not hold the weights of its network: {'; '.join(sorted(wrong))}")
    return jax.tree.unflatten(jax.tree.structure(like), [weights[name] for name in wanted])
