"""Runs that are killed at random moments and resumed, and checkpoints that are damaged at random.

Each run is a process of its own: killed with SIGKILL after a random share of the time that the uninterrupted
run takes, resumed, every second one killed again, and then left alone until it is done. Windows are tiny, so
that most kills strike while a generation is being saved. It must end with the uninterrupted run's digests,
figures and evaluation, and must have gone on from the newest generation that was committed.

Damage is a flipped bit, or a cut, longer, emptied, exchanged, removed or added file of the newest generation,
its manifest among them. It must be found, and the generation before restored.
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.harness import Row, finish
from ztb_jax.runs import checkpoint, directory, packing

SETTINGS = """
data: {symbol: synthetic/ar1, timeframe: 1h, synthetic_bars: 1200, embargo_bars: 4}
features: {recipe: returns, lookback: 4}
env: {episode_bars: 32}
policy: {width: 8}
ppo: {num_accounts: 32, rollout_bars: 16, sharing: 4, learning_rate: 1e-3}
run: {total_env_steps: 40960, window_updates: 2, keep_checkpoints: 2}
"""
UNEQUAL = ("run_id", "seconds", "steps_per_second")
LIMIT = 300  # seconds that one process may take


class Reference(NamedTuple):
    """The run that nobody interrupted.

    Attributes:
      run: its directory.
      starting: seconds from its start to its first window.
      training: from there to its end.
    """

    run: directory.RunDirectory
    starting: float
    training: float


class Told(NamedTuple):
    """What came of one run.

    Attributes:
      equal: it ended in the uninterrupted run's bits.
      kept: it always went on from the newest generation that was committed.
      kills: that struck.
      in_a_save: those that left a generation which was not completed.
    """

    equal: bool
    kept: bool
    kills: int
    in_a_save: int


def started(settings: Path, run: directory.RunDirectory) -> subprocess.Popen:
    """A run, begun in a process of its own."""
    return _process("--config", str(settings), "--run.root", str(run.path.parent), "--run.id", run.id)


def resumed(run: directory.RunDirectory) -> subprocess.Popen:
    """A run, resumed in a process of its own."""
    return _process("--resume", str(run.path))


def _process(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ztb_jax.training", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen, run: directory.RunDirectory) -> None:
    """Wait until a run is done.

    Raises:
      RuntimeError: it is not; the process's last words.
    """
    _, told = process.communicate(timeout=LIMIT)
    if _facts_of(run).get("status") != "completed":
        raise RuntimeError(f"{process.args} ended with {process.returncode}: {told[-2000:]}")


def _facts_of(run: directory.RunDirectory) -> dict[str, Any]:
    return directory.read_json(run.metadata) if run.metadata.is_file() else {}


def training(process: subprocess.Popen, run: directory.RunDirectory) -> None:
    """Wait until a process trains, or has ended."""
    while process.poll() is None:
        facts = _facts_of(run)
        if facts.get("phase") == "train" and facts["process"]["pid"] == process.pid:
            return
        time.sleep(0.005)


def uninterrupted(settings: Path, root: Path) -> Reference:
    """The reference; it is made twice, so that programs are kept and the second one's time counts."""
    times = []
    for name in ("warm", "whole"):
        run, begun = directory.RunDirectory(root / name), time.monotonic()
        process = started(settings, run)
        training(process, run)
        trains = time.monotonic()
        finished(process, run)
        times = [trains - begun, time.monotonic() - trains]
    return Reference(run, *times)


def killed(process: subprocess.Popen, run: directory.RunDirectory, reference: Reference, draw) -> bool:
    """Kill a process: every tenth while it starts, the others while they train; whether it still ran."""
    if draw.random() < 0.1:
        time.sleep(draw.uniform(0.0, reference.starting))
    else:
        training(process, run)
        time.sleep(draw.uniform(0.0, reference.training))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def tormented(reference: Reference, settings: Path, run: directory.RunDirectory, seed: int) -> Told:
    """A run that is killed once or twice and then left alone until it is done."""
    draw, kept, kills, in_a_save = random.Random(seed), True, 0, 0
    process = started(settings, run)
    for _ in range(draw.choice((1, 2))):
        if not killed(process, run, reference, draw):
            break
        kills += 1
        if not run.seal.is_file():
            shutil.rmtree(run.path, ignore_errors=True)  # it had not begun, as `ztb resume` would say
            process = started(settings, run)
            continue
        numbers = checkpoint.generations(run.checkpoints)
        whole = [n for n in numbers if not isinstance(checkpoint.read_manifest(run.checkpoints, n), str)]
        left = list(run.checkpoints.glob("*.orbax-checkpoint-tmp*"))
        in_a_save += bool(left) or len(whole) < len(numbers)
        if _facts_of(run).get("status") == "completed":
            break
        process = resumed(run)
        training(process, run)
        told = directory.read_json(run.seal)["metadata"]["resumed"][-1]
        kept &= told["from_window"] == (whole[0] + 1 if whole else 0)
    finished(process, run)
    return Told(outcome(run) == outcome(reference.run), kept, kills, in_a_save)


