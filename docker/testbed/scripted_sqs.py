"""An SQS server of one queue that fails as it is told, for what a friendly server cannot show."""

import asyncio
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Self

from aiohttp import web

Json = dict[str, Any]
Act = Callable[[], Json]
# What happens in place of an action; `act` carries the action out all the same.
Step = Callable[[Json, Act], Awaitable[Json]]

PATH = "/123456789012/scripted"
CAP = 43200  # seconds since its receipt that a message may stay hidden
MOST_MESSAGES = 10  # of one receive call
LONGEST_DELAY = 900  # seconds
TICK = 0.01


class Refused(Exception):
    """An error answer."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.status = status


class _Lost(Exception):
    """The answer never arrives: the connection is cut."""


@dataclass
class Call:
    """A call that came."""

    action: str
    parameters: Json

    @property
    def timeouts(self) -> dict[str, int]:
        """The visibility timeouts that it asked for, by message id."""
        entries = self.parameters.get("Entries", [self.parameters])
        return {entry["ReceiptHandle"].partition("#")[0]: entry["VisibilityTimeout"] for entry in entries}


@dataclass
class _Stored:
    id: str
    body: str
    sent: int
    visible_at: float = 0.0
    received_at: float = 0.0
    receipts: int = 0

    @property
    def handle(self) -> str:
        """Only the newest handle counts."""
        return f"{self.id}#{self.receipts}"


class ScriptedSqs:
    """One queue at `queue_url`, in the event loop of the test; it survives `stop` and `start`.

    `calls` holds all that came, in order. It is as strict as AWS: a handle is gone as soon as the
    message was received again or is visible, and no message may stay hidden for longer than twelve hours.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.ahead = 0.0  # seconds that its clock is ahead of the right time
        self._port = 0
        self._messages: dict[str, _Stored] = {}
        self._scripts: defaultdict[str, deque[Step]] = defaultdict(deque)
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def queue_url(self) -> str:
        return f"http://127.0.0.1:{self._port}{PATH}"

    async def start(self) -> None:
        """Listen; after a stop, on the same port."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        app.on_response_prepare.append(self._date)
        self._runner = web.AppRunner(app, shutdown_timeout=TICK)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Cut what is under way and refuse connections. Harmless when it is stopped already."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def next(self, action: str, *steps: Step) -> None:
        """Let the next calls of an action go by these steps, one each."""
        self._scripts[action].extend(steps)

    def send(self, body: str) -> str:
        """Put a message on the queue and return its id."""
        message = _Stored(f"m-{next(self._numbers)}", body, int(time.time() * 1000))
        self._messages[message.id] = message
        return message.id

    def show(self, message_id: str) -> None:
        """Let the visibility timeout of a message end now."""
        self._messages[message_id].visible_at = 0.0

    def hidden_for(self, message_id: str) -> float:
        """Seconds until the message is visible; zero or less where it is."""
        return self._messages[message_id].visible_at - time.monotonic()

    def lose(self, message_id: str) -> None:
        """Forget a message, as if another consumer had deleted it."""
        del self._messages[message_id]

    def has(self, message_id: str) -> bool:
        return message_id in self._messages

    def called(self, *actions: str) -> list[Call]:
        return [call for call in self.calls if call.action in actions]

    def changes(self, message_id: str) -> list[int]:
        """Every visibility timeout that was asked for after a receipt of this message, in order."""
        calls = self.called("ChangeMessageVisibility", "ChangeMessageVisibilityBatch")
        return [call.timeouts[message_id] for call in calls if message_id in call.timeouts]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        action = request.headers["X-Amz-Target"].rpartition(".")[2]
        parameters = await request.json()
        self.calls.append(Call(action, dict(parameters)))
        try:
            if parameters["QueueUrl"] != self.queue_url:
                raise Refused("QueueDoesNotExist", "The specified queue does not exist.")
            if action == "ReceiveMessage":
                await self._wait_for_message(parameters)
            act = getattr(self, f"_{action}")
            script = self._scripts[action]
            step = script.popleft() if script else _as_asked
            return web.json_response(await step(parameters, lambda: act(parameters)))
        except Refused as exc:
            return web.json_response(
                {"__type": f"com.amazonaws.sqs#{exc.code}", "message": exc.message},
                status=exc.status,
                headers={"x-amzn-query-error": f"{exc.code};Sender"},
            )
        except _Lost:
            assert request.transport
            request.transport.abort()
            return web.Response()

    async def _date(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(time.time() + self.ahead, usegmt=True)

    async def _wait_for_message(self, parameters: Json) -> None:
        deadline = time.monotonic() + parameters["WaitTimeSeconds"]
        while not self._scripts["ReceiveMessage"] and not self._visible():
            if time.monotonic() >= deadline:
                return
            await asyncio.sleep(TICK)

    def _visible(self) -> list[_Stored]:
        return [m for m in self._messages.values() if m.visible_at <= time.monotonic()]

    def _ReceiveMessage(self, parameters: Json) -> Json:  # noqa: N802
        now, count = time.monotonic(), parameters["MaxNumberOfMessages"]
        if not 1 <= count <= MOST_MESSAGES:
            raise Refused(
                "InvalidParameterValue",
                f"Value {count} for parameter MaxNumberOfMessages is invalid. "
                f"Reason: Must be between 1 and {MOST_MESSAGES}, if provided.",
            )
        messages = self._visible()[:count]
        for message in messages:
            message.visible_at = now + parameters["VisibilityTimeout"]
            message.received_at = now
            message.receipts += 1
        return {
            "Messages": [
                {
                    "MessageId": message.id,
                    "ReceiptHandle": message.handle,
                    "Body": message.body,
                    "Attributes": {
                        "SentTimestamp": str(message.sent),
                        "ApproximateReceiveCount": str(message.receipts),
                    },
                }
                for message in messages
            ]
        }

    def _SendMessage(self, parameters: Json) -> Json:  # noqa: N802
        delay = parameters.get("DelaySeconds", 0)
        if delay > LONGEST_DELAY:
            raise Refused("InvalidParameterValue", f"Value {delay} for parameter DelaySeconds is invalid.")
        return {"MessageId": self.send(parameters["MessageBody"])}

    def _GetQueueAttributes(self, parameters: Json) -> Json:  # noqa: N802
        known = {"ApproximateNumberOfMessages": str(len(self._visible()))}
        asked = parameters["AttributeNames"]
        return {"Attributes": {name: value for name, value in known.items() if {name, "All"} & {*asked}}}

    def _DeleteMessage(self, parameters: Json) -> Json:  # noqa: N802
        # A stale handle is answered well, and nothing happens.
        message = self._find(parameters["ReceiptHandle"])
        if message and message.handle == parameters["ReceiptHandle"]:
            del self._messages[message.id]
        return {}

    def _ChangeMessageVisibility(self, parameters: Json) -> Json:  # noqa: N802
        now, seconds = time.monotonic(), parameters["VisibilityTimeout"]
        message = self._find(parameters["ReceiptHandle"])
        if not message or message.handle != parameters["ReceiptHandle"] or message.visible_at <= now:
            raise gone()
        if seconds and now + seconds > message.received_at + CAP:
            raise Refused("InvalidParameterValue", "Total VisibilityTimeout is beyond the limit")
        message.visible_at = now + seconds
        return {}

    def _ChangeMessageVisibilityBatch(self, parameters: Json) -> Json:  # noqa: N802
        answer: dict[str, list[Json]] = {"Successful": [], "Failed": []}
        for entry in parameters["Entries"]:
            try:
                self._ChangeMessageVisibility(entry)
            except Refused as exc:
                answer["Failed"].append(_failed(entry, exc.code, exc.message))
            else:
                answer["Successful"].append({"Id": entry["Id"]})
        return answer

    def _find(self, handle: str) -> _Stored | None:
        return self._messages.get(handle.partition("#")[0])


def gone() -> Refused:
    """What AWS says of the handle of a message that is visible, received anew or deleted."""
    return Refused(
        "InvalidParameterValue",
        "Value x for parameter ReceiptHandle is invalid. "
        "Reason: Message does not exist or is not available for visibility timeout change.",
    )


def refuse(code: str, message: str = "", status: int = 400) -> Step:
    """Answer with an error."""

    async def step(_: Json, __: Act) -> Json:
        raise Refused(code, message, status)

    return step


def fail_entries(code: str, message: str = "", count: int = 10) -> Step:
    """Answer a batch well, and say in the answer that its first entries failed."""

    async def step(parameters: Json, act: Act) -> Json:
        failed = [_failed(entry, code, message) for entry in parameters["Entries"][:count]]
        parameters["Entries"] = parameters["Entries"][count:]
        answer = act()
        return answer | {"Failed": [*answer["Failed"], *failed]}

    return step


def after(event: asyncio.Event, then: Step | None = None) -> Step:
    """Go on, as asked or by another step, only once the event is set."""

    async def step(parameters: Json, act: Act) -> Json:
        await event.wait()
        return await (then or _as_asked)(parameters, act)

    return step


def answer_after(event: asyncio.Event) -> Step:
    """Carry the call out at once, and answer only once the event is set."""

    async def step(_: Json, act: Act) -> Json:
        answer = act()
        await event.wait()
        return answer

    return step


async def hang(_: Json, __: Act) -> Json:
    """Never answer."""
    await asyncio.Event().wait()
    raise _Lost


async def cut(_: Json, __: Act) -> Json:
    """Cut the connection, with nothing done."""
    raise _Lost


async def _as_asked(_: Json, act: Act) -> Json:
    return act()


def _failed(entry: Json, code: str, message: str) -> Json:
    return {"Id": entry["Id"], "Code": code, "Message": message, "SenderFault": True}
