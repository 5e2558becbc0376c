"""The view of a replay and of a comparison, each as one HTML file that needs no server and no network."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ztb_jax.errors import RunError
from ztb_jax.runs import directory, replays
from ztb_jax.ui import api, pages, reading

LEFT_OUT = ("observation",)  # of a frame's state: the greater part of it, and nothing in the picture
MOST_RUNS = api.MOST_RUNS


class Alone:
    """What a page that stands alone holds of our files, in itself."""

    def text(self, name: str) -> Markup:
        """A style sheet or a script, so that nothing in it ends its element."""
        path = pages.plotly_path() if name == "plotly.min.js" else pages.STATIC / name
        return Markup(path.read_text().replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def replay_page(
    run: directory.RunDirectory, entry: Mapping[str, Any], *, first: int = 0, limit: int = 20_000
) -> str:
    """A replay as one HTML file.

    Args:
      run: that it is of.
      entry: of the run's replay index.
      first: number of the first frame to be held.
      limit: most frames to be held; a longer replay shows that part and says so.

    Returns:
      The page, of some 5 MB and half a kilobyte a frame.

    Raises:
      RunError: the replay is missing or damaged, or has no frame of that number.
    """
    found = reading.find_replay(run, entry["replay_id"])
    frames = [_drawn(frame) for frame in replays.read_frames(found.path, offset=first, limit=limit)]
    if not frames:
        raise RunError(
            f"replay {entry['replay_id']} of {run.path} has no frame {first}: it has {entry['steps']}"
        )
    config = directory.read_object(run.config)
    values = pages.replay_values(run, found.entry, config, first=first, num_shown=len(frames))
    return pages.templates().get_template("replay.html.j2").render(**values, frames=frames, alone=Alone())


def _drawn(frame: dict[str, Any]) -> dict[str, Any]:
    state = {name: value for name, value in frame["render_state"].items() if name not in LEFT_OUT}
    return {name: value for name, value in frame.items() if name != "info"} | {"render_state": state}


def compare_page(runs: Sequence[directory.RunDirectory]) -> str:
    """Runs side by side as one HTML file.

    Args:
      runs: two to `MOST_RUNS`.

    Raises:
      RunError: a file is missing or damaged, or there are too many to tell apart.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise RunError(f"a page compares two to {MOST_RUNS} runs, not {len(runs)}")
    values = pages.compare_values(list(runs))
    return pages.templates().get_template("compare.html.j2").render(**values, alone=Alone())
