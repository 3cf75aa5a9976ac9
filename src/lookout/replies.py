"""Tells the sender, and whoever else wants to know, how a message ended, and meanwhile how far its deploy is."""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    retry_if_not_exception_type,
    wait_random_exponential,
)

from lookout.aws import statement
from lookout.course import Course
from lookout.errors import Interrupted, NoSuchQueue, QueueDenied, QueueError, QueueRefused, QueueUnusable
from lookout.model import Delivery, Ending, Message, Outcome, Phase
from lookout.result import Result
from lookout.sqs import Queue
from lookout.unbroken import ended, unless

TELL_EVERY = 1.0  # seconds between two events of progress
RETRY_PAUSE = 1.0  # seconds between two tries at most
RESULT_PATIENCE = 20.0  # seconds for the result queue, whose reader counts on hearing of everything
REPLY_PATIENCE = 5.0  # seconds for a reply queue: any sender can name one, and none may hold up others
NEW_QUEUE = 2.0  # seconds in which a queue that was only just made may not be known everywhere
LAST_WORDS = 2.0  # seconds for what is under way when Lookout is asked to stop
LAST_PROGRESS = 1.0  # seconds for an event that is under way when its deploy ends
REMEMBERED = 10_000  # results

PERMISSION = statement(
    "sqs:SendMessage", "<the ARN of the result queue>, or arn:aws:sqs:<region>:<account>:lookout-reply-*"
)

#: Errors that another try will not mend.
FINAL = (QueueDenied, QueueUnusable, QueueRefused)

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class _Waiting:
    """The event which says that a message waits for its turn."""

    telling: asyncio.Task[bool]
    until: float  # when the next one may follow


class _OutOfTime(QueueError):
    """The time for all tries was over in the middle of one."""


