"""Runs that are stopped where a test wants it."""

from pathlib import Path

from ztb_jax.cli.main import run
from ztb_jax.runs import directory
from ztb_jax.training.interrupt import StopRequest

TINY = """
seed: 3
data: {symbol: synthetic/ar1, timeframe: 1h, synthetic_bars: 1200, embargo_bars: 4}
features: {recipe: returns, lookback: 4}
env: {episode_bars: 32}
policy: {width: 8}
ppo: {num_accounts: 32, rollout_bars: 16, sharing: 4, learning_rate: 1e-3}
run: {total_env_steps: 6144, window_updates: 2, keep_checkpoints: 3}
"""


def train(root: Path, name: str, *flags: str) -> int:
    """The exit status of a run `root/name` of `TINY`."""
    root.mkdir(exist_ok=True)
    settings = root / "tiny.yaml"
    settings.write_text(TINY)
    return run(
        ["train", "--config", str(settings), "--run.root", str(root), "--run.id", name, *flags], prog="ztb"
    )


def stop_after(monkeypatch, window: int) -> None:
    """As if SIGTERM came while `window` was played."""
    append = directory.append_line

    def note(path, row):
        append(path, row)
        if row.get("window_id") == window and path.name == "windows.jsonl":
            monkeypatch.setattr(StopRequest, "signal", "SIGTERM")

    monkeypatch.setattr(directory, "append_line", note)


def stopped(root: Path, name: str, window: int, monkeypatch, *flags: str) -> directory.RunDirectory:
    """A run that was stopped after `window`."""
    with monkeypatch.context() as patch:
        stop_after(patch, window)
        assert train(root, name, *flags) == 130
    found = directory.find(root / name)
    assert directory.read_json(found.metadata)["status"] == "cancelled"
    return found


def resume(found: directory.RunDirectory, *flags: str) -> int:
    """The exit status of a resume."""
    return run(["resume", str(found.path), *flags], prog="ztb")


def metadata(found: directory.RunDirectory) -> dict:
    """What a run tells of itself."""
    return directory.read_json(found.metadata)


def files_of(found: directory.RunDirectory) -> dict:
    """Every file with its bytes."""
    return {path: path.read_bytes() for path in found.path.rglob("*") if path.is_file()}
