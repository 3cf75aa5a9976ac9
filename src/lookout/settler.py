"""What each outcome does to its message: delete it, keep it for another try, or lay it aside."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Coroutine
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
        took: tuple[datetime, float] | None = None,
        **fields: object,
    ) -> None:
        """Log and tell how the message ended, then delete it or give it back to the queue for later.

        It asked for `request`, and its deploy began then and `took` so many seconds; the `fields` are for
        the log.
        """
        self._vitals.ended(report, took[1] if took else None)
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
            **({"seconds": round(took[1], 2)} if took else {}),
            **({"reason": report.reason} if report.reason else {}),
            **({"containers": list(report.containers)} if report.containers else {}),
            next=self._next(report, after),
        )
        ending = self._ending(message, report, request, took, after)
        if after is None:
            _remember(self._settled, message.id, replace(ending, message=replace(message, body="")))
            self._tries.pop(message.id, None)
            await self._end(ending)
        else:
            await self._tell(ending)
            await self._leases.release(message, after=after)

    async def settle_again(self, message: Message) -> None:
        """End a message that ended before, but is still on the queue."""
        ending = self._settled[message.id]
        report = ending.report
        again = Outcome.UNCHANGED if report.outcome is Outcome.DEPLOYED else report.outcome
        log.info("message ended before; ending it again", message_id=message.id, outcome=again.value)
        await self._end(replace(ending, message=message))

    def beside(self, ending: Coroutine[Any, Any, None], message: Message) -> None:
        """Settle or release it in a task of its own: its slot is not free before, and nothing waits for it."""
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

    def _ending(
        self,
        message: Message,
        report: Report,
        request: Asked,
        took: tuple[datetime, float] | None,
        after: float | None,
    ) -> Ending:
        began, seconds = took or (datetime.now(UTC), 0.0)
        will_retry = after is not None and report.outcome is not Outcome.INVALID
        is_known = after is not None and will_retry and not self._leases.denied
        next_attempt_at = datetime.now(UTC) + timedelta(seconds=after or 0) if is_known else None
        return Ending(
            message, report, request, began, began + timedelta(seconds=seconds), will_retry, next_attempt_at
        )

    async def _end(self, ending: Ending) -> None:
        """Delete the message, once it is told of, and laid aside if it has to be."""
        message = ending.message
        if not (await self._tell(ending) and await self._lay_aside(ending)):
            await self._leases.release(message, after=self._backoff(message))
            return
        _remember(self._settled, message.id, _slim(ending))
        await self._leases.done(message)

    async def _tell(self, ending: Ending) -> bool:
        """Send its result; False where the message had better come back for another try of that."""
        try:
            if self._replies:
                await self._replies.tell(ending)
        except QueueError:
            return self._must_go(ending) or self._expired(ending.message)
        return True

    async def _lay_aside(self, ending: Ending) -> bool:
        """Send it to the dead-letter queue, if it belongs there; False where that is to be tried again."""
        message, report = ending.message, ending.report
        if not (self._dead_letters and self._is_laid_aside(report)) or message.id in self._laid_aside:
            return True
        try:
            await self._dead_letters.put(message, report)
        except QueueError as exc:
            is_final = isinstance(exc, QueueDenied | QueueUnusable | QueueRefused)
            if not (is_final and self._must_go(ending)):
                return False
            log.error("the message is deleted all the same", message_id=message.id)
            return True
        _remember(self._laid_aside, message.id, None)  # should it come back, it is only deleted
        return True

    def _must_go(self, ending: Ending) -> bool:
        """Whether a message must not come back: it would stop the service again, or hold up its group."""
        return self._in_order or ending.report.outcome in _NEVER_AGAIN

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


def _slim(ending: Ending) -> Ending:
    """What is enough to end it again."""
    return replace(ending, message=replace(ending.message, body=""), report=replace(ending.report, each=()))


def _remember(memory: OrderedDict[str, Value], key: str, value: Value) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
