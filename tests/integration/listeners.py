"""A Lookout without an engine: it receives, dispatches and settles on a real queue, and tells what it deploys."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lookout.course import Course
from lookout.dispatcher import Dispatcher
from lookout.leases import Leases
from lookout.model import Delivery, DeployRequest, ImageName, Outcome, Report
from lookout.receiver import Receiver
from lookout.replies import Replies
from lookout.settler import Settler
from lookout.sqs import Queue

DEPLOYED = Report(Outcome.DEPLOYED)


class Deploys:
    """In place of the deployer: each deploy runs until it is told how to end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.most_at_once = 0
        self._running: Counter[ImageName] = Counter()
        self._told: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._ends: dict[str, list[Report | BaseException]] = {}

    def end(self, *images: str, how: Report | BaseException = DEPLOYED, first: Report | None = None) -> None:
        """Let the deploys of these, now or later, end like this; the first of each in another way."""
        for image in images:
            self._ends[image] = [*([first] if first else ()), how]
            self._told[image].set()

    async def __call__(self, request: DeployRequest, _: Course) -> Report:
        image = str(request.image)
        self.begun.append(image)
        self._running[request.image.name] += 1
        self.most_at_once = max(self.most_at_once, *self._running.values())
        try:
            await self._told[image].wait()
        finally:
            self._running[request.image.name] -= 1
        ends = self._ends[image]
        end = ends.pop(0) if len(ends) > 1 else ends[0]
        if isinstance(end, BaseException):
            raise end
        return end


class Listener:
    """What it has begun to deploy is in `deploys.begun`."""

    def __init__(self, queue: Queue, *, backoff_base: float = 0.3, **options: Any) -> None:
        self.deploys = Deploys()
        self.inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self.leases = Leases(queue, slots=options.pop("slots", 32), retry_pause=0.05)
        settler = Settler(self.leases, retry_for=3600, in_order=queue.is_fifo, backoff_base=backoff_base)
        receiver = Receiver(
            queue,
            self.leases,
            settler,
            self.inbox,
            wait=1,
            deploy_time=30,
            host_id=options.pop("host_id", None),
            stopping=asyncio.Event(),
            longest_backoff=0.1,
        )
        replies = Replies(queue)
        dispatcher = Dispatcher(
            self.inbox, self.deploys, self.leases, settler, replies, keep_all=queue.is_fifo
        )
        self._tasks = [asyncio.create_task(part.run()) for part in (receiver, dispatcher, self.leases)]

    @property
    def is_broken(self) -> bool:
        return any(task.done() for task in self._tasks)

    async def has_ended(self) -> None:
        """Wait until a part ends by itself; raises what has ended it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """End as if killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def listening(queue: Queue, **options: Any) -> AsyncIterator[Listener]:
    listener = Listener(queue, **options)
    try:
        yield listener
        assert not listener.is_broken, "a part has ended by itself"
    finally:
        await listener.stop()
