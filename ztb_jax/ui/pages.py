"""The pages of `ztb ui`. What is live in them is made here, too, and fetched again when it changes."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from ztb_jax.config import Config, flat
from ztb_jax.errors import RunError
from ztb_jax.runs import directory, listing
from ztb_jax.ui import api, reading, words

STATIC = Path(__file__).parent / "static"
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STATUSES = ("running", "completed", "failed", "cancelled", listing.KILLED, listing.DAMAGED)
COLUMNS = (  # of the list: field to sort by, title
    ("run_id", "Run"),
    ("status", "Status"),
    ("symbol", "Market"),
    ("fraction", "Progress"),
    ("env_steps_total", "Steps"),
    ("steps_per_second", "Steps/s"),
    ("eta_seconds", "ETA"),
    ("started_at", "Started, UTC"),
    ("verdict", "Result"),
)


def make_router() -> APIRouter:
    """Every page; the app's state holds `root`."""
    router = APIRouter(default_response_class=HTMLResponse)
    for path, answer in (
        ("/", list_page),
        ("/compare", compare_page),
        ("/runs/{run_id}", run_page),
        ("/runs/{run_id}/report.html", report_page),
        ("/runs/{run_id}/replays/{replay_id}", replay_page),
        ("/static/plotly.min.js", plotly_script),
    ):
        router.add_api_route(path, answer, methods=api.READ, response_model=None)
    return router


@cache
def templates() -> Environment:
    """Ours, with everything escaped and nothing undefined."""
    made = Environment(
        loader=PackageLoader("ztb_jax.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {each.__name__: each for each in (*words.FILTERS, listing.result, listing.verdict)}
    made.globals |= {"metric": words.metric, "took": words.took, "asset": asset, "alone": None}
    return made


@cache
def asset(name: str) -> str:
    """Address of a file of ours, which changes with its content so that browsers may keep it."""
    path = plotly_path() if name == "plotly.min.js" else STATIC / name
    return f"/static/{name}?{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


@cache
def plotly_path() -> Path:
    """The script that the installed plotly brings."""
    from importlib.util import find_spec

    origin = getattr(find_spec("plotly"), "origin", None)
    if origin is None:
        raise ModuleNotFoundError("plotly is not installed")
    return Path(origin).parent / "package_data" / "plotly.min.js"


def plotly_script() -> Response:
    """Plotly, out of its own package."""
    return FileResponse(plotly_path(), media_type="text/javascript")


def page(request: Request, name: str, **values: Any) -> Response:
    """A template filled; a browser that has the same already is told so."""
    text = templates().get_template(name).render(**values)
    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(text, headers=headers)


def list_page(request: Request, status: str = "", sort: str = "started_at", q: str = "") -> Response:
    """Every run of the folder."""
    root = api.root_of(request)
    field = sort if sort in listing.FIELDS else "started_at"
    found = reading.list_runs(root, status=status or None, sort=field)
    wanted = q.casefold()
    return page(
        request,
        "list.html.j2",
        runs=[run for run in found if wanted in searched(run)],
        columns=COLUMNS,
        fields=listing.FIELDS,
        statuses=STATUSES,
        status=status,
        sort=field,
        q=q,
        root=str(root),
    )


def searched(run: dict[str, Any]) -> str:
    """The text of a run that a filter looks in."""
    names = ("run_id", "symbol", "timeframe", "verdict", "edge", "error", "halt_reason")
    return " ".join(str(run[name]) for name in names if run[name]).casefold()


def run_page(request: Request, run_id: str) -> Response:
    """All about one run."""
    run = reading.find_run(api.root_of(request), run_id)
    told = listing.summary(run)
    settings = listing.flattened(directory.read_object(run.config))
    usual = {key: list(value) if isinstance(value, tuple) else value for key, value in flat(Config()).items()}
    rows, metadata = reading.read_windows(run), reading.read_metadata(run)
    try:
        entries = reading.read_replays(run)
    except RunError as error:  # as of a run that was renamed; all else of it can be shown
        entries, metadata["troubles"] = [], [*(metadata["troubles"] or []), str(error)]
    return page(
        request,
        "run.html.j2",
        run=told,
        headline=words.headline(told),
        metadata=metadata,
        evaluation=reading.read_evaluation(run) or {"notes": None, "strategies": None, "edge": None},
        num_windows=len(rows),
        failures=words.failures(rows),
        replays=entries,
        checkpoints=reading.list_checkpoints(run),
        changed={key: value for key, value in settings.items() if value != usual.get(key)},
        settings=settings,
        seal=listing.flattened(reading.read_optional(run.seal) or {}),
        has_report=run.report.is_file(),
    )


def report_page(request: Request, run_id: str) -> Response:
    """The run's own report, as it was written."""
    run = reading.find_run(api.root_of(request), run_id)
    if not run.report.is_file():
        raise reading.NotHereError(f"run {run.id} has no report yet: it is written when the policy is judged")
    return FileResponse(
        run.report, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY}
    )


def replay_page(request: Request, run_id: str, replay_id: str) -> Response:
    """One replay, whose frames the page fetches as it needs them."""
    run = reading.find_run(api.root_of(request), run_id)
    found = reading.find_replay(run, replay_id)
    config = directory.read_object(run.config)
    values = replay_values(run, found.entry, config, first=0, num_shown=found.entry["steps"])
    return page(request, "replay.html.j2", **values, frames=None)


def replay_values(
    run: directory.RunDirectory, entry: dict[str, Any], config: dict[str, Any], *, first: int, num_shown: int
) -> dict[str, Any]:
    """What the view of a replay tells beside its frames.

    Args:
      run: that it is of.
      entry: of the index.
      config: of the run.
      first: number of the first frame that can be shown.
      num_shown: frames that can be.
    """
    data = config.get("data")
    data = data if isinstance(data, dict) else {}
    return {
        "run_id": run.id,
        "market": " ".join(str(data[name]) for name in ("symbol", "timeframe") if name in data),
        "entry": entry,
        "first": first,
        "num_shown": num_shown,
        "total": entry["steps"],
        "num_left_out": entry["steps"] - num_shown,
    }


def compare_page(request: Request, run: Annotated[list[str], Query(default_factory=list)]) -> Response:
    """Runs side by side."""
    chosen = api.chosen_runs(api.root_of(request), run)
    return page(request, "compare.html.j2", **compare_values(chosen))


def compare_values(chosen: list[directory.RunDirectory]) -> dict[str, Any]:
    """What the view of a comparison tells.

    Raises:
      RunError: a file is missing or damaged.
    """
    return {"found": api.comparison(chosen), "summaries": [listing.summary(run) for run in chosen]}
