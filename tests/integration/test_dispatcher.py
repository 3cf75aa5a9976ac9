"""Images deploy side by side, one image deploys one message at a time, and none is lost."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.typing import EventDict

from lookout.course import Course
from lookout.dispatcher import Dispatcher
from lookout.errors import Interrupted
from lookout.leases import Leases
from lookout.model import Delivery, DeployRequest, ImageName, ImageRef, Message, Nothing, Outcome, Report
from lookout.replies import Replies
from lookout.settler import Settler
from lookout.sqs import Queue
from testbed.scripted_sqs import ScriptedSqs, after, hang, refuse
from testbed.sqs import LocalSqs
from tests.integration.listeners import Deploys
from tests.integration.queues import receive, said, until

pytestmark = pytest.mark.queue

DEPLOYED = Report(Outcome.DEPLOYED)
AWAY = refuse("InternalError", "sorry", status=500)


class Bed:
    """A dispatcher with real leases, settling on a real queue."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.deploys = Deploys()
        self.inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self.leases = Leases(queue, slots=32, retry_pause=0.05)
        self.settler = Settler(self.leases, retry_for=3600)
        self.dispatcher = Dispatcher(self.inbox, self.deploys, self.leases, self.settler, Replies(queue))
        self.dispatching = asyncio.create_task(self.dispatcher.run())

    async def take(self, count: int) -> list[Message]:
        """Receive so many messages and hold them."""
        messages = await receive(self.queue, count)
        for message in messages:
            self.leases.hold(message, time.monotonic())
        return messages

    def put(self, message: Message, image: str, *, sent: int | None = None) -> None:
        """Put a message that is held into the inbox, as one for this image."""
        if sent is not None:
            message.sent_timestamp = sent
        name, _, tag = image.partition(":")
        self.inbox.put_nowait(Delivery(message, DeployRequest(ImageRef(ImageName.parse(name), tag))))

    async def stop(self, grace: float = 10, undo_time: float = 1) -> None:
        """End as the daemon does."""
        self.dispatching.cancel()
        await self.dispatcher.stop(grace=grace, undo_time=undo_time)


@asynccontextmanager
async def running(queue: Queue) -> AsyncIterator[Bed]:
    bed = Bed(queue)
    renewals = asyncio.create_task(bed.leases.run())
    yield bed
    assert not renewals.done(), "the renewals ended by themselves"
    await bed.stop(grace=0, undo_time=0.1)
    renewals.cancel()
    await asyncio.gather(renewals, bed.dispatching, return_exceptions=True)


@pytest.fixture
async def bed(queue: Queue) -> AsyncIterator[Bed]:
    """A dispatcher on the local queue server."""
    async with running(queue) as bed:
        yield bed


@pytest.fixture
async def scripted_bed(scripted_queue: Queue) -> AsyncIterator[Bed]:
    """A dispatcher on the queue server that fails as it is told."""
    async with running(scripted_queue) as bed:
        yield bed


async def deliver(bed: Bed, sqs: LocalSqs, *images: str) -> list[Message]:
    """Send a message for each of these, and put them into the inbox in this order."""
    for image in images:
        sqs.send(bed.queue.url, image)
    messages = sorted(await bed.take(len(images)), key=lambda message: images.index(message.body))
    for message in messages:
        bed.put(message, message.body)
    return messages


async def test_a_slow_image_does_not_delay_another(bed: Bed, sqs: LocalSqs) -> None:
    await deliver(bed, sqs, "acme/slow:1", "acme/quick:1")
    bed.deploys.end("acme/quick:1")
    await until(lambda: sqs.count(bed.queue.url) == (0, 1))
    assert sorted(bed.deploys.begun) == ["acme/quick:1", "acme/slow:1"]


async def test_ten_images_deploy_side_by_side(bed: Bed, sqs: LocalSqs) -> None:
    images = [f"acme/image-{number}:1" for number in range(10)]
    await deliver(bed, sqs, *images)
    await until(lambda: sorted(bed.deploys.begun) == images)
    bed.deploys.end(*images)
    await until(lambda: sqs.count(bed.queue.url) == (0, 0))


