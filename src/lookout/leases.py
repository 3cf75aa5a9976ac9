"""Keeps every message that Lookout holds hidden on the queue until it is settled."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from lookout.aws import statement
from lookout.errors import HandleGone, QueueDenied, QueueError
from lookout.model import Message
from lookout.sqs import LONGEST_VISIBILITY, Queue
from lookout.vitals import Vitals

FLOOR = 60.0  # seconds: the shortest lease
MARGIN = 30.0  # seconds on top of one and a half deploy times
RENEW_BEFORE = 10.0  # seconds: a lease is renewed when this, or half of it, is left
RETRY_RENEWAL = 1.0  # seconds until a renewal that failed is tried again
CAP_MARGIN = 5.0  # seconds kept from the twelve hours: the call itself takes time too
DELETE_TRIES = 4
RELEASE_TRIES = 2  # a connection that the other side has closed shows only when it is used
RETRY_PAUSE = 5.0  # seconds between two tries at most

PERMISSION = statement("sqs:ChangeMessageVisibility", "<the ARN of the queue>")

log = structlog.stdlib.get_logger(__name__)


@dataclass
class Lease:
    """How long one message stays hidden, on the local monotonic clock."""

    message: Message
    length: float  # seconds that each renewal asks for
    received: float
    deadline: float  # when the queue will show the message again
    due: float  # when it had to be renewed at first; `renew_at` is the next try
    renew_at: float = 0.0
    lost: bool = False
    unanswered: bool = False  # lost because no renewal was answered in time: one is still tried
    settling: bool = field(default=False, repr=False)


class Leases:
    """The messages in flight: received and not settled. One loop renews them all."""

    def __init__(
        self,
        queue: Queue,
        *,
        slots: int,
        floor: float = FLOOR,
        margin: float = MARGIN,
        retry_pause: float = RETRY_PAUSE,
        vitals: Vitals | None = None,
    ) -> None:
        self._queue = queue
        self.slots = slots
        self._floor = floor
        self._margin = margin
        self._retry_pause = retry_pause
        self._vitals = vitals or Vitals()
        self._leases: dict[str, Lease] = {}
        self._renewing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._freed = asyncio.Event()
        self._longest = self.length(0)
        self.denied = False
        self._last_error = ""

    @property
    def in_flight(self) -> int:
        """How many messages are held."""
        return len(self._leases)

    @property
    def free(self) -> int:
        """How many more messages may be held."""
        return self.slots - self.in_flight

    def overdue(self) -> str:
        """Why a lease that could be renewed was not, when half of the time for it is over; empty if none."""
        now = time.monotonic()
        for lease in self._leases.values():
            if self.denied or lease.settling:
                continue
            if lease.unanswered or (not lease.lost and now > (lease.due + lease.deadline) / 2):
                return f"the lease of a message in flight is not renewed: {self._last_error or 'no answer'}"
        return ""

    async def wait_for_slot(self) -> None:
        while self.free <= 0:
            self._freed.clear()
            await self._freed.wait()

    @property
    def visibility(self) -> int:
        """What to hide a message for when it is received.

        Short, since it bounds what a crash can hide; but long enough for a whole deploy where the
        permission to extend it is missing.
        """
        return _whole(self._longest if self.denied else self._floor)

    def length(self, deploy_time: float) -> float:
        """The lease of a deploy that is expected to take so many seconds."""
        return max(self._floor, 1.5 * deploy_time + self._margin)

    def hold(self, message: Message, received: float) -> bool:
        """Begin a lease; False where the message is held already and only its handle is newer."""
        lease = self._leases.get(message.id)
        deadline = received + self.visibility
        if lease:
            lease.message.receipt_handle = message.receipt_handle
            lease.received, lease.deadline = received, deadline
            lease.due = lease.renew_at = received
            lease.lost = lease.unanswered = False
        else:
            self._leases[message.id] = Lease(
                message, self.length(0), received, deadline, due=received, renew_at=received
            )
        self._wake.set()
        return lease is None

    def resize(self, message: Message, deploy_time: float) -> None:
        """Size the lease by the deploy time of the message."""
        length = self.length(deploy_time)
        self._longest = max(self._longest, min(length, LONGEST_VISIBILITY))
        if lease := self._leases.get(message.id):
            lease.length = length

    def holds(self, message: Message) -> bool:
        return message.id in self._leases

    def end_renewals(self, message: Message) -> Lease | None:
        """It is about to be deleted or released: a renewal that comes after that would fail, or hide it again."""
        lease = self._leases.get(message.id)
        if lease:
            lease.settling = True
        return lease

    async def done(self, message: Message) -> bool:
        """Delete the message; False where that failed and it will come back."""
        lease = self.end_renewals(message)
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(QueueError),
                stop=stop_after_attempt(DELETE_TRIES),
                wait=wait_random_exponential(max=self._retry_pause),
                reraise=True,
            ):
                with attempt:
                    await self._delete(lease.message if lease else message)
        except QueueError as exc:
            log.warning(
                "message not deleted; it comes back and will be deleted then",
                message_id=message.id,
                error=str(exc),
            )
            return False
        finally:
            self._drop(message)
        return True

    async def _delete(self, message: Message) -> None:
        """With the newest handle, also where that came in during the call: an older one may do nothing."""
        handle = ""
        while message.receipt_handle != handle:
            handle = message.receipt_handle
            await self._queue.delete(message)

    async def release(self, message: Message, *, after: float = 0) -> None:
        """Let the queue show the message again in so many seconds."""
        await self.release_all([message], after=after)

    async def release_all(self, messages: list[Message], *, after: float = 0) -> None:
        changes = []
        for message in messages:
            lease = self.end_renewals(message)
            if lease and not self.denied:
                left = lease.received + LONGEST_VISIBILITY - CAP_MARGIN - time.monotonic()
                changes.append((lease.message, _whole(min(after, left))))
        try:
            failures = await self._release(changes) if changes else {}
        finally:
            for message in messages:
                self._drop(message)
        for message_id, error in failures.items():
            if isinstance(error, QueueDenied):
                self._note_denial(error)
                continue
            log.warning(
                "message not released; it comes back when its lease ends",
                message_id=message_id,
                error=str(error),
            )

    async def _release(
        self, changes: list[tuple[Message, int]], tries: int = RELEASE_TRIES
    ) -> dict[str, QueueError]:
        async with self._renewing:
            pass  # a renewal that is under way and arrives after the release would undo it
        handles = {message.id: message.receipt_handle for message, _ in changes}
        failures = await self._queue.change_visibility(changes)
        again = [
            (message, seconds)
            for message, seconds in changes
            # Delivered again before the answer came, and taken for one that is held: that hides it anew.
            if message.receipt_handle != handles[message.id] or _may_pass(failures.get(message.id))
        ]
        if not again or tries == 1:
            return failures
        await asyncio.sleep(random.uniform(0, min(1, self._retry_pause)))  # noqa: S311  jitter, not a secret
        tried_again = {message.id for message, _ in again}
        final = {message_id: error for message_id, error in failures.items() if message_id not in tried_again}
        return final | await self._release(again, tries - 1)

    async def run(self) -> None:
        """Renew leases until cancelled."""
        while True:
            self._wake.clear()
            pause = self._next_renewal() - time.monotonic()
            try:
                async with asyncio.timeout(max(pause, 0)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            async with self._renewing:
                await self._renew()

    def _next_renewal(self) -> float:
        active = (lease.renew_at for lease in self._active())
        return min(active, default=time.monotonic() + RENEW_BEFORE)

    def _active(self) -> Iterator[Lease]:
        if self.denied:
            return iter(())
        return (
            lease
            for lease in self._leases.values()
            if not lease.settling and (lease.unanswered or not lease.lost)
        )

    async def _renew(self) -> None:
        now = time.monotonic()
        due = [lease for lease in self._active() if lease.renew_at <= now]
        changes = [(lease.message, self._affordable(lease, now)) for lease in due]
        changes = [(message, seconds) for message, seconds in changes if seconds > 0]
        if not changes:
            return
        handles = {message.id: message.receipt_handle for message, _ in changes}
        failures = await self._queue.change_visibility(changes)
        for message, seconds in changes:
            lease = self._leases.get(message.id)
            if not lease or lease.settling:
                continue
            # A newer receipt has come in while the call was under way: its own renewal is due.
            if lease.message.receipt_handle != handles[message.id]:
                continue
            if error := failures.get(message.id):
                self._renewal_failed(lease, error)
            else:
                self._renewed(lease, now, seconds)

    def _affordable(self, lease: Lease, now: float) -> int:
        """What may be asked for: SQS refuses to hide a message beyond twelve hours after its receipt."""
        cap = lease.received + LONGEST_VISIBILITY - CAP_MARGIN
        if now >= cap or (cap - now < lease.length and lease.deadline >= cap - 1):
            lease.lost, lease.unanswered = True, False
            log.warning(
                "message held for twelve hours, the longest that SQS allows; the deploy goes on, "
                "and the message may be delivered again before it ends",
                message_id=lease.message.id,
            )
            return 0
        return _whole(min(lease.length, cap - now))

    def _renewed(self, lease: Lease, asked: float, seconds: int) -> None:
        lease.lost = lease.unanswered = False  # nobody had received it yet, or it is ours all the same
        lease.deadline = asked + seconds
        lease.due = lease.renew_at = lease.deadline - min(seconds / 2, RENEW_BEFORE)
        self._last_error = ""
        log.debug("lease renewed", message_id=lease.message.id, seconds=seconds)

    def _renewal_failed(self, lease: Lease, error: QueueError) -> None:
        self._vitals.renewal_failed()
        self._last_error = str(error)
        if isinstance(error, QueueDenied):
            self._note_denial(error)
            return
        lease.renew_at = time.monotonic() + min(RETRY_RENEWAL, lease.length / 4)
        if (is_gone := isinstance(error, HandleGone)) or time.monotonic() >= lease.deadline:
            was_lost, lease.lost, lease.unanswered = lease.lost, True, not is_gone
            if not was_lost:
                log.warning(
                    "lease lost; the deploy goes on, and its message will be delivered again",
                    message_id=lease.message.id,
                    error=str(error),
                )
        else:
            log.warning(
                "lease not renewed; trying again",
                message_id=lease.message.id,
                seconds_left=round(lease.deadline - time.monotonic(), 1),
                error=str(error),
            )

    def _note_denial(self, error: QueueDenied) -> None:
        """From now on no lease is extended; said once."""
        if not self.denied:
            self.denied = True
            log.warning(
                "not allowed to extend the visibility of messages: they are received one at a time, "
                "hidden for the longest deploy time seen; add this statement to the policy",
                statement=PERMISSION,
                error=str(error),
            )

    def _drop(self, message: Message) -> None:
        self._leases.pop(message.id, None)
        self._freed.set()


def _may_pass(error: QueueError | None) -> bool:
    """Whether another try makes sense: the children of QueueError say that it does not."""
    return type(error) is QueueError


def _whole(seconds: float) -> int:
    """SQS takes whole seconds, up to twelve hours."""
    return max(0, min(LONGEST_VISIBILITY, round(seconds + 0.499)))
