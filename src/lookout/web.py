"""Two pages for those who watch Lookout: nothing can be changed by them, and nothing secret is on them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web

from lookout import metrics
from lookout.errors import WrongSettings
from lookout.metrics import Metrics
from lookout.vitals import Vitals

CONNECTIONS = 32  # open at a time: each takes a file descriptor, and those are what deploys need too
LONGEST = 5.0  # seconds from its beginning to its end that a connection may last
AT_ONCE = 8  # connections are accepted before the first of them can be turned away
LAST_WORDS = 0.5  # seconds for an answer that is on its way at the end
READING = ("GET", "HEAD")

log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def serving(vitals: Vitals, host: str, port: int) -> AsyncIterator[None]:
    """Serve /healthz and /metrics; raises WrongSettings where that cannot be done there."""
    loop = asyncio.get_running_loop()
    server = _Connections(
        Pages(vitals),
        request_factory=lambda message, payload, protocol, writer, task: _Request(
            message, payload, protocol, writer, task, loop
        ),
        access_log=None,
        loop=loop,
    )
    runner = web.ServerRunner(server, shutdown_timeout=LAST_WORDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, backlog=AT_ONCE).start()
        except (OSError, ValueError, OverflowError) as exc:
            raise WrongSettings(
                [f"HttpPort, HttpHost: cannot listen on {host!a}, port {port}: {exc}"]
            ) from None
        log.info("serving /healthz and /metrics", host=host, port=port)
        yield
    finally:
        await runner.cleanup()


class _Connections(web.Server):
    """Few, and each for one answer: whoever reaches the port can at most keep others from the pages."""

    def __init__(self, *args: Any, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(*args, loop=loop, **options)
        self._ends: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._ends) >= CONNECTIONS:
            self._loop.call_soon(transport.abort)  # not now: its handler must have begun before it is lost
        else:
            self._ends[handler] = self._loop.call_later(LONGEST, transport.abort)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        if end := self._ends.pop(handler, None):
            end.cancel()
        super().connection_lost(handler, exc)


class Pages:
    """Answers each request by the vitals of that moment."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._metrics = Metrics(vitals)

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        log.debug("request", method=request.method, path=request.path)
        answer = self._answer(request)
        answer.force_close()
        return answer

    def _answer(self, request: web.BaseRequest) -> web.Response:
        page = {"/healthz": self._health, "/metrics": self._numbers}.get(request.path)
        if page is None:
            return _text(HTTPStatus.NOT_FOUND, "there are /healthz and /metrics")
        if request.method not in READING:
            answer = _text(HTTPStatus.METHOD_NOT_ALLOWED, "this is only for reading")
            answer.headers["Allow"] = ", ".join(READING)
            return answer
        try:
            return page()
        except Exception:
            log.exception("unexpected error; please report it")
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; the log has it")

    def _health(self) -> web.Response:
        if problem := self._vitals.problem():
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, problem)
        return _text(HTTPStatus.OK, "ok")

    def _numbers(self) -> web.Response:
        headers = {"Content-Type": metrics.CONTENT_TYPE, "Cache-Control": "no-store"}
        return web.Response(body=self._metrics.text(), headers=headers)


class _Request(web.BaseRequest):
    """Says nothing of the programs behind it, also where it was none that can be understood."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        del response.headers["Server"]


def _text(status: HTTPStatus, line: str) -> web.Response:
    return web.Response(status=status, text=f"{line}\n", headers={"Cache-Control": "no-store"})
