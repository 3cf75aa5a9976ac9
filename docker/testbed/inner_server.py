"""HTTP servers in threads of this process that have entered a sandbox's network."""

import asyncio
import base64
import binascii
import threading
from abc import abstractmethod

from aiohttp import web

from testbed.sandbox import Sandbox, address_of, host_of
from testbed.server import Server

LARGEST_BODY = 1024 * 1024 * 1024  # bytes: images are pushed as well


class InnerServer(Server):
    """A server in a sandbox, at a port of the loopback or as one of the sandbox's HOSTS.

    It lives in the test's own process, which may so ask it, and tell it what to do, at any time.
    """

    def __init__(self, sandbox: Sandbox, at: int | str) -> None:
        self.host = host_of(at)
        self._sandbox = sandbox
        self._at = at
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._listening = threading.Event()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=address_of(self._at), daemon=True)
        self._thread.start()
        self._listening.wait()
        if self._problem:
            raise self._problem

    def stop(self) -> None:
        """Stop, cutting what is under way. Harmless when it is stopped already."""
        if self._thread and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    @abstractmethod
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What it answers."""

    async def serve(self, address: str, port: int) -> None:
        """Serve until it is stopped."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self.answer)
        # Nobody is waited for: neither a client that has gone, nor one that is there when it stops.
        runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, address, port).start()
            self._listening.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def _run(self, address: str, port: int) -> None:
        try:
            self._sandbox.enter_network()
            asyncio.run(self._listen(address, port))
        except Exception as exc:  # noqa: BLE001  raised again by start()
            self._problem = exc
            self._listening.set()

    async def _listen(self, address: str, port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await self.serve(address, port)


def user_of(authorization: str) -> tuple[str, str] | None:
    """The name and password that a header of that name holds, if it holds such."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name, password