async def test_names_of_one_image_are_one_image(bed: Bed, sqs: LocalSqs) -> None:
    bed.deploys.end("redis:2")
    await deliver(bed, sqs, "redis:1", "docker.io/library/redis:2")
    await until(lambda: bed.deploys.begun == ["redis:1"])
    bed.deploys.end("redis:1")
    await until(lambda: sqs.count(bed.queue.url) == (0, 0))
    assert bed.deploys.most_at_once == 1


async def test_one_image_never_deploys_twice_at_once(bed: Bed, sqs: LocalSqs) -> None:
    tags = [f"acme/api:{number}" for number in range(6)]
    for number, image in enumerate(tags):
        await deliver(bed, sqs, image)
        if number % 2:
            bed.deploys.end(*tags[: number + 1])
    await until(lambda: sqs.count(bed.queue.url) == (0, 0))
    assert bed.deploys.most_at_once == 1
    assert bed.deploys.begun[-1] == tags[-1]


async def test_of_those_that_wait_only_the_one_sent_last_is_deployed(
    bed: Bed, sqs: LocalSqs, logs: list[EventDict]
) -> None:
    await deliver(bed, sqs, "acme/api:1")
    await until(lambda: bed.deploys.begun)
    for tag in ("2", "3", "4", "5"):
        sqs.send(bed.queue.url, tag)
    by_tag = {message.body: message for message in await bed.take(4)}
    for tag in ("3", "5", "2", "4"):
        bed.put(by_tag[tag], f"acme/api:{tag}", sent=2000000000000 + int(tag))
    await until(lambda: sqs.count(bed.queue.url) == (0, 2))
    assert bed.deploys.begun == ["acme/api:1"], "the others end while the first runs"
    superseded = {str(event["image"]) for event in said(logs, "superseded")}
    assert superseded == {"acme/api:2", "acme/api:3", "acme/api:4"}
    bed.deploys.end("acme/api:1", "acme/api:5")
    await until(lambda: sqs.count(bed.queue.url) == (0, 0))
    assert bed.deploys.begun == ["acme/api:1", "acme/api:5"]


async def test_of_two_sent_in_the_same_moment_the_one_that_came_later_wins(bed: Bed, sqs: LocalSqs) -> None:
    await deliver(bed, sqs, "acme/api:1")
    for _ in range(2):
        sqs.send(bed.queue.url, "body")
    for number, message in enumerate(await bed.take(2)):
        bed.put(message, f"acme/api:{number + 2}", sent=2000000000000)
    bed.deploys.end("acme/api:1", "acme/api:2", "acme/api:3")
    await until(lambda: sqs.count(bed.queue.url) == (0, 0))
    assert bed.deploys.begun == ["acme/api:1", "acme/api:3"]


@pytest.mark.parametrize("outcome", [Outcome.DEPLOYED, Outcome.UNCHANGED])
async def test_a_message_older_than_the_one_deployed_is_superseded(
    bed: Bed, sqs: LocalSqs, logs: list[EventDict], outcome: Outcome
) -> None:
    for body in ("old", "new"):
        sqs.send(bed.queue.url, body)
    by_body = {message.body: message for message in await bed.take(2)}
    bed.deploys.end("acme/api:2", how=Report(outcome))
    bed.put(by_body["new"], "acme/api:2", sent=2000)
    await until(lambda: sqs.count(bed.queue.url) == (0, 1))
    bed.put(by_body["old"], "acme/api:1", sent=1999)
    await until(lambda: sqs.count(bed.queue.url) == (0, 0))
    assert bed.deploys.begun == ["acme/api:2"]
    [event] = said(logs, "superseded")
    assert event["message_id"] == by_body["old"].id


async def test_a_message_older_than_one_that_was_rolled_back_is_deployed(bed: Bed, sqs: LocalSqs) -> None:
    for body in ("old", "new"):
        sqs.send(bed.queue.url, body)
    by_body = {message.body: message for message in await bed.take(2)}
    bed.deploys.end("acme/api:2", how=Report(Outcome.ROLLED_BACK))
    bed.deploys.end("acme/api:1")
    bed.put(by_body["new"], "acme/api:2", sent=2000)
    bed.put(by_body["old"], "acme/api:1", sent=1999)
    await until(lambda: sqs.count(bed.queue.url) == (0, 0))
    assert bed.deploys.begun == ["acme/api:2", "acme/api:1"]


