"""The dashboard over HTTP: the page, and each panel's rows as CSV."""

import socket
from contextlib import closing

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from common import web
from common.errors import UserError
from common.live_status import read_live_status
from common.settings import Settings
from engines.factory import engine_for
from serve.answers import Published
from serve.dashboard.cached import AnswerMemory, CachedPublished, PageMemory
from serve.dashboard.filters import Filters
from serve.dashboard.page import Page
from serve.dashboard.panels import KEY_PANEL, PANELS
from serve.dashboard.render import render
from serve.published import open_published


def app(settings: Settings) -> Starlette:
    """The page at /, and each panel's rows at /PANEL.csv, from the version published last."""

    engine = engine_for(settings)
    memory, pages = AnswerMemory(), PageMemory()

    def published() -> Published:
        """The last version. BigQuery's tables change without a new version, so their answers are not kept."""
        opened = open_published(settings, threads=1)  # several queries of a page run at the same time
        return CachedPublished(opened, memory) if engine.is_copied else opened

    def page(request: Request) -> Response:
        filters, error = Filters(), ""
        try:
            filters = Filters.read(request.query_params)
        except UserError as wrong:
            error = str(wrong)

        def rendered() -> str:
            with closing(published()) as version:
                running = read_live_status(engine.published_folder)
                failure = running.failure if running else None
                return render(version, filters, live=True, error=error, failure=failure or "")

        try:
            text = pages.get(filters.url(), rendered) if filters.refresh else rendered()
        except UserError as missing:
            return PlainTextResponse(f"{missing}\n", 503)
        return HTMLResponse(text, 400 if error else 200)

    def rows(request: Request) -> Response:
        panels = {panel.file: panel for panel in (KEY_PANEL, *PANELS.all)}
        panel = panels.get(f"{request.path_params['panel']}.csv")
        if panel is None:
            raise HTTPException(404, f"there is no such panel; the panels are {', '.join(panels)}")
        try:
            filters = Filters.read(request.query_params)
        except UserError as wrong:
            raise HTTPException(400, str(wrong)) from wrong
        try:
            with closing(published()) as version:
                text, is_cut = Page(version, filters).csv(panel)
        except UserError as failure:
            raise HTTPException(503, str(failure)) from failure
        headers = {"Content-Disposition": f'attachment; filename="{panel.file}"'}
        if is_cut:
            headers["X-Truncated"] = "true"
        return Response(text, media_type="text/csv", headers=headers)

    async def refuse(request: Request, error: Exception) -> Response:
        status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "error")
        return PlainTextResponse(f"{detail}\n", status)

    return Starlette(
        routes=[Route("/", page), Route("/{panel}.csv", rows)],
        middleware=[Middleware(web.LocalOnly, refuse=refuse)],
        exception_handlers={HTTPException: refuse},
    )


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of the dashboard.

    Raises:
        UserError: when the address cannot be listened on, or is not loopback.
    """
    return web.listen(host, port, "the page has no authentication; put a proxy that has in front")


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, on loopback.

    Raises:
        UserError: as `listen`.
    """
    listener = listen(host, port)
    web.run(web.Site(app(settings), listener, "/"), 5)
