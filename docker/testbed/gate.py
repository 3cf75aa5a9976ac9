"""A way out of a sandbox, to one server on the machine's loopback."""

import asyncio
import contextlib
import socket
import threading
from typing import Self
from urllib.parse import urlsplit

from testbed import listening
from testbed.sandbox import Sandbox

PORT = 4100
#: The address of an engine's machine on its default bridge; containers on other bridges reach it too.
BRIDGE = "172.17.0.1"
CHUNK = 65536  # bytes


class Gate:
    """Forwards what containers send to `endpoint` on the bridge to a server at `target`, such as a LocalSqs.

    The sandbox must be up, with an engine that has made its bridge.
    """

    endpoint = f"http://{BRIDGE}:{PORT}"

    def __init__(self, sandbox: Sandbox, target: str) -> None:
        url = urlsplit(target)
        self._sandbox = sandbox
        self._target = (url.hostname or "", url.port or 80)
        self._lines: set[asyncio.Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        # A socket belongs to the network that it was made in, whoever uses it later.
        taking = self._sandbox.call(lambda: socket.create_server(("0.0.0.0", PORT)))
        self._thread.start()
        starting = asyncio.start_server(self._connect, sock=taking)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        await listening.close(self._server)
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.ensure_future(self._forward(reader, writer))
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)
        # Also of one that is cut before it has begun. What was said is delivered first.
        line.add_done_callback(lambda _: writer.close())

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(*self._target)
            try:
                await asyncio.gather(_copy(reader, back), _copy(there, writer))
            finally:
                back.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until one of the two ends, whose end the other then learns."""
    try:
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
    finally:
        target.close()
