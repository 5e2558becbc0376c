"""Where a report's figures come from: the gates that watched, and the seal. Imports no jax."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ztb_jax.verdicts import HEALTHY, VERDICTS, Verdict


class Gates(NamedTuple):
    """What watched a run, and what it said.

    Attributes:
      asked: name of a failure to a sentence of what would have been one.
      verdicts: (number of the window, verdict) of every window, in order; 0 is healthy.
    """

    asked: Mapping[str, str]
    verdicts: Sequence[tuple[int, int]]

    def sentence(self) -> str:
        """What they said of all windows."""
        if not self.verdicts:
            return "No window was judged."
        failed = [window for window, verdict in self.verdicts if verdict != HEALTHY]
        count = len(self.verdicts)
        windows = f"all {count:,} windows were" if count > 1 else "the one window was"
        if not failed:
            return f"{windows.capitalize()} healthy."
        rest = "" if count == len(failed) else f", {count - len(failed):,} were healthy"
        return f"Of {count:,} window{'s' if count > 1 else ''} {len(failed):,} failed a gate{rest}."

    def failures(self) -> list[tuple[int, Verdict]]:
        """(window, what its verdict means) of every window that failed."""
        unknown = Verdict("unknown", "this version does not know that verdict", "update ztb_jax")
        failed = ((window, verdict) for window, verdict in self.verdicts if verdict != HEALTHY)
        return [(window, VERDICTS.get(verdict, unknown)) for window, verdict in failed]


class Resume(NamedTuple):
    """A time that a run was gone on with.

    Attributes:
      at: UTC, ISO 8601.
      window: the first that was played.
      changed: what was no longer as the seal says; with any of it the bits are not an uninterrupted run's.
      passed_over: checkpoints that were damaged.
    """

    at: str
    window: int
    changed: Sequence[str]
    passed_over: Sequence[str]


class Seal(NamedTuple):
    """What a run depended on.

    Attributes:
      facts: seed, key, hashes and the like, label to value.
      verify: the command that makes the run again and compares it.
      resumes: oldest first.
    """

    facts: Mapping[str, object]
    verify: str
    resumes: Sequence[Resume] = ()