async def test_an_error_in_a_deploy_is_logged_and_the_message_kept_and_the_next_deployed(
    bed: Bed, sqs: LocalSqs, logs: list[EventDict]
) -> None:
    bed.deploys.end("acme/api:1", how=RuntimeError("a fault of ours"))
    bed.deploys.end("acme/api:2")
    await deliver(bed, sqs, "acme/api:1", "acme/api:2")
    await until(lambda: sqs.count(bed.queue.url) == (0, 1))
    assert bed.deploys.begun == ["acme/api:1", "acme/api:2"]
    assert said(logs, "unexpected error")
    [failed] = said(logs, "failed")
    assert "RuntimeError" in failed["reason"]
    assert "a fault of ours" not in failed["reason"], "which the sender may read"
    assert failed["next"].startswith("tried again in")
    await until(lambda: bed.leases.free == 32)


async def test_what_a_cancelled_deploy_leaves_waiting_is_deployed(bed: Bed, sqs: LocalSqs) -> None:
    await deliver(bed, sqs, "acme/api:1", "acme/api:2")
    await until(lambda: bed.deploys.begun)
    bed.deploys.end("acme/api:1", how=asyncio.CancelledError())
    bed.deploys.end("acme/api:2")
    await until(lambda: bed.deploys.begun == ["acme/api:1", "acme/api:2"])
    await until(lambda: sqs.count(bed.queue.url) == (1, 0))


async def test_a_delivery_that_comes_as_a_worker_ends_is_not_lost(
    scripted_bed: Bed, scripted: ScriptedSqs
) -> None:
    bed = scripted_bed
    for turns in range(8):
        for _ in range(2):
            scripted.send("body")
        first, second = await bed.take(2)
        images = [f"acme/api:{turns}-1", f"acme/api:{turns}-2"]
        bed.deploys.end(*images)
        bed.put(first, images[0])
        while bed.leases.holds(first):
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        bed.put(second, images[1])
        await until(lambda: not bed.leases.holds(second))  # noqa: B023  waited for at once
        assert bed.deploys.begun[-2:] == images
    assert not scripted.has("m-1")


async def test_what_has_not_started_is_visible_at_once_when_stopping(bed: Bed, sqs: LocalSqs) -> None:
    await deliver(bed, sqs, "acme/api:1", "acme/api:2", "acme/web:1")
    await until(lambda: len(bed.deploys.begun) == 2)
    bed.dispatching.cancel()
    await deliver(bed, sqs, "acme/other:1")
    stopping = asyncio.create_task(bed.stop())
    await until(lambda: sqs.count(bed.queue.url) == (2, 2))
    assert not stopping.done(), "the deploys that run are waited for"
    bed.deploys.end("acme/api:1", "acme/web:1")
    await stopping
    assert sqs.count(bed.queue.url) == (2, 0)
    assert sorted(bed.deploys.begun) == ["acme/api:1", "acme/web:1"]
    assert sorted(message["Body"] for message in sqs.receive(bed.queue.url)) == ["acme/api:2", "acme/other:1"]


async def test_what_was_interrupted_is_visible_at_once(bed: Bed, sqs: LocalSqs) -> None:
    await deliver(bed, sqs, "acme/api:1")
    await until(lambda: bed.deploys.begun)
    bed.deploys.end("acme/api:1", how=Interrupted())
    await bed.stop()
    assert sqs.count(bed.queue.url) == (1, 0)
    assert bed.leases.free == 32


async def test_what_does_not_end_within_the_grace_is_cancelled_and_visible_at_once(
    bed: Bed, sqs: LocalSqs
) -> None:
    await deliver(bed, sqs, "acme/api:1", "acme/web:1")
    await until(lambda: len(bed.deploys.begun) == 2)
    bed.deploys.end("acme/web:1")
    await bed.stop(grace=0.3)
    assert sqs.count(bed.queue.url) == (1, 0)
    assert bed.leases.free == 32


async def test_a_deploy_that_ends_within_the_grace_is_settled_as_ever(
    bed: Bed, sqs: LocalSqs, logs: list[EventDict]
) -> None:
    api, web = await deliver(bed, sqs, "acme/api:1", "acme/web:1")
    await until(lambda: len(bed.deploys.begun) == 2)
    stopping = asyncio.create_task(bed.stop())
    await asyncio.wait({stopping}, timeout=0.05)
    bed.deploys.end("acme/api:1")
    bed.deploys.end("acme/web:1", how=Report(Outcome.FAILED, "no route", transient=True))
    await stopping
    assert sqs.count(bed.queue.url) == (0, 1), "one deleted, one kept for later"
    assert [event["message_id"] for event in said(logs, "deployed")] == [api.id]
    assert [event["message_id"] for event in said(logs, "failed")] == [web.id]