class Replies:
    """Sends results to the result queue and to the message's own reply queue; progress to the latter only."""

    def __init__(
        self,
        queue: Queue,
        *,
        result_queue_url: str | None = None,
        host_id: str | None = None,
        stopping: asyncio.Event | None = None,
        tell_every: float = TELL_EVERY,
        retry_pause: float = RETRY_PAUSE,
        result_patience: float = RESULT_PATIENCE,
        reply_patience: float = REPLY_PATIENCE,
    ) -> None:
        self._queue = queue
        self._result_queue_url = result_queue_url
        self._host_id = host_id or ""
        self._stopping = stopping or asyncio.Event()
        self._tell_every = tell_every
        self._retry_pause = retry_pause
        self._result_patience = result_patience
        self._reply_patience = reply_patience
        self._waiting: dict[str, _Waiting] = {}
        self._told: OrderedDict[tuple[str, str], int] = OrderedDict()

    # How it ended

    async def tell(self, ending: Ending) -> None:
        """Send how a message ended, at least once, to whoever wants to know and does not know it yet.

        What a queue will never take is logged, and holds up nothing. Raises QueueError where another try
        may help.
        """
        if ending.is_stray or ending.is_of_another_host:
            return
        if waiting := self._waiting.pop(ending.message.id, None):
            await asyncio.wait({waiting.telling})
        result, sends = self._result(ending), list[Coroutine[Any, Any, None]]()
        if url := self._result_queue_url:
            sends.append(self._tell(ending, result.without_log_tails(), url, self._result_patience))
        if url := ending.reply_queue_url:
            sends.append(self._tell(ending, result, url, self._reply_patience))
        for problem in await asyncio.gather(*sends, return_exceptions=True):
            if problem:
                raise problem

    async def _tell(self, ending: Ending, result: Result, url: str, patience: float) -> None:
        """Each try that fails is news; that nothing runs here is none the second time."""
        key, news = (ending.message.id, url), _news(result)
        if self._told.get(key) == news:
            return
        try:
            await self._insist(url, ending.message, result, patience)
        except QueueError as exc:
            self._note_failure(ending, url, exc)
            if not isinstance(exc, FINAL):
                raise
        self._told[key] = news
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)

    def _note_failure(self, ending: Ending, url: str, error: QueueError) -> None:
        is_gone = isinstance(error, NoSuchQueue) and url == ending.reply_queue_url
        say = log.info if is_gone else log.error
        say(
            "result not sent",
            message_id=ending.message.id,
            queue=url,
            error=str(error),
            **({"statement": PERMISSION} if isinstance(error, QueueDenied) else {}),
        )

    async def _insist(self, url: str, message: Message, result: Result, patience: float) -> None:
        """Try for so many seconds, or until Lookout stops."""
        began, errors = time.monotonic(), list[BaseException]()

        def is_over(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            errors[:] = [error] if error else []
            longest = min(NEW_QUEUE, patience) if isinstance(error, NoSuchQueue) else patience
            return self._stopping.is_set() or time.monotonic() - began >= longest

        sending = AsyncRetrying(
            retry=retry_if_exception_type(QueueError)
            & (retry_if_not_exception_type(FINAL) | retry_if_exception_type(NoSuchQueue)),
            stop=is_over,
            wait=wait_random_exponential(max=self._retry_pause),
            reraise=True,
        )
        step: Coroutine[Any, Any, None] = sending(self._send_fitting, url, message, result, str(uuid.uuid4()))
        try:
            await self._in_time(asyncio.create_task(step, name=f"result {message.id}"), patience)
        except _OutOfTime:
            raise [*errors, QueueError("SQS did not answer in time")][0] from None

    async def _in_time(self, sending: asyncio.Task[None], patience: float) -> None:
        stop: asyncio.Task[Any] = asyncio.create_task(self._stopping.wait(), name="stop")
        both: set[asyncio.Task[Any]] = {sending, stop}
        try:
            await asyncio.wait(both, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                await asyncio.wait({sending}, timeout=LAST_WORDS)
            if not sending.done():
                raise _OutOfTime
            sending.result()
        finally:
            stop.cancel()
            await ended(sending, within=None)

    async def _send_fitting(self, url: str, message: Message, result: Result, deduplication_id: str) -> None:
        try:
            await self._send(url, message, result, deduplication_id)
        except QueueRefused:  # a queue may take less than logs can be long
            await self._send(url, message, result.without_log_tails(), deduplication_id)

    async def _send(self, url: str, message: Message, result: Result, deduplication_id: str) -> None:
        await self._queue.beside(url).send(result.to_json(), message, {}, deduplication_id)

    def _result(self, ending: Ending) -> Result:
        report, image = ending.report, ending.image
        return Result(
            message_id=ending.message.id,
            image_name=str(image.name) if image else "",
            image_tag=image.tag if image else "",
            host_id=self._host_id,
            outcome=report.ended_before or report.outcome,
            error=report.reason,
            will_retry=ending.will_retry,
            next_attempt_at=ending.next_attempt_at,
            started_at=ending.began,
            finished_at=ending.ended,
            containers=report.each,
        )

    # How far it is

    @asynccontextmanager
    async def following(self, delivery: Delivery) -> AsyncIterator[Course]:
        """The course of a deploy, of which the sender is told, within the block, once a second at most."""
        if delivery.request.reply_queue_url is None:
            yield Course()
            return
        news, is_over = asyncio.Event(), asyncio.Event()
        course = Course(news.set)
        following = asyncio.create_task(
            self._follow(delivery, course, news, is_over), name=f"progress {delivery.message.id}"
        )
        try:
            yield course
        finally:
            is_over.set()  # nothing of it may come after the result
            await asyncio.wait({following}, timeout=LAST_PROGRESS)
            await ended(following, within=None)

    def waits(self, delivery: Delivery) -> None:
        """Tell the sender that the message waits for its turn; nothing waits for that."""
        if delivery.request.reply_queue_url:
            key = delivery.message.id
            telling = self._tell_progress(delivery, Course(), datetime.now(UTC))
            task = asyncio.create_task(telling, name=f"progress {key}")
            self._waiting[key] = _Waiting(task, time.monotonic() + self._tell_every)

    async def _follow(
        self, delivery: Delivery, course: Course, news: asyncio.Event, is_over: asyncio.Event
    ) -> None:
        began = datetime.now(UTC)
        if waiting := self._waiting.pop(delivery.message.id, None):
            await asyncio.wait({waiting.telling})
            await _unless_over(is_over, asyncio.sleep(waiting.until - time.monotonic()))
        goes_on = True
        while goes_on and not is_over.is_set():
            await _unless_over(is_over, news.wait())
            if not is_over.is_set():
                news.clear()
                goes_on = await self._tell_progress(delivery, course, began)
                await _unless_over(is_over, asyncio.sleep(self._tell_every))

    async def _tell_progress(self, delivery: Delivery, course: Course, began: datetime) -> bool:
        """Send how far it is; whether it makes sense to send more. What is lost the next one makes good."""
        message, url = delivery.message, delivery.request.reply_queue_url or ""
        try:
            await self._send(url, message, self._progress(delivery, course, began), str(uuid.uuid4()))
        except QueueError as exc:
            log.debug("progress not sent", message_id=message.id, queue=url, error=str(exc))
            return not isinstance(exc, QueueDenied)
        return True

    def _progress(self, delivery: Delivery, course: Course, began: datetime) -> Result:
        image = delivery.request.image
        pull = course.pull if course.phase is Phase.PULLING else None
        return Result(
            message_id=delivery.message.id,
            image_name=str(image.name),
            image_tag=image.tag,
            host_id=self._host_id,
            started_at=began,
            phase=course.phase,
            percent=pull.percent if pull else None,
            bytes_done=pull.bytes if pull else None,
            bytes_total=pull.bytes_total if pull else None,
            containers=course.containers,
        )


async def _unless_over(is_over: asyncio.Event, step: Coroutine[Any, Any, Any]) -> None:
    with suppress(Interrupted):
        await unless(is_over, step)


def _news(result: Result) -> int:
    """The same for what says nothing new: each try that fails does, but not that nothing runs here still."""
    at = result.next_attempt_at if result.outcome is Outcome.FAILED else None
    return hash((result.outcome, result.error, result.will_retry, at))
