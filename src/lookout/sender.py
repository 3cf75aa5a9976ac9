"""Sends the message that asks for a deploy, and waits for what becomes of it."""

import asyncio
import hashlib
import json
import math
import secrets
import signal
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from lookout import reply_queue
from lookout.chosen import QueueSettings
from lookout.errors import (
    Interrupted,
    LookoutError,
    NoSuchQueue,
    QueueDenied,
    QueueError,
    QueueRefused,
    QueueUnusable,
)
from lookout.model import DeployRequest, Invalid
from lookout.reply_queue import Answer, ReplyQueue, may_pass
from lookout.request import parse
from lookout.result import Result
from lookout.sqs import Queue
from lookout.unbroken import ended, unless

LONGEST_WAIT = 20  # seconds of one receive call, by SQS
LONGEST_GROUP_ID = 128  # characters, by SQS
TRIES = 3  # to send the message
LONGEST_PAUSE = 5.0  # seconds between two tries
CALLS = 24  # at the same time: a poll, ten deletes, ten that are given back, the sweep


@dataclass
class NotSent(LookoutError):
    """Nothing was sent, and what is wrong will not pass by itself."""

    message: str

    def __str__(self) -> str:
        return f"{self.message.rstrip('.')}; nothing was sent"


@dataclass
class MaybeSent(LookoutError):
    """SQS gave no answer to the message: nobody knows whether it has it."""

    message: str

    def __str__(self) -> str:
        return f"{self.message}; the message may be on the queue all the same, and be deployed"


class Stop(asyncio.Event):
    """Is set by a signal that asks a program to end; `signal` is its number, and 0 before."""

    signal = 0

    def listen(self) -> None:
        """From now on, in the running loop; not to what whoever started this wants to be ignored, as `nohup` does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._hear, number)

    def _hear(self, number: int) -> None:
        self.signal = self.signal or number
        self.set()


class Screen(Protocol):
    """Who is told what becomes of the message."""

    def sent(self, message_id: str) -> None: ...

    def progress(self, result: Result) -> None: ...

    def will_retry(self, result: Result) -> None: ...

    def trouble(self, text: str) -> None: ...


def body(request: DeployRequest) -> str:
    """The message that is read as this request."""
    told = {
        "ImageName": str(request.image.name),
        "ImageTag": request.image.tag,
        "ImageDigest": request.digest,
        "DeployTimeSeconds": request.deploy_time,
        "HostId": request.host_id,
        "ReplyQueueUrl": request.reply_queue_url,
    }
    return json.dumps({key: value for key, value in told.items() if value is not None})


def fault(request: DeployRequest, queue_url: str) -> str:
    """Why Lookout would not take it as it is meant, or nothing; found out by Lookout's own reading."""
    read = parse(body(request), queues=[queue_url])
    if isinstance(read, DeployRequest):
        return read.reply_fault
    return read.reason if isinstance(read, Invalid) else "is taken for no request"


class Watch:
    """What was told of the message so far. Late progress counts no more, since its order is lost on the way."""

    def __init__(self, screen: Screen, *, for_retries: bool) -> None:
        self.progress: Result | None = None  # the newest
        self.result: Result | None = None
        self._screen = screen
        self._for_retries = for_retries
        self._newest = 0  # of all answers
        self._result_sent = 0

    def hear(self, answer: Answer) -> bool:
        """Take an answer; whether it is the last that is waited for."""
        is_late = answer.sent_timestamp < self._newest
        self._newest = max(self._newest, answer.sent_timestamp)
        if answer.result.outcome is not None:
            return self._hear_result(answer)
        if not is_late:
            self.progress = answer.result
            self._screen.progress(answer.result)
        return False

    def _hear_result(self, answer: Answer) -> bool:
        if not (self._for_retries and answer.result.will_retry):
            self.result = answer.result
            return True
        if answer.sent_timestamp >= self._result_sent and answer.result != self.result:
            self.result, self._result_sent = answer.result, answer.sent_timestamp
            self._screen.will_retry(answer.result)
        return False


