"""Episodes played with the policies that a run keeps, recorded beside training."""

import itertools
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from ztb_jax import build, devices
from ztb_jax.config import Config
from ztb_jax.errors import RunError
from ztb_jax.evaluation.episodes import Frames, make_episodes
from ztb_jax.evaluation.frames import frames_of, summary_of
from ztb_jax.runs import directory, policy_files, replays
from ztb_jax.training.progress import Reporter
from ztb_jax.training.saved_policy import SavedPolicy, load

SLICE = "validation"  # training has seen the train slice, and whoever looks at the test slice chooses by it
PER_WINDOW = 1000  # seeds of a window's episodes


class Recorder:
    """Plays `config.replays.episodes` with each policy file it is given, in a thread of its own.

    The episode of the highest return becomes a replay. One that cannot be recorded is told of, and neither
    stops nor slows training. A context manager: leaving it drops what has not begun.

    Args:
      config: resolved.
      prepared: its market.
      run: where replays and their index go.
      reporter: told of each replay, and of what failed.
      device: where episodes are played.
    """

    def __init__(
        self,
        config: Config,
        *,
        prepared: build.Prepared,
        run: directory.RunDirectory,
        reporter: Reporter,
        device: devices.Handle,
    ):
        self.config, self.prepared, self.run, self.reporter = config, prepared, run, reporter
        self.device = device
        self.known: SavedPolicy | None = None
        self.play: Any = None
        self.entries: list[dict[str, Any]] = []
        self.waiting: list[Future[None]] = []
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="replays")

    def __enter__(self) -> "Recorder":
        self.run.replays.mkdir(exist_ok=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._aside.shutdown(cancel_futures=True)

    def go_on_from(self, window: int) -> None:
        """Keep the replays of windows up to `window` as far as none is missing, and record those after."""
        known = {entry["checkpoint_path"]: entry for entry in self._known() if entry["window_id"] <= window}
        policies = [self.run.relative(path) for path in policy_files.paths(self.run)]
        whole = itertools.takewhile(lambda path: path in known and self._is_whole(known[path]), policies)
        self.entries = [known[path] for path in whole]  # later ones were tagged by these
        names = {entry["replay_path"] for entry in self.entries}
        for path in self.run.replays.glob("replay-*.jsonl.gz"):
            if self.run.relative(path) not in names:
                path.unlink()
        replays.write_index(self.run, self.entries)
        newest = _latest(self.entries[-1]) if self.entries else None
        self.reporter.update(replays_written=len(self.entries), latest_replay=newest)
        for path in policies[len(self.entries) :]:
            self.record(path)

    def _known(self) -> list[dict[str, Any]]:
        try:
            return replays.read_index(self.run)
        except RunError as error:
            self.reporter.trouble(f"replays are recorded anew: {error}")
            return []

    def _is_whole(self, entry: Mapping[str, Any]) -> bool:
        """Whether the file of a replay is there to its last frame."""
        try:
            path = replays.path_of(self.run, entry)
            return any(replays.read_frames(path, offset=entry["steps"] - 1, limit=1))
        except RunError:
            return False

    def record(self, path: str) -> None:
        """Play with the policy in the file `path`, relative to the run; returns at once."""
        self.waiting.append(self._aside.submit(self._record, path))

    def settle(self) -> None:
        """Wait until every replay is recorded."""
        left = [each for each in self.waiting if not each.done()]
        if len(left) > 1:
            self.reporter.phase("replays", f"{len(left)} still to record")
        for number, each in enumerate(left):
            each.result()
            self.reporter.update(fraction=(number + 1) / len(left))
        self.waiting.clear()

    def _record(self, path: str) -> None:
        try:
            with jax.default_device(self.device):
                entry = self._played(path)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: told here, or by nobody
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            self.reporter.trouble(f"no replay of {path}: {cause}; training goes on without it")
            return
        self.reporter.tell("replay", entry)
        self.reporter.update(replays_written=len(self.entries), latest_replay=_latest(entry))

    def _played(self, path: str) -> dict[str, Any]:
        wanted, saved = self.config.replays, self._loaded(path)
        window = saved.header["window_id"]
        first = self.config.seed + wanted.seed_offset + PER_WINDOW * window
        seeds = [(first + episode) % 2**32 for episode in range(wanted.episodes)]
        keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))
        data = self.prepared.slices[SLICE]
        episodes: Frames = jax.device_get(self.play(saved.params, data, keys))
        each = [jax.tree.map(lambda leaf, n=n: leaf[n], episodes) for n in range(wanted.episodes)]
        best = max(each, key=lambda played: summary_of(played).return_total)
        return self._written(path, saved.header, best)

    def _loaded(self, path: str) -> SavedPolicy:
        saved = load(self.run.path / path, self.known)
        if self.known is None or saved.policy is not self.known.policy:
            self.known = saved
            random = self.config.learner == "random"
            steps = min(self.config.replays.max_steps, self.prepared.slices[SLICE].num_steps)
            deterministic = self.config.replays.deterministic and not random
            self.play = make_episodes(saved.policy, saved.env, steps=steps, deterministic=deterministic)
        return saved

    def _written(self, path: str, header: Mapping[str, Any], played: Frames) -> dict[str, Any]:
        wanted, window = self.config.replays, header["window_id"]
        start, stop = getattr(self.prepared.split, SLICE)
        data = self.prepared.slices[SLICE]
        bars = self.prepared.frame.iloc[start - (data.lookback - 1) : stop]
        frames = frames_of(
            played,
            bars=bars,
            features=np.asarray(data.features),
            capital=self.config.env.capital,
            include_info=wanted.include_info,
        )
        name, begun = f"replay-{window:06d}", {}
        draft = self.run.replays / f"{name}.jsonl.gz"
        written = replays.write_frames(draft, _noting(frames, begun))
        replay_id = f"{name}-{written.digest[:8]}"
        final = draft.with_name(f"{replay_id}.jsonl.gz")
        draft.replace(final)
        told = summary_of(played)
        entry = {
            "run_id": self.run.id,
            "window_id": window,
            "replay_id": replay_id,
            "replay_path": self.run.relative(final),
            "checkpoint_path": path,
            "tags": [],
            "trainer_backend": header["trainer_backend"],
            **told._asdict(),
            "profit": self.config.env.capital * told.return_percent / 100.0,
            "checkpoint_env_steps_total": header["env_steps_total"],
            "episodes": wanted.episodes,
            "slice": SLICE,
            **begun,
            "created_at": directory.timestamp(),
        }
        entry["tags"] = replays.tags_of(
            entry,
            self.entries,
            profit=wanted.profit_thresholds,
            returns=wanted.return_thresholds,
            survival=wanted.survival_thresholds,
        )
        self.entries.append(entry)
        replays.write_index(self.run, self.entries)
        return entry


def _latest(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the index as metadata tell of it."""
    told = ("window_id", "replay_id", "replay_path", "return_total", "tags", "created_at")
    return {name: entry[name] for name in told}


def _noting(frames: Any, begun: dict[str, str]) -> Any:
    """`frames`, and the times of the first and last one into `begun`."""
    for frame in frames:
        time = frame["render_state"]["time"]
        begun.setdefault("first_time", time)
        begun["last_time"] = time
        yield frame
