"""What the tests of single swaps share: how to get into the middle of one, and what it has come to."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest

from lookout.deployer import Deployer
from lookout.model import Json, Report
from lookout.names import final_name
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy, When
from testbed.images import make_image, push
from tests.integration.deploys import request_for
from tests.integration.queues import until
from tests.integration.watching import Watch, state

SECOND = 1_000_000_000  # in the nanoseconds of an event

IS_BACK = ("Id", "Name", "Image", "Config", "HostConfig")

# The application, which does something else besides when it is told to stop, or after some time.
CRASHING = 'CMD ["sh", "-c", "httpd -p 8080 -h /www; sleep {}; exit {}"]'
DEAF = 'CMD ["sh", "-c", "trap true TERM; httpd -p 8080 -h /www; while true; do sleep 0.2; done"]'
SLOW_TO_STOP = (
    'CMD ["sh", "-c", "trap \\"sleep {}; exit 0\\" TERM; httpd -p 8080 -h /www; sleep 9999 & wait"]'
)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a call that the engine refuses up soon."""
    monkeypatch.setattr("lookout.refusals.INSIST_FOR", 1.5)


def settled_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an old container count as soon as it runs again."""
    monkeypatch.setattr("lookout.swap.SETTLE", 0.1)


def assert_back(before: Json, after: Json) -> None:
    """The very same container with all that was its own, and it runs."""
    assert {key: after[key] for key in IS_BACK} == {key: before[key] for key in IS_BACK}
    assert after["State"]["Running"]


@asynccontextmanager
async def watched(engine: PrivateEngine, name: str, deploying: Awaitable[Report]) -> AsyncIterator["Middle"]:
    """Run a deploy up to the moment when the new container of this name was started; it goes on then."""
    old, _ = state(engine, name)
    task = asyncio.ensure_future(deploying)
    try:
        await until(
            lambda: task.done() or (state(engine, name)[0] not in ("", old) and state(engine, name)[1])
        )
        assert not task.done(), task.result()
        yield Middle(old, state(engine, name)[0], task)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Middle:
    """A swap whose new container runs, and is still watched."""

    def __init__(self, old: str, new: str, task: "asyncio.Future[Report]") -> None:
        self.old = old
        self.new = new
        self.task = task


async def killed(
    line: FaultProxy, *deploys: "asyncio.Task[Report]", deployers: Sequence[Deployer] = ()
) -> None:
    """End these as a SIGKILL would: nothing that they still try reaches the engine."""
    line.go_down()
    while not all(task.done() for task in deploys):
        for task in deploys:
            task.cancel()
        await asyncio.sleep(0.05)
    await asyncio.gather(*deploys, return_exceptions=True)
    for deployer in deployers:
        await deployer.close()
    be_good(line)
    line.come_back()


def flag() -> tuple[asyncio.Event, Callable[[], object]]:
    """An event of this loop, and what sets it from the thread of a faulty line."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    return event, lambda: loop.call_soon_threadsafe(event.set)


async def turns() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def be_good(line: FaultProxy) -> None:
    """Plan no fault any more."""
    line.meet("nothing ever", lambda: None)


@contextmanager
def always(lie: Callable[..., None], pattern: str, *how: int) -> Iterator[None]:
    """Let a line do this to each request of this pattern: `always(line.answer, pattern, 500)`."""
    is_over = False

    def is_meant(request: str) -> bool:
        return not is_over and bool(re.search(pattern, request))

    def again() -> None:
        lie(is_meant, *how, action=again)

    again()
    try:
        yield
    finally:
        is_over = True


async def killed_at(
    line: FaultProxy,
    pattern: str,
    deployer: Deployer,
    *references: str,
    nth: int = 1,
    when: When = "before",
) -> None:
    """Deploy these up to this request, just before or after which Lookout is killed."""
    reached, reach = flag()

    def down() -> None:
        line.go_down()
        reach()

    line.cut(pattern, nth=nth, when=when, action=down)
    deploys = [asyncio.create_task(deployer.deploy(request_for(reference))) for reference in references]
    await asyncio.wait_for(reached.wait(), 20)
    await killed(line, *deploys, deployers=[deployer])


def beside(engine: PrivateEngine, image: str, *tags: str) -> list[str]:
    """Make and push another application's image of these tags."""
    name = image.rpartition("/")[0] + "/web"
    for tag in tags:
        make_image(engine, f"{name}:{tag}")
        push(engine, f"{name}:{tag}")
    return [f"{name}:{tag}" for tag in tags]


def moments(watch: Watch, container: str, action: str) -> list[float]:
    """When this was done to the container of this id, in seconds."""
    return [
        _when(e) for e in watch.events("container") if (e["Actor"]["ID"], e["Action"]) == (container, action)
    ]


def most_down_at_once(watch: Watch, names: Iterable[str]) -> int:
    """How many of the services of these names were down at the same time at most.

    A service is down from the moment that its container is told to stop, or ends, until the next one
    of that name is started.
    """
    down, most = set(), 0
    for event in watch.events("container"):
        service = final_name(event["Actor"]["Attributes"]["name"])
        if service not in names:
            continue
        if event["Action"] in ("kill", "die"):
            down.add(service)
        elif event["Action"] == "start":
            down.discard(service)
        most = max(most, len(down))
    return most


def order(watch: Watch, *actions: str) -> list[tuple[str, str, float]]:
    """What of these was done to which service, and when."""
    return [
        (event["Action"], final_name(event["Actor"]["Attributes"]["name"]), _when(event))
        for event in watch.events("container")
        if event["Action"] in actions
    ]


def _when(event: Json) -> float:
    return int(event["timeNano"]) / SECOND
