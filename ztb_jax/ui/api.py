"""The JSON of `ztb ui`: runs, rows, replays, frames, comparisons and the stream of what is new."""

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from ztb_jax.errors import RunError
from ztb_jax.runs import directory, listing, replays
from ztb_jax.ui import events, reading

READ = ["GET", "HEAD"]
MOST_FRAMES, MOST_ROWS, MOST_RUNS = 5_000, 100_000, 8

Offset = Annotated[int, Query(ge=0, le=2**53)]
Names = Annotated[str, Query(description="names with commas between")]


class BadQueryError(RunError):
    """What was asked for cannot be answered by anything."""


def make_router() -> APIRouter:
    """Every route below `/api`; the app's state holds `root` and `is_stopping`."""
    router = APIRouter(prefix="/api")
    for path, answer in (
        ("/runs", runs),
        ("/runs/{run_id}", run_whole),
        ("/runs/{run_id}/metrics/windows", windows),
        ("/runs/{run_id}/replays", replay_list),
        ("/runs/{run_id}/replays/{replay_id}", replay_entry),
        ("/runs/{run_id}/replays/{replay_id}/frames", frames),
        ("/runs/{run_id}/events", run_events),
        ("/compare", compare),
    ):
        router.add_api_route(path, answer, methods=READ, response_model=None)
    return router


def root_of(request: Request) -> Path:
    """The folder that is served."""
    return request.app.state.root


def runs(request: Request, status: str | None = None, sort: str = "started_at") -> Response:
    """Every run, the newest first unless `sort` names another field."""
    if sort not in listing.FIELDS:
        raise BadQueryError(f"there is no {sort!r} to sort by: take of {', '.join(listing.FIELDS)}")
    return JSONResponse(reading.list_runs(root_of(request), status=status, sort=sort))


def run_whole(request: Request, run_id: str) -> Response:
    """All that a run tells of itself."""
    run = reading.find_run(root_of(request), run_id)
    return JSONResponse(
        {
            "summary": listing.summary(run),
            "metadata": reading.read_optional(run.metadata),
            "config": directory.read_object(run.config),
            "evaluation": reading.read_evaluation(run),
        }
    )


def windows(
    request: Request,
    run_id: str,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 1_000,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """Rows of metrics, the newest first unless `order` is asc."""
    run = reading.find_run(root_of(request), run_id)
    rows = reading.read_windows(run)
    rows = rows[:limit] if order == "asc" else rows[::-1][:limit]
    return JSONResponse({"run_id": run.id, "count": len(rows), "rows": rows})


def replay_list(  # noqa: PLR0917 - fastapi reads the query out of the signature
    request: Request,
    run_id: str,
    tag: str | None = None,
    tags_any: Names = "",
    tags_all: Names = "",
    window_id: int | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 1_000,
) -> Response:
    """Entries of the replay index, newest first."""
    run = reading.find_run(root_of(request), run_id)
    every = [*_names(tags_all), *([] if tag is None else [tag])]
    entries = reading.tagged(
        reading.read_replays(run), every=every, some=_names(tags_any), window_id=window_id
    )[:limit]
    return JSONResponse({"run_id": run.id, "count": len(entries), "replays": entries})


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def replay_entry(request: Request, run_id: str, replay_id: str) -> Response:
    """One entry of the replay index."""
    run = reading.find_run(root_of(request), run_id)
    return JSONResponse(reading.find_replay(run, replay_id).entry)


def frames(
    request: Request,
    run_id: str,
    replay_id: str,
    offset: Offset = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_FRAMES)] = 500,
) -> Response:
    """`limit` frames from number `offset` on, out of the file without what is before or after them."""
    run = reading.find_run(root_of(request), run_id)
    found = reading.find_replay(run, replay_id)
    page = list(replays.read_frames(found.path, offset=offset, limit=limit + 1))
    has_more = len(page) > limit
    page = page[:limit]
    return JSONResponse(
        {
            "run_id": run.id,
            "replay_id": replay_id,
            "offset": offset,
            "count": len(page),
            "frames": page,
            "has_more": has_more,
            "next_offset": offset + len(page) if has_more else None,
        }
    )


async def run_events(
    request: Request, run_id: str, after: Annotated[int, Query(ge=-1, le=2**53)] = -1
) -> Response:
    """`metadata` whenever they change, `window` for each new row, `end` when the run has ended."""
    run = reading.find_run(root_of(request), run_id)
    told = request.headers.get("last-event-id", "")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers=headers)
    new = events.stream(
        run,
        after=int(told) if told.isdecimal() and len(told) < 16 else after,
        is_gone=request.is_disconnected,
        is_stopping=request.app.state.is_stopping,
    )
    return StreamingResponse(new, media_type="text/event-stream", headers=headers)


def chosen_runs(root: Path, names: list[str]) -> list[directory.RunDirectory]:
    """The runs to be compared, each of them checked to be whole.

    Raises:
      BadQueryError: fewer than two different ones, or more than are told apart.
      RunError: one is damaged.
    """
    unique = list(dict.fromkeys(names))
    if not 2 <= len(unique) <= MOST_RUNS:
        raise BadQueryError(f"give two to {MOST_RUNS} runs to compare, such as ?run=a&run=b")
    found = [reading.find_run(root, name) for name in unique]
    for run in found:
        directory.read_object(run.config)
        reading.read_evaluation(run)
    return found


def compare(request: Request, run: Annotated[list[str], Query(default_factory=list)]) -> Response:
    """Where runs differ in settings, what came of them, and their rows by column."""
    return JSONResponse(comparison(chosen_runs(root_of(request), run)))


def comparison(chosen: list[directory.RunDirectory]) -> dict[str, Any]:
    """`listing.compare` of runs, and the curves of each, in their order.

    Raises:
      RunError: a file is missing or damaged.
    """
    return {
        "runs": [run.id for run in chosen],
        **listing.compare(chosen),
        "curves": [
            {"run_id": run.id, "columns": reading.curves(reading.read_windows(run))} for run in chosen
        ],
    }
