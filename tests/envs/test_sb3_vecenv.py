"""The recipe for Stable-Baselines3: shown as it is, and trained with where `make peers` has been run."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".venv-peers/bin/python"
peers = pytest.mark.skipif(not PEERS.exists(), reason="make peers has not been run")


def test_the_page_shows_the_recipe_for_stable_baselines3():
    page = (ROOT / "docs/how-to/other-learners.md").read_text()
    code = (ROOT / "benchmarks/peers/sb3_vecenv.py").read_text()
    assert code.split('"""\n\n', maxsplit=1)[1].strip() in page


def run(code):
    subprocess.run([PEERS, "-c", code], check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


@peers
def test_stable_baselines3_trains_on_the_accounts():
    run("""
from stable_baselines3 import PPO
from envs.adapters import TASKS, GymnasiumVectorEnv
from benchmarks.peers.sb3_vecenv import AccountsVecEnv

task = TASKS["Trading-v0"](episode_bars=10)
accounts = GymnasiumVectorEnv(task.env, task.params, features=task.features, lookback=16, num_envs=4)
venv = AccountsVecEnv(accounts)
model = PPO("MlpPolicy", venv, n_steps=32, batch_size=64, device="cpu", seed=0).learn(256)
venv.seed(3)
first = venv.reset()
venv.seed(3)
assert (venv.reset() == first).all()
assert venv.env_method("action_masks", indices=[1])[0].all()
for step in range(10):
    _, _, ended, infos = venv.step([2, 1, 0, 2])
assert ended.all()
assert all(info["TimeLimit.truncated"] and info["terminal_observation"].shape == (34,) for info in infos)
assert model.num_timesteps == 256
""")


@peers
def test_stable_baselines3_makes_an_environment_by_its_id():
    """It asks for pictures first, and goes on without them."""
    run("""
from stable_baselines3 import PPO
from envs.adapters import register_gymnasium

register_gymnasium()
model = PPO("MlpPolicy", "Trading-v0", n_steps=32, batch_size=32, device="cpu", seed=0).learn(64)
assert model.num_timesteps == 64
assert model.get_env().render_mode is None
""")
