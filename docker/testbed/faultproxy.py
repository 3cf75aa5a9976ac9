"""A faulty line to an engine: it sees each request, and does wrong with the one that a test asks for."""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from testbed import listening
from testbed.server import Server

CHUNK = 64 * 1024
LONGEST_HEAD = 1024 * 1024
NOT_MODIFIED = 304  # the one answer here that has no body

When = Literal["before", "after"]
How = Literal["cut", "hang", "pass"] | int
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PassOn = Callable[[bytes], Awaitable[None]]
Matches = Callable[[str], object]

# What an engine goes on answering until something happens, or for ever.
ENDLESS = re.compile(r"/events\b|[?&](follow|stream)=(1|true)\b")


def _nothing() -> None:
    pass


@dataclass
class _Fault:
    pattern: str | Matches
    remaining: int
    how: How
    when: When
    action: Callable[[], object]
    request: str = ""  # the one that it happens to

    def is_for(self, request: str) -> bool:
        if isinstance(self.pattern, str):
            return bool(re.search(self.pattern, request))
        return bool(self.pattern(request))


class FaultProxy(Server):
    """A proxy at `docker_host` to an engine's socket, in a thread of this process.

    `requests` holds the line of each request that came ("POST /v1.41/containers/create?name=x"), in
    order.
    """

    def __init__(self, target: Path, path: Path) -> None:
        self.docker_host = f"unix://{path}"
        self.requests: list[str] = []
        self._target = target
        self._path = path
        self._is_down = False
        self._fault: _Fault | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._thread.start()
        self._listening.wait()

    def stop(self) -> None:
        """Stop, cutting what is under way."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def cut(
        self,
        pattern: str | Matches,
        *,
        nth: int = 1,
        when: When = "before",
        action: Callable[[], object] = _nothing,
    ) -> None:
        """Cut the nth request from now whose line matches, before or after the engine did it.

        Before, the engine never sees it; after, it has answered in full, and the client sees nothing of
        that. `action` is called at that moment, in the proxy's thread, which does nothing else meanwhile.
        Only one fault is planned at a time.
        """
        self._fault = _Fault(pattern, nth, "cut", when, action)

    def answer(
        self,
        pattern: str | Matches,
        status: int,
        *,
        nth: int = 1,
        when: When = "before",
        action: Callable[[], object] = _nothing,
    ) -> None:
        """Answer that request with this status instead of the engine's, which did it only if `after`."""
        self._fault = _Fault(pattern, nth, status, when, action)

    def hang(
        self, pattern: str, *, nth: int = 1, when: When = "before", action: Callable[[], object] = _nothing
    ) -> None:
        """Never answer that request."""
        self._fault = _Fault(pattern, nth, "hang", when, action)

    def meet(
        self,
        pattern: str | Matches,
        action: Callable[[], object],
        *,
        nth: int = 1,
        when: When = "before",
    ) -> None:
        """Call `action` when that request comes, or its answer, and only then pass it on."""
        self._fault = _Fault(pattern, nth, "pass", when, action)

    def go_down(self) -> None:
        """Behave as if the engine were away: cut what is under way, and every new connection."""
        self._is_down = True
        self._loop.call_soon_threadsafe(self._cut_all)

    def come_back(self) -> None:
        """Behave as an engine that is there again."""
        self._is_down = False

    @property
    def is_spent(self) -> bool:
        """Whether the fault that was planned last has happened."""
        return self._fault is None

    def note(self, request: str) -> _Fault | None:
        """Note a request, and return the fault that is planned for it."""
        self.requests.append(request)
        if self._fault is None or not self._fault.is_for(request):
            return None
        self._fault.remaining -= 1
        if self._fault.remaining:
            return None
        fault, self._fault = self._fault, None
        fault.request = request
        return fault

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_unix_server(self._connect, self._path, limit=LONGEST_HEAD)
        self._listening.set()
        await self._stop.wait()
        await listening.close(server)
        self._cut_all()
        await asyncio.gather(*self._lines, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _cut_all(self) -> None:
        for line in self._lines:
            line.cancel()

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """At once, and not by a task, which could be cancelled before it has begun: then none would end the line."""
        if self._is_down:
            writer.transport.abort()
            return
        line = asyncio.create_task(self._carry((reader, writer)))
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)
        # Also of one that is cut before it has begun.
        line.add_done_callback(lambda _: writer.transport.abort())

    async def _carry(self, client: Streams) -> None:
        with contextlib.suppress(OSError):
            engine = await asyncio.open_unix_connection(self._target)
            try:
                await _Line(self, client, engine).run()
            finally:
                engine[1].transport.abort()


