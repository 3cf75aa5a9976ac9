"""What each outcome does to its message: delete it, or keep it for another try."""

import random
import time
from collections import OrderedDict
from typing import TypeVar

import structlog

from lookout.leases import Leases
from lookout.model import Message, Outcome, Report

BACKOFF_BASE = 30.0  # seconds until the second try of a message that is kept
BACKOFF_CAP = 900.0  # seconds between two tries at most
RETRY_FOR = 3600.0  # seconds after it was sent in which a failed deploy is tried again
REMEMBERED = 10_000  # message ids: far more than come back while anybody could still care

Value = TypeVar("Value")

_LEVELS = {
    Outcome.INVALID: "error",
    Outcome.FAILED: "error",
    Outcome.ROLLED_BACK: "error",
    Outcome.ROLLBACK_FAILED: "critical",
}

log = structlog.stdlib.get_logger(__name__)


class Settler:
    """Ends every message exactly once, containers first and the queue last."""

    def __init__(
        self, leases: Leases, *, backoff_base: float = BACKOFF_BASE, retry_for: float = RETRY_FOR
    ) -> None:
        self._leases = leases
        self._backoff_base = backoff_base
        self._retry_for = retry_for
        self._tries: OrderedDict[str, int] = OrderedDict()
        self._settled: OrderedDict[str, None] = OrderedDict()

    def is_settled(self, message: Message) -> bool:
        """Whether this message ended before, and has come back only because it was not deleted."""
        return message.id in self._settled

    async def settle(self, message: Message, report: Report, **fields: object) -> None:
        """Log how the message ended, then delete it or give it back to the queue for later."""
        after = self._retry_after(message, report)
        following = "the message is deleted" if after is None else self._following(after)
        level = _LEVELS.get(report.outcome, "info")
        getattr(log, level)(
            report.outcome.value,
            message_id=message.id,
            outcome=report.outcome.value,
            **fields,
            **({"reason": report.reason} if report.reason else {}),
            **({"containers": list(report.containers)} if report.containers else {}),
            next=following,
        )
        if after is None:
            _remember(self._settled, message.id, None)
            self._tries.pop(message.id, None)
            await self._leases.done(message)
        else:
            await self._leases.release(message, after=after)

    def _following(self, after: float) -> str:
        if self._leases.denied:
            return "tried again when its visibility timeout ends"
        return f"tried again in {after:.0f} s"

    async def delete_again(self, message: Message) -> None:
        """Delete a message that ended before."""
        log.info("message ended before; deleting it", message_id=message.id)
        await self._leases.done(message)

    def _retry_after(self, message: Message, report: Report) -> float | None:
        """Seconds until the next try; None ends the message."""
        match report.outcome:
            case Outcome.NOT_HERE if report.retry_after is not None:
                return report.retry_after
            case Outcome.NOT_HERE | Outcome.INVALID:
                return self._backoff(message)
            case Outcome.FAILED if report.transient and not self._expired(message):
                return self._backoff(message)
            case _:
                return None

    def _expired(self, message: Message) -> bool:
        return time.time() - message.sent_timestamp / 1000 >= self._retry_for

    def _backoff(self, message: Message) -> float:
        """Doubles with each try of this process: the queue's own count includes other listeners'."""
        tries = self._tries.get(message.id, 0) + 1
        _remember(self._tries, message.id, tries)
        full = min(BACKOFF_CAP, self._backoff_base * 2.0 ** min(tries - 1, 16))
        return full * random.uniform(0.75, 1.0)  # noqa: S311  jitter, not a secret


def _remember(memory: OrderedDict[str, Value], key: str, value: Value) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
