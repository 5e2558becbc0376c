"""The application of `ztb ui`: routes, what a browser may do with its pages, and errors as answers."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ztb_jax.errors import RunError
from ztb_jax.ui import api, pages, reading

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)  # plotly sets styles of its own
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
TITLES = {400: "Bad request", 404: "Not found", 405: "Not allowed", 409: "Damaged", 422: "Bad request"}


def make_app(
    root: Path,
    *,
    hosts: Sequence[str] = LOOPBACK,
    origins: Sequence[str] = (),
    is_stopping: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """The application over a folder of runs.

    Args:
      root: folder of run directories.
      hosts: names by which it may be called, `*` for any; others are refused (DNS rebinding).
      origins: of pages elsewhere that may read its answers (CORS).
      is_stopping: whether streams are to end.
    """
    app = FastAPI(title="ztb ui", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.root, app.state.is_stopping = root, is_stopping
    app.add_api_route("/health", health, methods=api.READ)
    app.include_router(api.make_router())
    app.include_router(pages.make_router())
    app.mount("/static", StaticFiles(directory=pages.STATIC))
    app.add_middleware(with_headers)
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=api.READ)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    for error in (HTTPException, RequestValidationError, RunError, OSError, RecursionError):
        app.add_exception_handler(error, refuse)
    return app


def health() -> dict[str, str]:
    """That the server answers."""
    return {"status": "ok"}


def with_headers(app: ASGIApp) -> ASGIApp:
    """What every answer says of itself."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/static/") and message["status"] == 200:
                    # The address of `pages.asset` changes with the content.
                    age = "31536000, immutable" if scope["query_string"] else "3600"
                    headers["Cache-Control"] = f"public, max-age={age}"
            await send(message)

        await app(scope, receive, say)

    return call


async def refuse(request: Request, error: Exception) -> Response:
    """An error as JSON to programs, as a page to persons."""
    status, detail = told(error)
    headers = getattr(error, "headers", None)
    if request.url.path.startswith("/api/"):
        return JSONResponse({"detail": detail}, status, headers)
    text = pages.templates().get_template("error.html.j2")
    return HTMLResponse(
        text.render(title=TITLES.get(status, "Error"), detail=detail, status=status), status, headers
    )


def told(error: Exception) -> tuple[int, str]:
    """Status and sentence of an error."""
    match error:
        case HTTPException():
            return error.status_code, str(error.detail)
        case RequestValidationError():
            found = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
            return 422, "; ".join(found)
        case reading.NotHereError():
            return 404, str(error)
        case api.BadQueryError():
            return 422, str(error)
        case RecursionError():
            return 409, "a file is damaged: it is nested too deep"
        case _:
            return 409, str(error)
