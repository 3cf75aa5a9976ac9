"""A faulty line to an SQS server: it sees each call, and does wrong with those that are chosen."""

import asyncio
import json
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

from testbed.server import Server

Json = dict[str, Any]

LONGEST_CALL = 2 * 1024 * 1024  # bytes: more than any message may have
_ASKED = ("X-Amz-Target", "X-Amz-Date", "Authorization", "Content-Type")  # headers that the server reads
_TOLD = ("content-type", "x-amzn-query-error")  # and those that the client reads


class Fault(StrEnum):
    """What may happen to a call."""

    INTERNAL_FAILURE = "500"
    UNAVAILABLE = "503, with the page of a load balancer"
    THROTTLED = "RequestThrottled, as SQS itself says it"
    THROTTLED_BEFORE = "ThrottlingException, as what stands before SQS says it"
    CUT_BEFORE = "cut before the server saw it"
    CUT_AFTER = "cut after the server did it"
    FAILS_AFTER = "500 after the server did it"
    NOT_DONE = "answered well, and not done, as SQS may treat a delete"
    FAILED_ENTRIES = "answered well, and some entries of the batch failed"


#: Those that any call may meet.
ANY = tuple(fault for fault in Fault if fault not in (Fault.NOT_DONE, Fault.FAILED_ENTRIES))


@dataclass(frozen=True)
class Call:
    """A call that came."""

    action: str
    parameters: Json

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What it may meet, with which any client must live."""
        if "Entries" in self.parameters:
            return (*ANY, Fault.FAILED_ENTRIES)
        if self.action == "DeleteMessage":
            return (*ANY, Fault.NOT_DONE)
        return ANY


Choose = Callable[[Call], Fault | None]


def never(_: Call) -> None:
    """No fault at all."""


class OneIn:
    """Chooses one in `count` calls of each action, by chance; all faults that it may meet take turns."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._turns: dict[str, Iterator[Fault | None]] = {}

    def __call__(self, call: Call) -> Fault | None:
        if call.action not in self._turns:
            self._turns[call.action] = self._draw(call.faults, f"{self._seed} {call.action}")
        return next(self._turns[call.action])

    def _draw(self, faults: Sequence[Fault], seed: str) -> Iterator[Fault | None]:
        chance = random.Random(seed)  # noqa: S311  to be drawn again, not a secret
        while True:
            for fault in chance.sample(faults, len(faults)):
                block: list[Fault | None] = [fault, *[None] * (self._count - 1)]
                chance.shuffle(block)
                yield from block


class FaultySqs(Server):
    """A proxy at `endpoint` to an SQS server, in a thread of this process; queue URLs stay the server's.

    `choose` is asked about each call, and may be set anew at any time. `calls` counts the calls by
    action, `met` what happened to them, and `sent` is when each message was sent, for those that the
    server has handed out: in milliseconds, by its own clock.
    """

    def __init__(self, target: str, choose: Choose = never) -> None:
        self.endpoint = ""
        self.choose = choose
        self.calls: Counter[str] = Counter()
        self.met: defaultdict[str, Counter[Fault]] = defaultdict(Counter)
        self.sent: dict[str, int] = {}
        self._target = target
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def start(self) -> None:
        """Start on a free port, and wait until it listens."""
        self._thread.start()
        self._listening.wait()

    def stop(self) -> None:
        """Stop, cutting what is under way. Harmless when it is stopped already."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=LONGEST_CALL)
        app.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(timeout=ClientTimeout(total=None)) as self._session:
            self._listening.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.headers["X-Amz-Target"].rpartition(".")[2], await request.json())
        self.calls[call.action] += 1
        fault = self.choose(call)
        if fault:
            self.met[call.action][fault] += 1
        match fault:
            case Fault.INTERNAL_FAILURE:
                return _failure()
            case Fault.UNAVAILABLE:
                return web.Response(status=503, text="<h1>503</h1>", content_type="text/html")
            case Fault.THROTTLED:
                return _error("com.amazonaws.sqs#RequestThrottled", 400, query="RequestThrottled;Sender")
            case Fault.THROTTLED_BEFORE:
                return _error("ThrottlingException", 400)
            case Fault.CUT_BEFORE:
                return _cut(request)
            case Fault.NOT_DONE:
                return web.json_response({})
            case Fault.FAILED_ENTRIES:
                return await self._fail_some_entries(request, call.parameters)
        answer = await self._pass_on(request, call.parameters)
        match fault:
            case Fault.CUT_AFTER:
                return _cut(request)
            case Fault.FAILS_AFTER:
                return _failure()
        return answer

    async def _pass_on(self, request: web.Request, parameters: Json) -> web.Response:
        headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
        async with self._session.post(
            self._target + request.path, data=json.dumps(parameters), headers=headers
        ) as answer:
            body = await answer.read()
            headers = {name: value for name, value in answer.headers.items() if name.lower() in _TOLD}
            if answer.ok:
                self._note(json.loads(body or b"{}"))
            return web.Response(status=answer.status, body=body, headers=headers)

    async def _fail_some_entries(self, request: web.Request, parameters: Json) -> web.Response:
        """The first half of them, and the odd one; the server never sees these."""
        entries = parameters["Entries"]
        half = (len(entries) + 1) // 2
        answer: Json = {"Successful": [], "Failed": []}
        if rest := entries[half:]:
            told = await self._pass_on(request, parameters | {"Entries": rest})
            answer |= json.loads(told.text or "{}")
        failed = [
            {"Id": entry["Id"], "Code": "InternalError", "Message": "sorry", "SenderFault": False}
            for entry in entries[:half]
        ]
        return web.json_response(answer | {"Failed": [*answer.get("Failed", ()), *failed]})

    def _note(self, answer: Json) -> None:
        for message in answer.get("Messages", ()):
            self.sent[message["MessageId"]] = int(message["Attributes"]["SentTimestamp"])


def _failure() -> web.Response:
    return _error("com.amazon.coral.service#InternalFailure", 500, query="InternalFailure;Receiver")


def _error(kind: str, status: int, query: str = "") -> web.Response:
    """An error in SQS's JSON protocol, which names it a second time as its older protocol did."""
    headers = {"x-amzn-query-error": query} if query else {}
    return web.json_response({"__type": kind, "message": "the line says so"}, status=status, headers=headers)


def _cut(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.abort()
    return web.Response()
