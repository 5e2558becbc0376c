"""Our accounts as Stable-Baselines3's `VecEnv`, which has an interface of its own.

`docs/how-to/other-learners.md` shows this file; a test holds the two together.
"""

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv  # pyright: ignore[reportMissingImports]

from envs.adapters_gymnasium import GymnasiumVectorEnv


class AccountsVecEnv(VecEnv):
    """The accounts of a `GymnasiumVectorEnv`, all stepped by one program."""

    def __init__(self, accounts: GymnasiumVectorEnv):
        self.accounts = accounts
        super().__init__(accounts.num_envs, accounts.single_observation_space, accounts.single_action_space)

    def reset(self) -> np.ndarray:
        """The first observations, by the seed that `seed` was given."""
        observations, _ = self.accounts.reset(seed=self._seeds[0])  # one seed is for all accounts
        self._reset_seeds()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all accounts; those that ended have been reset."""
        observations, rewards, terminated, truncated, told = self.accounts.step(self.actions)
        ended, infos = terminated | truncated, [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(ended):
            # SB3 bootstraps from the terminal observation where the time limit, and nothing else, ended it.
            infos[index]["terminal_observation"] = told["final_obs"][index]
            infos[index]["TimeLimit.truncated"] = bool(truncated[index] and not terminated[index])
        return observations, rewards.astype(np.float32), ended, infos

    def close(self) -> None:
        """Nothing is held open."""
        self.accounts.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same for every account."""
        return [getattr(self.accounts, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """The accounts share one program, so none has attributes of its own."""
        raise AttributeError(f"{attr_name} cannot be set for single accounts")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """A method that answers for all accounts, as `action_masks` does, row by row."""
        rows = getattr(self.accounts, method_name)(*args, **kwargs)
        return [rows[index] for index in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """None is."""
        return [False] * len(list(self._get_indices(indices)))