class _Line:
    """One connection, until either side ends it or a fault does."""

    def __init__(self, proxy: FaultProxy, client: Streams, engine: Streams) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_engine, self._to_engine = engine
        self._late: _Fault | None = None

    async def run(self) -> None:
        requests = asyncio.create_task(self._requests())
        answers = asyncio.create_task(self._answers())
        try:
            # A client that has said all may still wait for the answer.
            done, _ = await asyncio.wait({requests, answers}, return_when=asyncio.FIRST_COMPLETED)
            if requests in done and requests.result():
                await answers
        finally:
            requests.cancel()
            answers.cancel()
            await asyncio.gather(requests, answers, return_exceptions=True)

    async def _requests(self) -> bool:
        """Pass requests on; false if one was not to be."""
        while head := await self._head():
            fault = self._proxy.note(head.split(b" HTTP/", 1)[0].decode())
            if fault and fault.when == "before":
                fault.action()
                if fault.how != "pass":
                    await self._body(head.lower(), _drop)
                    await self._do(fault)
                    return False
            self._late = fault if fault and fault.when == "after" else None
            self._to_engine.write(head)
            await self._body(head.lower(), self._pass_on)
        self._to_engine.write_eof()
        return True

    async def _answers(self) -> None:
        while data := await self._from_engine.read(CHUNK):
            if fault := self._late:
                data = await self._whole(data, fault.request)
                fault.action()
                if fault.how != "pass":
                    await self._do(fault)
                    return
                self._late = None
            self._to_client.write(data)
            await self._to_client.drain()

    async def _whole(self, data: bytes, request: str) -> bytes:
        """The whole answer that begins so; of one without an end what there is with its head."""
        while not _is_whole(data, request) and (more := await self._from_engine.read(CHUNK)):
            data += more
        return data

    async def _do(self, fault: _Fault) -> None:
        """What is wrong with a request, up to the end of its connection."""
        if fault.how == "hang":
            await asyncio.Event().wait()
        if isinstance(fault.how, int):
            self._to_client.write(_answer(fault.how))
            self._to_client.close()
            await self._to_client.wait_closed()

    async def _head(self) -> bytes:
        try:
            return await self._from_client.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""

    async def _body(self, head: bytes, pass_on: PassOn) -> None:
        if b"\r\nupgrade:" in head:
            while data := await self._from_client.read(CHUNK):
                await pass_on(data)
        elif b"\r\ntransfer-encoding: chunked" in head:
            size = -1
            while size:
                line = await self._from_client.readline()
                size = int(line.split(b";")[0], 16)
                await pass_on(line + await self._from_client.readexactly(size + len(b"\r\n")))
        elif length := re.search(rb"\r\ncontent-length: *(\d+)", head):
            await pass_on(await self._from_client.readexactly(int(length[1])))

    async def _pass_on(self, data: bytes) -> None:
        self._to_engine.write(data)
        await self._to_engine.drain()


async def _drop(_: bytes) -> None:
    pass


def _answer(status: int) -> bytes:
    body = b"" if status == NOT_MODIFIED else json.dumps({"message": "the line answers so"}).encode()
    head = f"HTTP/1.1 {status} Faulty\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _is_whole(answer: bytes, request: str) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    head = head.lower() + b"\r\n"
    if not end or ENDLESS.search(request):
        return bool(end)
    if b"\r\ntransfer-encoding: chunked" in head:
        return (b"\r\n" + body).endswith(b"\r\n0\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head)
    return len(body) >= (int(length[1]) if length else 0)
