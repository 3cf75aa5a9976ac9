"""What each outcome does to its message: delete it, keep it for another try, or lay it aside."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog

from lookout.dead_letters import DeadLetters
from lookout.errors import QueueDenied, QueueError, QueueRefused, QueueUnusable
from lookout.leases import Leases
from lookout.model import Asked, Ending, Message, Outcome, Report
from lookout.replies import Replies
from lookout.unbroken import unbroken
from lookout.vitals import Vitals

BACKOFF_BASE = 30.0  # seconds until the second try of a message that is kept
BACKOFF_CAP = 900.0  # seconds between two tries at most
REMEMBERED = 10_000  # message ids: far more than come back while anybody could still care

Value = TypeVar("Value")

_LEVELS = {
    Outcome.INVALID: "error",
    Outcome.FAILED: "error",
    Outcome.ROLLED_BACK: "error",
    Outcome.ROLLBACK_FAILED: "critical",
}

_NEVER_AGAIN = (Outcome.ROLLED_BACK, Outcome.ROLLBACK_FAILED)
_BAD = (Outcome.INVALID, Outcome.FAILED, Outcome.ROLLED_BACK, Outcome.ROLLBACK_FAILED)

log = structlog.stdlib.get_logger(__name__)


class Settler:
    """Ends every message exactly once, containers first and the queue last."""

    def __init__(
        self,
        leases: Leases,
        *,
        retry_for: float,
        dead_letters: DeadLetters | None = None,
        replies: Replies | None = None,
        keeps_unmatched: bool = True,
        in_order: bool = False,
        backoff_base: float = BACKOFF_BASE,
        vitals: Vitals | None = None,
    ) -> None:
        """A deploy that fails is tried again until `retry_for` seconds after its message was sent.

        On a queue that is `in_order`, a message that is kept holds up all that follow it in its group.
        """
        self._leases = leases
        self._dead_letters = dead_letters
        self._replies = replies
        self._in_order = in_order
        self._keeps_unmatched = keeps_unmatched
        self._backoff_base = backoff_base
        self._retry_for = retry_for
        self._vitals = vitals or Vitals()
        self._tries: OrderedDict[str, int] = OrderedDict()
        self._settled: OrderedDict[str, Ending] = OrderedDict()
        self._told: OrderedDict[str, tuple[object, ...]] = OrderedDict()
        self._laid_aside: OrderedDict[str, None] = OrderedDict()
        self._settling: set[asyncio.Task[None]] = set()

    def is_settled(self, message: Message) -> bool:
        """Whether this message ended before, and has come back only because it was not deleted."""
        return message.id in self._settled

    async def settle(
        self,
        message: Message,
        report: Report,
        request: Asked,
        *,
        began: datetime | None = None,
        **fields: object,
    ) -> None:
        """Log and tell how the message ended, then delete it or give it back to the queue for later.

        It asked for `request`, and the deploy `began` then; the `fields` are for the log.
        """
        self._vitals.ended(report, fields.get("seconds"))
        is_first = message.id not in self._tries
        after = self._retry_after(message, report)
        level = _LEVELS.get(report.outcome, "info")
        if report.retry_after is not None and not is_first:
            level = "debug"  # its owner may be away for days, and it comes every few seconds
        getattr(log, level)(
            report.outcome.value,
            message_id=message.id,
            outcome=report.outcome.value,
            **fields,
            **({"reason": report.reason} if report.reason else {}),
            **({"containers": list(report.containers)} if report.containers else {}),
            next=self._next(report, after),
        )
        ending = self._ending(message, report, request, began, after)
        if after is None:
            _remember(self._settled, message.id, replace(ending, message=replace(message, body="")))
            self._tries.pop(message.id, None)
            await self._end(ending)
        else:
            with suppress(QueueError):  # the next try tells again
                await self._tell(ending)
            await self._leases.release(message, after=after)

    async def settle_again(self, message: Message) -> None:
        """End a message that ended before, but is still on the queue."""
        ending = self._settled[message.id]
        report = ending.report
        again = Outcome.UNCHANGED if report.outcome is Outcome.DEPLOYED else report.outcome
        log.info("message ended before; ending it again", message_id=message.id, outcome=again.value)
        await self._end(replace(ending, message=message))

    def _ending(
        self, message: Message, report: Report, request: Asked, began: datetime | None, after: float | None
    ) -> Ending:
        now = datetime.now(UTC)
        will_retry = after is not None and report.outcome is not Outcome.INVALID
        is_known = after is not None and will_retry and not self._leases.denied
        next_attempt_at = now + timedelta(seconds=after or 0) if is_known else None
        return Ending(message, report, request, began or now, now, will_retry, next_attempt_at)

    def beside(self, ending: Coroutine[Any, Any, None], message: Message) -> None:
        """Settle or release it in a task of its own: its slot is not free before, and nothing waits for it."""
        self._leases.end_renewals(message)
        task = asyncio.create_task(unbroken(ending), name=f"settle {message.id}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    @property
    def pending(self) -> frozenset[asyncio.Task[None]]:
        """What is being settled beside."""
        return frozenset(self._settling)

    def _next(self, report: Report, after: float | None) -> str:
        if after is None and self._is_laid_aside(report):
            return "the message is sent to the dead-letter queue and deleted"
        if after is None:
            return "the message is deleted"
        if self._leases.denied:
            return "tried again when its visibility timeout ends"
        return f"tried again in {after:.0f} s"

    async def _tell(self, ending: Ending) -> None:
        """Send the result, unless it is none of our business, or would say again what was said."""
        report, is_for_another_host = ending.report, ending.report.retry_after is not None
        if self._replies is None or ending.is_stray or (is_for_another_host and ending.will_retry):
            return
        # Each try that fails is news; that nothing runs here is none the second time.
        news = (
            report,
            ending.will_retry,
            ending.next_attempt_at if report.outcome is Outcome.FAILED else None,
        )
        if self._told.get(ending.message.id) != news:
            await self._replies.tell(ending)
            _remember(self._told, ending.message.id, news)

    async def _end(self, ending: Ending) -> None:
        """Delete the message, once it is told of, and laid aside if it has to be."""
        message, report = ending.message, ending.report
        try:
            await self._tell(ending)
            if self._dead_letters and self._is_laid_aside(report) and message.id not in self._laid_aside:
                await self._dead_letters.put(message, report)
                _remember(self._laid_aside, message.id, None)  # should it come back, it is only deleted
        except QueueError as exc:
            if not self._is_given_up(report, exc):
                await self._leases.release(message, after=self._backoff(message))
                return
            log.error("the message is deleted all the same", message_id=message.id)
        await self._leases.done(message)

    def _is_given_up(self, report: Report, error: QueueError) -> bool:
        """Whether a message goes that the dead-letter queue will not take.

        It would stop the service again after a restart, or hold up its group.
        """
        is_final = isinstance(error, QueueDenied | QueueUnusable | QueueRefused)
        return is_final and (self._in_order or report.outcome in _NEVER_AGAIN)

    def _is_laid_aside(self, report: Report) -> bool:
        """Whether a person may want to see a message that ended like this."""
        is_for_another_host = report.retry_after is not None
        unmatched = report.outcome is Outcome.NOT_HERE and (self._keeps_unmatched or is_for_another_host)
        return self._dead_letters is not None and (unmatched or report.outcome in _BAD)

    def _retry_after(self, message: Message, report: Report) -> float | None:
        """Seconds until the next try; None ends the message."""
        match report.outcome:
            case Outcome.NOT_HERE if report.retry_after is not None:
                # In a FIFO queue it holds up its group, which must not be for ever.
                _remember(self._tries, message.id, self._tries.get(message.id, 0))  # a look is no try
                return None if self._in_order and self._expired(message) else report.retry_after
            case Outcome.NOT_HERE if self._keeps_unmatched and not self._in_order:
                return self._backoff(message)
            case Outcome.INVALID if not (self._dead_letters or self._in_order):
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
