"""One worker per image name, so that a slow deploy delays only its own image."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from structlog.contextvars import bound_contextvars

from lookout.course import Course
from lookout.errors import Interrupted
from lookout.leases import Leases
from lookout.model import Delivery, DeployRequest, ImageName, Message, Origin, Outcome, Report
from lookout.replies import Replies
from lookout.settler import Settler
from lookout.unbroken import unbroken

Deploy = Callable[[DeployRequest, Course], Awaitable[Report]]

MOST_WAITING = 2  # messages of one image, where none may be superseded
LATER = 5.0  # seconds until one that may not wait here is delivered again
LAST_WORDS = 0.5  # seconds for a task that does not even end its undo

log = structlog.stdlib.get_logger(__name__)


class Dispatcher:
    """Starts a worker for each delivery, one at a time for each image.

    Per image one deploy runs and at most one message waits: of two that would wait, the older one
    (by SentTimestamp) ends as superseded. With `keep_all`, as a FIFO queue has it, each has its turn.
    """

    def __init__(
        self,
        inbox: asyncio.Queue[Delivery],
        deploy: Deploy,
        leases: Leases,
        settler: Settler,
        replies: Replies,
        *,
        keep_all: bool = False,
    ) -> None:
        self._inbox = inbox
        self._deploy = deploy
        self._leases = leases
        self._settler = settler
        self._replies = replies
        self._keep_all = keep_all
        self._waiting: dict[ImageName, list[Delivery]] = {}
        self._workers: dict[ImageName, asyncio.Task[None]] = {}
        self._deployed: dict[ImageName, Origin] = {}

    async def run(self) -> None:
        """Dispatch until cancelled. The workers go on: `stop` ends them."""
        while True:
            self._dispatch(await self._inbox.get())

    async def stop(self, *, grace: float, undo_time: float) -> None:
        """Give back what has not started, then wait for the swaps that run.

        After `grace` seconds they are told to undo themselves, which may take `undo_time`.
        """
        unstarted = [delivery for waiting in self._waiting.values() for delivery in waiting]
        while not self._inbox.empty():
            unstarted.append(self._inbox.get_nowait())
        self._waiting.clear()
        messages = [delivery.message for delivery in unstarted]
        releasing = asyncio.create_task(self._leases.release_all(messages), name="release unstarted")
        workers = {*self._workers.values()}
        _, late = await asyncio.wait({releasing, *workers, *self._settler.pending}, timeout=grace)
        for task in late:
            log.warning("no time left; ending what still runs", task=task.get_name())
        for patience in (undo_time, LAST_WORDS, LAST_WORDS):
            for task in late:
                task.cancel()
            _, late = await asyncio.wait(late, timeout=patience) if late else (late, late)
        for task in late & workers:
            log.critical("not ended in time; look for containers *.lookout-*", task=task.get_name())
        for task in late - workers:
            log.warning("not ended in time; its message comes back", task=task.get_name())

    def _dispatch(self, delivery: Delivery) -> None:
        name = delivery.request.image.name
        if name in self._workers:
            self._offer(delivery)
        else:
            self._start(delivery)

    def _start(self, delivery: Delivery) -> None:
        name = delivery.request.image.name
        worker = asyncio.create_task(self._work(delivery), name=f"worker {name}")
        self._workers[name] = worker
        worker.add_done_callback(lambda _: self._ended(name))

    def _ended(self, name: ImageName) -> None:
        """Start what waits, however the worker before it ended."""
        del self._workers[name]
        if waiting := self._waiting.pop(name, []):
            first, *rest = waiting
            if rest:
                self._waiting[name] = rest
            self._start(first)

    def _offer(self, delivery: Delivery) -> None:
        """Let the delivery wait for its worker; the older of two that wait is superseded."""
        waiting = self._waiting.setdefault(delivery.request.image.name, [])
        waiting.append(delivery)
        if len(waiting) > 1 and not self._keep_all:
            older, newer = waiting
            if older.message.origin.is_newer_than(newer.message.origin):
                older, newer = newer, older
            waiting[:] = [newer]
            self._supersede(older, f"{newer.request.image} was sent later ({newer.message.id})")
        if len(waiting) > MOST_WAITING or self._is_full:
            self._later(waiting.pop())
        elif delivery in waiting:
            self._replies.waits(delivery)

    @property
    def _is_full(self) -> bool:
        """Whether what runs and waits has all slots, so that no other image could even be received."""
        in_hand = len(self._workers) + sum(map(len, self._waiting.values()))
        return in_hand >= self._leases.slots

    def _later(self, delivery: Delivery) -> None:
        """Give it back for a while: one busy image must not use up all slots."""
        self._settler.beside(self._leases.release(delivery.message, after=LATER), delivery.message)

    def _supersede(self, delivery: Delivery, reason: str) -> None:
        report, image = Report(Outcome.SUPERSEDED, reason), str(delivery.request.image)
        settling = self._settler.settle(delivery.message, report, delivery.request, image=image)
        self._settler.beside(settling, delivery.message)

    async def _work(self, delivery: Delivery) -> None:
        deployed = self._deployed.get(delivery.request.image.name)
        if deployed and deployed.is_newer_than(delivery.message.origin):
            self._supersede(delivery, "a message that was sent later is deployed")
        else:
            await self._deploy_one(delivery)

    async def _deploy_one(self, delivery: Delivery) -> None:
        message, image = delivery.message, delivery.request.image
        with bound_contextvars(message_id=message.id, image=str(image)):
            log.info("deploying")
            report: Report | None = None
            cancelled: asyncio.CancelledError | None = None
            began, begun = datetime.now(UTC), time.monotonic()
            try:
                async with self._replies.following(delivery) as course:
                    report = await self._report(delivery.request, course)
            except Interrupted:
                await self._give_back(message)
                return
            except asyncio.CancelledError as exc:
                if report is None:
                    await self._give_back(message)
                    raise
                cancelled = exc  # it has ended: its end must be told, and not come again
            if report.outcome in (Outcome.DEPLOYED, Outcome.UNCHANGED):
                self._deployed[image.name] = message.origin
            took = (began, time.monotonic() - begun)
            await unbroken(self._settler.settle(message, report, delivery.request, took=took))
            if cancelled:
                raise cancelled

    async def _report(self, request: DeployRequest, course: Course) -> Report:
        try:
            return await self._deploy(request, course)
        except Interrupted:
            raise
        except Exception as exc:
            log.exception("unexpected error; please report it")
            # Not its text, which may hold what nobody should read.
            reason = f"unexpected error: {type(exc).__name__}; see the log of Lookout"
            return Report(Outcome.FAILED, reason, transient=True)

    async def _give_back(self, message: Message) -> None:
        log.info("deploy interrupted; its message goes back to the queue")
        await unbroken(self._leases.release(message))