def outcome(run: directory.RunDirectory) -> Any:
    """Everything of a run that its interruptions must not change."""
    rows = [
        {key: value for key, value in row.items() if key not in UNEQUAL}
        for row in directory.read_lines(run.windows)
    ]
    judged = directory.read_json(run.evaluation) | {"run_id": None}
    # What depends on all that was scored on these bars before, policies judged at a stop among them.
    del judged["edge"], judged["stress"]["leak"]
    judged["strategies"].pop("previous_best", None)
    return rows, directory.read_lines(run.digests), judged


def kill_rows(root: Path, runs: int, *, at_once: int = 2) -> list[Row]:
    """Runs that end in the uninterrupted run's bits."""
    settings = root / "settings.yaml"
    settings.write_text(SETTINGS)
    reference = uninterrupted(settings, root)
    with ThreadPoolExecutor(at_once) as pool:
        told = list(
            pool.map(
                lambda seed: tormented(reference, settings, directory.RunDirectory(root / f"r{seed}"), seed),
                range(runs),
            )
        )
    kills, saves = sum(each.kills for each in told), sum(each.in_a_save for each in told)
    note = f"{kills} kills, {saves} of them in a save"
    return [
        Row(
            "runs in the uninterrupted run's bits",
            sum(each.equal for each in told),
            "runs",
            bar=runs,
            note=note,
        ),
        Row("that lost nothing committed", sum(each.kept for each in told), "runs", bar=runs),
    ]


def state_of(number: int) -> dict[str, Any]:
    """Some state, different for every generation."""
    key = jax.random.key(number)
    return {"weights": jax.random.normal(key, (64, 64)), "key": key, "count": jnp.int32(number)}


def flipped(whole: bytes, draw: random.Random) -> bytes:
    """With one bit the other way."""
    place = draw.randrange(len(whole))
    return whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]


CONTENTS = {
    "flipped": flipped,
    "cut": lambda whole, draw: whole[: draw.randrange(len(whole))],
    "longer": lambda whole, draw: whole + draw.randbytes(draw.randrange(1, 64)),
    "emptied": lambda whole, draw: b"",
}


def damaged(generation: Path, other: Path, draw: random.Random) -> str:
    """Damage one file of a generation; how."""
    target = draw.choice(sorted(path for path in generation.rglob("*") if path.is_file()))
    whole, twin = target.read_bytes(), other / target.relative_to(generation)
    kinds = ["removed", "added", *((*CONTENTS, "flipped", "flipped") if whole else ())]
    if twin.is_file() and twin.read_bytes() != whole:
        kinds.append("exchanged")
    kind = draw.choice(kinds)
    if kind == "removed":
        target.unlink()
    elif kind == "added":
        (target.parent / "foreign").write_bytes(draw.randbytes(8))
    else:
        target.write_bytes(twin.read_bytes() if kind == "exchanged" else CONTENTS[kind](whole, draw))
    return f"{kind} {target.relative_to(generation).as_posix()}"


def corruption_rows(root: Path, corruptions: int) -> list[Row]:
    """Damage that is found, with the generation before restored."""
    folder = root / "checkpoints"
    with checkpoint.Checkpoints(folder, keep=2) as writer:
        for number in range(2):
            writer.save(number, {"state": state_of(number)}, {"number": number})
    draw, like, found, wrong = random.Random(0), {"state": state_of(0)}, 0, []
    kept = root / "kept"
    shutil.copytree(folder / "1", kept)
    for _ in range(corruptions):
        how = damaged(folder / "1", folder / "0", draw)
        restored, passed_over = checkpoint.newest(folder, like)
        equal = restored is not None and packing.digests(restored.trees) == packing.digests(
            {"state": state_of(0)}
        )
        if passed_over and equal:
            found += 1
        else:
            wrong.append(how)
        shutil.rmtree(folder / "1")
        shutil.copytree(kept, folder / "1")
    note = f"accepted: {'; '.join(wrong[:3])}" if wrong else "the generation before was restored each time"
    return [Row("corruptions that were found", found, "of them", bar=corruptions, note=note)]


def run(json_file: Path | None, *, runs: int = 100, corruptions: int = 1_000) -> int:
    """Torment and report."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = [*corruption_rows(root, corruptions), *kill_rows(root, runs)]
    return finish("Faults", rows, json_file=json_file)
