"""From the queue to the deploys and back: what comes in which order, to whom, and what holds up what."""

from collections.abc import AsyncIterator

import pytest

from lookout.model import Outcome, Report
from lookout.sqs import Queue
from testbed.sqs import LocalSqs
from tests.integration.listeners import Listener, listening
from tests.integration.queues import body, connected, until

pytestmark = pytest.mark.queue

AWAY = Report(Outcome.FAILED, "the engine is away", transient=True)


@pytest.fixture
async def fifo(sqs: LocalSqs) -> AsyncIterator[Queue]:
    """A FIFO queue of its own."""
    url = sqs.create_fifo_queue()
    async with connected(url, sqs.environment()) as queue:
        yield queue


# In order


async def test_of_a_group_one_is_deployed_at_a_time_in_order_also_after_a_failure_in_its_middle(
    sqs: LocalSqs, fifo: Queue
) -> None:
    tags = ["1", "2", "3", "4"]
    for tag in tags:
        sqs.send(fifo.url, body("acme/api", tag), MessageGroupId="api", MessageDeduplicationId=tag)
    async with listening(fifo) as listener:
        listener.deploys.end("acme/api:1", "acme/api:3", "acme/api:4")
        listener.deploys.end("acme/api:2", first=AWAY)
        await until(lambda: sqs.count(fifo.url) == (0, 0))
    assert listener.deploys.begun == [f"acme/api:{tag}" for tag in ("1", "2", "2", "3", "4")]


async def test_nothing_of_a_group_is_received_while_one_of_it_is_in_hand_and_other_groups_go_on(
    sqs: LocalSqs, fifo: Queue
) -> None:
    for group in ("slow", "quick"):
        for number in (
            "1",
            "2",
        ):  # images of their own, so that nothing but the group keeps one from the other
            text = body(f"acme/{group}-{number}", "1")
            sqs.send(fifo.url, text, MessageGroupId=group, MessageDeduplicationId=group + number)
    async with listening(fifo) as listener:
        listener.deploys.end("acme/quick-1:1", "acme/quick-2:1")
        await until(lambda: "acme/quick-2:1" in listener.deploys.begun)
        await until(lambda: sqs.count(fifo.url) == (1, 1))
        assert "acme/slow-2:1" not in listener.deploys.begun
        listener.deploys.end("acme/slow-1:1", "acme/slow-2:1")
        await until(lambda: sqs.count(fifo.url) == (0, 0))
    begun = [image for image in listener.deploys.begun if "slow" in image]
    assert begun == ["acme/slow-1:1", "acme/slow-2:1"]


async def test_what_is_invalid_or_runs_nowhere_here_does_not_hold_up_its_group(
    sqs: LocalSqs, fifo: Queue
) -> None:
    for number, text in enumerate(("garbage", body("acme/other"), body("acme/api", "1"))):
        sqs.send(fifo.url, text, MessageGroupId="one", MessageDeduplicationId=str(number))
    async with listening(fifo, backoff_base=900) as listener:
        listener.deploys.end("acme/other:1", how=Report(Outcome.NOT_HERE, "nothing runs it"))
        listener.deploys.end("acme/api:1")
        await until(lambda: sqs.count(fifo.url) == (0, 0))
    assert listener.deploys.begun == ["acme/other:1", "acme/api:1"]


async def test_of_two_groups_with_one_image_none_is_superseded_while_it_waits(
    sqs: LocalSqs, fifo: Queue
) -> None:
    for tag in ("1", "2", "3"):
        sqs.send(fifo.url, body("acme/api", tag), MessageGroupId=tag, MessageDeduplicationId=tag)
    async with listening(fifo) as listener:
        await until(lambda: sqs.count(fifo.url) == (0, 3))
        listener.deploys.end(*(f"acme/api:{tag}" for tag in ("1", "2", "3")))
        await until(lambda: sqs.count(fifo.url) == (0, 0))
    assert listener.deploys.begun == ["acme/api:1", "acme/api:2", "acme/api:3"]
    assert listener.deploys.most_at_once == 1


@pytest.mark.parametrize("slots", [2, 3, 4])
async def test_many_groups_with_one_image_leave_room_for_another(
    sqs: LocalSqs, fifo: Queue, slots: int
) -> None:
    tags = [str(number) for number in range(8)]
    for tag in tags:
        sqs.send(fifo.url, body("acme/slow", tag), MessageGroupId=tag, MessageDeduplicationId=tag)
    sqs.send(fifo.url, body("acme/quick", "1"), MessageGroupId="quick", MessageDeduplicationId="quick")
    async with listening(fifo, slots=slots) as listener:
        listener.deploys.end("acme/quick:1")
        await until(lambda: "acme/quick:1" in listener.deploys.begun)
        assert len(listener.deploys.begun) == 2, "the slow one runs still"
        listener.deploys.end(*(f"acme/slow:{tag}" for tag in tags))
        await until(lambda: sqs.count(fifo.url) == (0, 0), within=60)


# To whom


async def test_two_hosts_on_one_queue_each_get_what_is_theirs_and_what_is_for_none_is_not_lost(
    sqs: LocalSqs, queue: Queue, queue_url: str
) -> None:
    hosts = ("a", "b")
    wanted = {host: [f"acme/api:{host}{number}" for number in range(5)] for host in hosts}
    for number in range(5):
        for host in hosts:
            sqs.send(queue_url, body(f"acme/app{number}", f"{host}{number}", HostId=host))
        sqs.send(queue_url, body(f"acme/any{number}", "1"))
    async with listening(queue, host_id="a") as a, listening(queue, host_id="b") as b:
        by_host = {"a": a, "b": b}
        for listener in by_host.values():
            listener.deploys.end(*(f"acme/any{number}:1" for number in range(5)))
            listener.deploys.end(*(f"acme/app{n}:{h}{n}" for n in range(5) for h in hosts))
        await until(lambda: sqs.count(queue_url) == (0, 0), within=60)
    for host, listener in by_host.items():
        own = sorted(image for image in listener.deploys.begun if "/app" in image)
        assert own == [f"acme/app{number}:{host}{number}" for number in range(len(wanted[host]))]
    anyone = [image for image in a.deploys.begun + b.deploys.begun if "/any" in image]
    assert sorted(anyone) == [f"acme/any{number}:1" for number in range(5)]


# What holds up what


# With two slots none can wait here. The local server then hands out the same ones first, again and again.
@pytest.mark.parametrize(("slots", "count"), [(2, 10), (3, 50), (4, 50)])
async def test_an_image_that_gets_many_messages_leaves_room_for_another(
    sqs: LocalSqs, queue: Queue, queue_url: str, slots: int, count: int
) -> None:
    for number in range(count):
        sqs.send(queue_url, body("acme/slow", str(number)))
    async with listening(queue, slots=slots) as listener:
        await until(lambda: listener.deploys.begun)
        first = listener.deploys.begun[0]
        sqs.send(queue_url, body("acme/quick", "1"))
        listener.deploys.end("acme/quick:1")
        await until(lambda: "acme/quick:1" in listener.deploys.begun, within=30)
        assert listener.deploys.begun == [first, "acme/quick:1"], "the slow one runs still"
        end_all(listener, count)
        await until(lambda: sqs.count(queue_url) == (0, 0), within=60)
    if slots > 2:  # else there is none in which one could wait
        assert len(listener.deploys.begun) <= 4, "of those that waited one was deployed"


def end_all(listener: Listener, count: int) -> None:
    listener.deploys.end(*(f"acme/slow:{number}" for number in range(count)))
