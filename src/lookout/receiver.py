"""Long-polls the queue and puts what it brings into the inbox."""

import asyncio
import random
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from lookout.errors import QueueDenied, QueueError, QueueUnusable, WrongSettings
from lookout.leases import Leases
from lookout.model import Delivery, DeployRequest, Invalid, Message, Nothing, Outcome, Report
from lookout.request import parse
from lookout.settler import Settler
from lookout.sqs import BATCH, Queue
from lookout.vitals import Vitals

LONGEST_BACKOFF = 60.0  # seconds between two polls that fail
OTHER_HOST = (1.0, 5.0)  # seconds until the owner of a message may see it

log = structlog.stdlib.get_logger(__name__)


class Receiver:
    """Takes a free slot before it polls, so that nothing is received that cannot be held."""

    def __init__(
        self,
        queue: Queue,
        leases: Leases,
        settler: Settler,
        inbox: asyncio.Queue[Delivery],
        *,
        wait: int,
        deploy_time: int,
        host_id: str | None,
        stopping: asyncio.Event,
        other_queues: Sequence[str] = (),
        longest_backoff: float = LONGEST_BACKOFF,
        vitals: Vitals | None = None,
    ) -> None:
        """To the URLs of Lookout's `other_queues` no sender may have a result sent."""
        self._queue = queue
        self._queues = (queue.url, *other_queues)
        self._leases = leases
        self._settler = settler
        self._inbox = inbox
        self._wait = wait
        self._deploy_time = deploy_time
        self._host_id = host_id
        self._stopping = stopping
        self._longest_backoff = longest_backoff
        self._vitals = vitals or Vitals()
        self._answered = False

    async def run(self) -> None:
        """Receive until asked to stop; the poll that is open then ends by itself.

        A cancelled poll would take a message along until its visibility timeout ends. Raises
        WrongSettings where the very first answer says that no poll will ever work.
        """
        log.info("polling", queue=self._queue.url)
        while not self._stopping.is_set():
            await self._leases.wait_for_slot()
            received = await self._poll()
            now = time.monotonic()
            # All first: their visibility clocks run while the others are read.
            fresh = [message for message in received if self._hold(message, now)]
            if self._stopping.is_set():
                await self._leases.release_all(fresh)
            else:
                for message in fresh:
                    if ending := self._admit(message):
                        self._leases.end_renewals(message)  # it ends before its lease does
                        self._settler.beside(ending, message)

    async def _poll(self) -> list[Message]:
        received: list[Message] = []
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(QueueError),
            wait=wait_random_exponential(min=min(1, self._longest_backoff), max=self._longest_backoff),
            sleep=self._pause,
            before_sleep=self._note_failure,
        ):
            with attempt:
                if not self._stopping.is_set():
                    received = await self._receive()
        return received

    async def _receive(self) -> list[Message]:
        # Of a FIFO queue one at a time: what follows it in its group then stays on the queue until it has
        # ended, in order, and without one more receipt for each try.
        one = self._leases.denied or self._queue.is_fifo
        count = 1 if one else min(BATCH, self._leases.free)
        try:
            with self._vitals.polling():
                hidden = self._leases.visibility
                messages = await self._queue.receive(count, wait=self._wait, visibility=hidden)
        except (QueueUnusable, QueueDenied) as exc:
            if self._answered:
                raise
            raise WrongSettings(
                [f"SqsQueueUrl or AWS credentials: {exc}; `lookout check` tells more"]
            ) from exc
        self._answered = True
        return messages

    def _hold(self, message: Message, now: float) -> bool:
        fresh = self._leases.hold(message, received=now)
        if not fresh:
            log.info("message delivered again while in hand", message_id=message.id)
        return fresh

    def _admit(self, message: Message) -> Coroutine[Any, Any, None] | None:
        """Put the message into the inbox, or return what ends it.

        Nothing is awaited here: what asks for nothing must not delay what asks for a deploy, and the
        first renewal of each lease must know its length.
        """
        if self._settler.is_settled(message):
            return self._settler.settle_again(message)
        log.debug(
            "received", message_id=message.id, receive_count=message.receive_count, body=message.body[:2000]
        )
        request = parse(message.body, queues=self._queues)
        match request:
            case Invalid():
                return self._settler.settle(message, Report(Outcome.INVALID, request.reason), request)
            case Nothing():
                return self._settler.settle(message, Report(Outcome.IGNORED, request.reason), request)
        if request.host_id and request.host_id != self._host_id:
            return self._leave_to_its_owner(message, request)
        if request.reply_fault:
            log.warning("no reply will be sent", message_id=message.id, reason=request.reply_fault)
        self._leases.resize(message, request.deploy_time or self._deploy_time)
        self._inbox.put_nowait(Delivery(message, replace(request, origin=message.origin)))
        return None

    def _leave_to_its_owner(self, message: Message, request: DeployRequest) -> Coroutine[Any, Any, None]:
        log.debug("for another host", message_id=message.id, host_id=request.host_id)
        soon = random.uniform(*OTHER_HOST)  # noqa: S311  jitter, not a secret
        reason = f"for another HostId; this is {self._host_id or 'a Lookout without one'}"
        report = Report(Outcome.NOT_HERE, reason, retry_after=soon)
        return self._settler.settle(message, report, request, image=str(request.image))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _note_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "cannot poll; trying again",
            error=str(error),
            attempt=state.attempt_number,
            seconds=round(state.upcoming_sleep, 1),
        )