class Sender:
    """Sends one request, and tells a screen what becomes of it; `stop` ends the waiting.

    At each end `message_id` says whether it was sent, `watch` what has been told of it, and `trouble`
    why nothing more can be heard.
    """

    def __init__(
        self, settings: QueueSettings, request: DeployRequest, stop: Stop, watch: Watch, screen: Screen
    ) -> None:
        self.message_id = ""
        self.watch = watch
        self.trouble = ""
        self._settings = settings
        self._request = request
        self.stop = stop
        self._screen = screen

    async def send(self) -> None:
        """Only send. Raises NotSent, MaybeSent, WrongSettings or Interrupted."""
        self.stop.listen()
        async with self._connected() as queue:
            await self._send(queue, self._request.reply_queue_url)

    async def deploy(self, timeout: float) -> None:
        """Send, and return when the last answer has come, or none in so many seconds. Raises as `send`."""
        self.stop.listen()
        async with self._connected() as queue:
            try:
                async with self._replies(queue, timeout) as replies:
                    await self._check(replies)
                    await self._send(queue, replies.url)
                    await self._wait(queue, replies, timeout)
            except QueueError as exc:
                raise _not_made(exc) from exc

    def _connected(self) -> AbstractAsyncContextManager[Queue]:
        return Queue.connect(self._settings, poll_time=LONGEST_WAIT, calls=CALLS)

    def _replies(self, queue: Queue, timeout: float) -> AbstractAsyncContextManager[ReplyQueue]:
        began = time.monotonic()
        if self._request.reply_queue_url:
            return nullcontext(ReplyQueue(queue.beside(self._request.reply_queue_url)))
        return reply_queue.made(
            queue,
            keep=math.ceil(timeout),
            give_up=lambda: self.stop.is_set() or time.monotonic() > began + timeout,
            left=self._screen.trouble,
        )

    async def _check(self, replies: ReplyQueue) -> None:
        if self.stop.is_set():
            raise Interrupted
        try:
            await replies.check()
        except NoSuchQueue as exc:
            if self._request.reply_queue_url:
                raise NotSent(f"the reply queue is of no use: {exc}") from exc
        except (QueueDenied, QueueUnusable) as exc:
            raise NotSent(f"an answer could not be received: {exc}; allow sqs:ReceiveMessage on it") from exc
        except QueueError:
            pass  # it may pass until there is an answer
        if self.stop.is_set():
            raise Interrupted

    async def _send(self, queue: Queue, reply_queue_url: str | None) -> None:
        """A try is never cut short; what SQS gets twice is deployed once."""
        request = replace(self._request, reply_queue_url=reply_queue_url)
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda exc: may_pass(exc) and not self.stop.is_set()),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(max=LONGEST_PAUSE),
            reraise=True,
        )
        try:
            self.message_id = await retrying(
                queue.request,
                body(request),
                group_id=_group_id(request.image.name.canonical),
                deduplication_id=secrets.token_hex(16),
            )
        except NoSuchQueue as exc:
            raise NotSent(f"there is no queue {queue.url}; check SqsQueueUrl and AWS_REGION") from exc
        except (QueueDenied, QueueUnusable, QueueRefused) as exc:
            raise NotSent(f"SQS does not take the message: {exc}") from exc
        except QueueError as exc:
            raise MaybeSent(str(exc)) from exc
        self._screen.sent(self.message_id)

    async def _wait(self, queue: Queue, replies: ReplyQueue, timeout: float) -> None:
        sweeping = None
        if not self._request.reply_queue_url:
            sweeping = asyncio.create_task(reply_queue.sweep(queue.account, replies.url), name="sweep")
        try:
            async with asyncio.timeout(timeout):
                await unless(self.stop, self._hear(replies, timeout))
        except TimeoutError:
            pass
        except QueueError as exc:
            self.trouble = f"its result cannot be received: {exc}"
        finally:
            if sweeping:
                await ended(sweeping, within=None)

    async def _hear(self, replies: ReplyQueue, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda exc: may_pass(exc) or _is_young(replies, exc)),
            wait=wait_random_exponential(max=LONGEST_PAUSE),
            before_sleep=self._tell,
            reraise=True,
        )
        while True:
            wait = min(LONGEST_WAIT, max(1, math.ceil(deadline - loop.time())))
            answers: list[Answer] = await retrying(replies.answers, self.message_id, wait=wait)
            if any(self.watch.hear(answer) for answer in answers):
                return

    def _tell(self, state: RetryCallState) -> None:
        exc = state.outcome.exception() if state.outcome else None
        if exc and not isinstance(exc, NoSuchQueue):
            self._screen.trouble(f"asking again: {exc}")


def _not_made(exc: QueueError) -> NotSent:
    hint = (
        "; allow sqs:CreateQueue on lookout-reply-*, or give a queue with --reply-queue, "
        "or do not wait, with --no-wait"
        if isinstance(exc, QueueDenied)
        else ""
    )
    return NotSent(f"no reply queue can be made: {exc}{hint}")


def _is_young(replies: ReplyQueue, exc: BaseException) -> bool:
    return isinstance(exc, QueueError) and replies.may_come_to_be(exc)


def _group_id(name: str) -> str:
    """An image deploys in order; a name may be longer than SQS allows."""
    return name if len(name) <= LONGEST_GROUP_ID else hashlib.sha256(name.encode()).hexdigest()
