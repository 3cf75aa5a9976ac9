"""The queue of messages that ended badly, for a person to look at."""

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from lookout.aws import statement
from lookout.errors import QueueDenied, QueueError, QueueRefused
from lookout.model import Message, Report
from lookout.sqs import Queue

TRIES = 4
RETRY_PAUSE = 5.0  # seconds between two tries at most
LONGEST_REASON = 500  # characters

PERMISSION = statement("sqs:SendMessage", "<the ARN of the dead-letter queue>")

log = structlog.stdlib.get_logger(__name__)


class DeadLetters:
    """Puts messages there with their body as it came, and why as message attributes."""

    def __init__(self, queue: Queue, *, retry_pause: float = RETRY_PAUSE) -> None:
        self._queue = queue
        self._retry_pause = retry_pause

    async def put(self, message: Message, report: Report) -> None:
        """Send the message there, at least once; raises QueueError where that failed, which is logged."""
        try:
            try:
                await self._send(message, _why(message, report))
            except QueueRefused:  # a body that is as long as the queue allows leaves no room for attributes
                await self._send(message, {})
        except QueueError as exc:
            log.error(
                "message not sent to the dead-letter queue",
                message_id=message.id,
                error=str(exc),
                **({"statement": PERMISSION} if isinstance(exc, QueueDenied) else {}),
            )
            raise

    async def _send(self, message: Message, attributes: dict[str, str]) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(QueueError) & retry_if_not_exception_type(QueueRefused),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(max=self._retry_pause),
            reraise=True,
        )
        await retrying(self._queue.send, message.body, message, attributes, message.id)


def _why(message: Message, report: Report) -> dict[str, str]:
    return {
        "MessageId": message.id,
        "Outcome": report.outcome.value,
        "Reason": _allowed(report.reason)[:LONGEST_REASON] or "-",
    }


def _allowed(text: str) -> str:
    """On one line of printable ASCII, which every queue takes."""
    return " ".join("".join(c if c.isascii() and c.isprintable() else " " for c in text).split())
