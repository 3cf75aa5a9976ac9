"""The queue of messages that ended badly, for a person to look at."""

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from lookout.errors import QueueDenied, QueueError
from lookout.model import Message, Report
from lookout.sqs import Queue

TRIES = 4
RETRY_PAUSE = 5.0  # seconds between two tries at most
LONGEST_REASON = 500  # characters

PERMISSION = (
    '{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "<the ARN of the dead-letter queue>"}'
)

log = structlog.stdlib.get_logger(__name__)


class DeadLetters:
    """Puts messages there with their body as it came, and why as message attributes."""

    def __init__(self, queue: Queue, *, retry_pause: float = RETRY_PAUSE) -> None:
        self._queue = queue
        self._retry_pause = retry_pause

    async def put(self, message: Message, report: Report) -> None:
        """Send the message there, at least once; raises QueueError where that failed, which is logged."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(QueueError),
                stop=stop_after_attempt(TRIES),
                wait=wait_random_exponential(max=self._retry_pause),
                reraise=True,
            ):
                with attempt:
                    # A body that is as long as the queue allows leaves no room for attributes.
                    is_last = attempt.retry_state.attempt_number == TRIES
                    await self._queue.send(message.body, message, {} if is_last else _why(message, report))
        except QueueError as exc:
            log.error(
                "message not sent to the dead-letter queue",
                message_id=message.id,
                error=str(exc),
                **({"statement": PERMISSION} if isinstance(exc, QueueDenied) else {}),
            )
            raise


def _why(message: Message, report: Report) -> dict[str, str]:
    return {
        "MessageId": message.id,
        "Outcome": report.outcome.value,
        "Reason": _allowed(report.reason)[:LONGEST_REASON] or "-",
    }


def _allowed(text: str) -> str:
    """On one line of printable ASCII, which every queue takes."""
    return " ".join("".join(c if c.isascii() and c.isprintable() else " " for c in text).split())
