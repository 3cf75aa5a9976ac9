"""Two pages for those who watch Lookout: nothing can be changed by them, and nothing secret is on them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import structlog
from aiohttp import web

from lookout import metrics
from lookout.errors import WrongSettings
from lookout.metrics import Metrics
from lookout.vitals import Vitals

LAST_WORDS = 0.5  # seconds for an answer that is on its way at the end
READING = ("GET", "HEAD")

log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def serving(vitals: Vitals, host: str, port: int) -> AsyncIterator[None]:
    """Serve /healthz and /metrics; raises WrongSettings where that cannot be done there."""
    loop = asyncio.get_running_loop()
    server = web.Server(
        Pages(vitals),
        request_factory=lambda message, payload, protocol, writer, task: _Request(
            message, payload, protocol, writer, task, loop
        ),
        access_log=None,
    )
    runner = web.ServerRunner(server, shutdown_timeout=LAST_WORDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, ValueError, OverflowError) as exc:
            raise WrongSettings(
                [f"HttpPort, HttpHost: cannot listen on {host!a}, port {port}: {exc}"]
            ) from None
        log.info("serving /healthz and /metrics", host=host, port=port)
        yield
    finally:
        await runner.cleanup()


class Pages:
    """Answers each request by the vitals of that moment."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._metrics = Metrics(vitals)

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        log.debug("request", method=request.method, path=request.path)
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
