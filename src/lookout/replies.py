"""Tells the sender, and whoever else wants to know, how a message ended, and meanwhile how far its deploy is."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from lookout.course import Course
from lookout.errors import NoSuchQueue, QueueDenied, QueueError, QueueRefused, QueueUnusable
from lookout.model import Delivery, Ending, Message, Phase
from lookout.result import Result
from lookout.sqs import Queue

TELL_EVERY = 1.0  # seconds between two events of progress
TRIES = 4
RETRY_PAUSE = 5.0  # seconds between two tries at most

PERMISSION = (
    '{"Effect": "Allow", "Action": "sqs:SendMessage", '
    '"Resource": ["<the ARN of the result queue>", "arn:aws:sqs:<region>:<account>:lookout-reply-*"]}'
)

#: Errors that another try will not mend.
FINAL = (QueueDenied, QueueUnusable, QueueRefused)

log = structlog.stdlib.get_logger(__name__)


class Replies:
    """Sends results to the result queue and to the message's own reply queue; progress to the latter only."""

    def __init__(
        self,
        queue: Queue,
        *,
        result_queue_url: str | None = None,
        host_id: str | None = None,
        tell_every: float = TELL_EVERY,
        retry_pause: float = RETRY_PAUSE,
    ) -> None:
        self._queue = queue
        self._result_queue_url = result_queue_url
        self._host_id = host_id or ""
        self._tell_every = tell_every
        self._retry_pause = retry_pause
        self._waiting: dict[str, asyncio.Task[None]] = {}

    async def tell(self, ending: Ending) -> None:
        """Send how a message ended, at least once, to whoever wants to know.

        What a queue will never take is logged, and holds up nothing. Raises QueueError where another try
        may help.
        """
        result = self._result(ending)
        sends = []
        if self._result_queue_url:
            sends.append(self._tell(ending, result.without_log_tails(), self._result_queue_url))
        if ending.reply_queue_url:
            sends.append(self._tell(ending, result, ending.reply_queue_url))
        for problem in await asyncio.gather(*sends, return_exceptions=True):
            if problem:
                raise problem

    async def _tell(self, ending: Ending, result: Result, url: str) -> None:
        sending = AsyncRetrying(
            # Also where there is no such queue: one that was only just made may not be known everywhere.
            retry=retry_if_exception_type(QueueError)
            & retry_if_not_exception_type((QueueDenied, QueueRefused)),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(max=self._retry_pause),
            reraise=True,
        )
        try:
            await sending(self._send, url, ending.message, result, str(uuid.uuid4()))
        except QueueError as exc:
            is_gone = isinstance(exc, NoSuchQueue) and url == ending.reply_queue_url
            say = log.info if is_gone else log.error
            say(
                "result not sent",
                message_id=ending.message.id,
                queue=url,
                error=str(exc),
                **({"statement": PERMISSION} if isinstance(exc, QueueDenied) else {}),
            )
            if not isinstance(exc, FINAL):
                raise

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

    @asynccontextmanager
    async def following(self, delivery: Delivery) -> AsyncIterator[Course]:
        """The course of a deploy, of which the sender is told, within the block, once a second at most."""
        url = delivery.request.reply_queue_url
        if url is None:
            yield Course()
            return
        news = asyncio.Event()
        course = Course(news.set)
        following = asyncio.create_task(
            self._follow(delivery, course, news), name=f"progress {delivery.message.id}"
        )
        try:
            yield course
        finally:
            following.cancel()
            await asyncio.wait({following})

    def waits(self, delivery: Delivery) -> None:
        """Tell the sender that the message waits for its turn; nothing waits for that."""
        if delivery.request.reply_queue_url:
            key = delivery.message.id
            telling = asyncio.create_task(self._tell_that_it_waits(delivery), name=f"progress {key}")
            self._waiting[key] = telling
            telling.add_done_callback(lambda _: self._waiting.pop(key, None))

    async def _tell_that_it_waits(self, delivery: Delivery) -> None:
        await self._tell_progress(delivery, Course(), datetime.now(UTC))
        await asyncio.sleep(self._tell_every)

    async def _follow(self, delivery: Delivery, course: Course, news: asyncio.Event) -> None:
        began, goes_on = datetime.now(UTC), True
        if telling := self._waiting.get(delivery.message.id):
            await asyncio.wait({telling})
        while goes_on:
            await news.wait()
            news.clear()
            goes_on = await self._tell_progress(delivery, course, began)
            await asyncio.sleep(self._tell_every)

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