async def test_a_delete_under_way_is_finished_before_a_cancelled_worker_ends(
    scripted_bed: Bed, scripted: ScriptedSqs
) -> None:
    go = asyncio.Event()
    scripted.next("DeleteMessage", after(go, AWAY))
    message_id = scripted.send("body")
    [message] = await scripted_bed.take(1)
    scripted_bed.deploys.end("acme/api:1")
    scripted_bed.put(message, "acme/api:1")
    await until(lambda: scripted.called("DeleteMessage"))
    stopping = asyncio.create_task(scripted_bed.stop(grace=0, undo_time=10))
    await asyncio.wait({stopping}, timeout=0.2)
    assert not stopping.done()
    go.set()
    await stopping
    assert not scripted.has(message_id), "the second try deleted it"
    assert 0 not in scripted.changes(message_id), "and it was not given back besides"


async def test_what_is_settled_beside_and_does_not_end_does_not_hold_up_the_stop(
    scripted_bed: Bed, scripted: ScriptedSqs, logs: list[EventDict]
) -> None:
    scripted.next("DeleteMessage", hang)
    scripted.send("garbage")
    [message] = await scripted_bed.take(1)
    settler = scripted_bed.settler
    report, nothing = Report(Outcome.IGNORED, "asks for nothing"), Nothing("asks for nothing")
    settler.beside(settler.settle(message, report, nothing), message)
    await until(lambda: scripted.called("DeleteMessage"))
    await scripted_bed.stop(grace=0.05, undo_time=0.05)
    assert not settler.pending
    assert len(scripted.called("DeleteMessage")) == 1, "cut short, and not tried again"
    assert not [event for event in logs if event["log_level"] == "critical"]


async def test_a_deploy_that_has_ended_is_settled_also_where_its_worker_is_cancelled_then(
    bed: Bed, sqs: LocalSqs, monkeypatch: pytest.MonkeyPatch, logs: list[EventDict]
) -> None:
    """Else one that was rolled back would be given back to the queue, and stop the service once more."""
    telling = asyncio.Event()

    @asynccontextmanager
    async def slow_to_end(_: Delivery) -> AsyncIterator[Course]:
        yield Course()
        telling.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(bed.dispatcher._replies, "following", slow_to_end)
    bed.deploys.end("acme/api:1", how=Report(Outcome.ROLLED_BACK, "why"))
    await deliver(bed, sqs, "acme/api:1")
    await telling.wait()
    (worker,) = bed.dispatcher._workers.values()
    worker.cancel()
    await asyncio.wait({worker})
    assert worker.cancelled()
    assert said(logs, "rolled_back")
    assert sqs.count(bed.queue.url) == (0, 0)


async def test_a_deploy_that_ignores_every_request_to_end_does_not_hold_up_the_stop(
    bed: Bed, sqs: LocalSqs, logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookout.dispatcher.LAST_WORDS", 0.05)
    never = asyncio.Event()

    async def stubborn(_: DeployRequest, __: Course) -> Report:
        while not never.is_set():
            try:
                await never.wait()
            except asyncio.CancelledError:
                continue
        return DEPLOYED

    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    settler = Settler(bed.leases, retry_for=3600)
    dispatcher = Dispatcher(inbox, stubborn, bed.leases, settler, Replies(bed.queue))
    dispatching = asyncio.create_task(dispatcher.run())
    sqs.send(bed.queue.url, "body")
    [message] = await bed.take(1)
    inbox.put_nowait(Delivery(message, DeployRequest(ImageRef(ImageName.parse("acme/api"), "1"))))
    await until(lambda: said(logs, "deploying"))
    dispatching.cancel()
    try:
        await asyncio.wait_for(dispatcher.stop(grace=0.05, undo_time=0.05), 10)
    finally:
        never.set()
    assert said(logs, "not ended in time")[0]["task"] == "worker acme/api"
    await until(lambda: sqs.count(bed.queue.url) == (0, 0))
