"""Small studies through their commands, and what they left."""

import json
from pathlib import Path

import numpy as np

from ztb_jax.cli.main import run
from ztb_jax.runs import studies

TINY = """
seed: 3
data: {symbol: synthetic/ar1, timeframe: 1h, synthetic_bars: 1200, embargo_bars: 4}
features: {recipe: returns, lookback: 4}
env: {episode_bars: 32}
policy: {width: 8}
ppo: {num_accounts: 32, rollout_bars: 16, sharing: 4}
run: {total_env_steps: 1024, window_updates: 1}
"""
FAST = ("--ppo.num-minibatches", "1", "--ppo.epochs", "2")
VARY = (*FAST, "--vary", "ppo.learning_rate=1e-2,1e-4")


def command(root: Path, name: str, *flags: str) -> int:
    """The exit status of `ztb <name>` with the settings of `TINY` and the folder of runs `root`."""
    root.mkdir(exist_ok=True, parents=True)
    settings = root / "tiny.yaml"
    settings.write_text(TINY)
    return run([name, "--config", str(settings), "--run.root", str(root), *flags], prog="ztb")


def study_in(root: Path, name: str) -> studies.StudyDirectory:
    return studies.find(root / "studies" / name)


def result_of(store: studies.StudyDirectory) -> dict:
    return json.loads(store.result.read_text())


def chunks_of(store: studies.StudyDirectory) -> tuple[list[dict], list[dict[str, np.ndarray]]]:
    """Rows and arrays of all trials, read by NumPy alone."""
    found = {}
    for path in sorted(store.chunks.glob("*.npz")):
        with np.load(path) as file:
            rows = json.loads(file["rows.json"].tobytes())["rows"]
            for at, row in enumerate(rows):
                found[row["trial"]] = row, {n: file[n][at] for n in file.files if n != "rows.json"}
    ordered = [found[trial] for trial in sorted(found)]
    return [row for row, _ in ordered], [arrays for _, arrays in ordered]


def kept(store: studies.StudyDirectory) -> dict[str, bytes]:
    """The files that a resume must make to the same bits, by name; the page names the folder of runs."""
    places = [store.trials, store.result, store.returns, *store.chunks.glob("*.npz")]
    return {path.name: path.read_bytes() for path in places if path.is_file()}
