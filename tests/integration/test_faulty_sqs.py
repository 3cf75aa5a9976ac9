"""The faulty line to the queue server does what it says, else no test over it means anything."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from moto.core.utils import unix_time_millis
from moto.sqs.models import Queue as ServersQueue
from moto.sqs.models import sqs_backends

from lookout.errors import QueueError
from lookout.model import Message
from lookout.sqs import Queue
from testbed.faulty_sqs import ANY, Call, Choose, Fault, FaultySqs, OneIn
from testbed.sqs import REGION, LocalSqs, delete_in_turn, look_while_waiting
from tests.integration.queues import connected, receive

pytestmark = pytest.mark.queue

DONE_ALL_THE_SAME = (Fault.CUT_AFTER, Fault.FAILS_AFTER)


@pytest.fixture
async def over_line(sqs: LocalSqs, queue_line: FaultySqs, queue_url: str) -> AsyncIterator[Queue]:
    """The test's queue, as Lookout drives it over the line: by the very URL that the server gave it."""
    async with connected(
        queue_url, sqs.environment() | {"AWS_ENDPOINT_URL_SQS": queue_line.endpoint}
    ) as queue:
        yield queue


def at(action: str, fault: Fault) -> Choose:
    return lambda call: fault if call.action == action else None


async def test_without_a_fault_all_calls_do_what_they_do_on_the_server(
    sqs: LocalSqs, queue_line: FaultySqs, over_line: Queue, queue_url: str
) -> None:
    sent = {sqs.send(queue_url, "one"), sqs.send(queue_url, "two"), sqs.send(queue_url, "three")}
    messages = await receive(over_line, 3)
    assert queue_line.sent == {message.id: message.sent_timestamp for message in messages}
    assert {message.id for message in messages} == sent
    assert await over_line.change_visibility([(message, 0) for message in messages[:2]]) == {}
    assert await over_line.change_visibility([(messages[2], 0)]) == {}
    assert sqs.count(queue_url) == (3, 0)
    for message in await receive(over_line, 3):
        await over_line.delete(message)
    assert sqs.count(queue_url) == (0, 0)
    await over_line.send("four", messages[0], {"Reason": "why"}, "once")
    [four] = sqs.receive(queue_url)
    assert (four["Body"], four["MessageAttributes"]["Reason"]["StringValue"]) == ("four", "why")
    assert queue_line.calls.keys() == {
        "ReceiveMessage",
        "ChangeMessageVisibility",
        "ChangeMessageVisibilityBatch",
        "DeleteMessage",
        "SendMessage",
    }
    assert not queue_line.met


async def test_an_error_of_the_server_itself_comes_through(
    sqs: LocalSqs, queue_line: FaultySqs, over_line: Queue
) -> None:
    with pytest.raises(QueueError, match="ReceiptHandleIsInvalid"):
        await over_line.delete(Message("no-such-message", "", "no such handle"))


@pytest.mark.parametrize("fault", ANY)
async def test_a_fault_fails_the_call_whether_the_server_did_it_or_not(
    sqs: LocalSqs, queue_line: FaultySqs, over_line: Queue, queue_url: str, fault: Fault
) -> None:
    sqs.send(queue_url, "body")
    queue_line.choose = at("ReceiveMessage", fault)
    with pytest.raises(QueueError) as received:
        await over_line.receive(1, wait=1, visibility=1)
    assert type(received.value) is QueueError, "it may pass"
    assert sqs.count(queue_url) == ((0, 1) if fault in DONE_ALL_THE_SAME else (1, 0))
    assert queue_line.met["ReceiveMessage"] == {fault: 1}

    queue_line.choose = at("DeleteMessage", fault)
    [message] = await receive(over_line)
    with pytest.raises(QueueError):
        await over_line.delete(message)
    assert sum(sqs.count(queue_url)) == (0 if fault in DONE_ALL_THE_SAME else 1)


async def test_a_call_that_is_not_done_looks_as_if_it_were(
    sqs: LocalSqs, queue_line: FaultySqs, over_line: Queue, queue_url: str
) -> None:
    sqs.send(queue_url, "body")
    [message] = await receive(over_line)
    queue_line.choose = at("DeleteMessage", Fault.NOT_DONE)
    await over_line.delete(message)
    assert sqs.count(queue_url) == (0, 1)


@pytest.mark.parametrize(("count", "fail"), [(2, 1), (3, 2)])
async def test_the_failed_entries_of_a_batch_are_not_done_and_the_others_are(
    sqs: LocalSqs, queue_line: FaultySqs, over_line: Queue, queue_url: str, count: int, fail: int
) -> None:
    for _ in range(count):
        sqs.send(queue_url, "body")
    messages = await receive(over_line, count)
    queue_line.choose = at("ChangeMessageVisibilityBatch", Fault.FAILED_ENTRIES)
    failures = await over_line.change_visibility([(message, 0) for message in messages])
    assert failures.keys() == {message.id for message in messages[:fail]}
    assert sqs.count(queue_url) == (count - fail, fail)


@pytest.mark.parametrize(
    ("call", "faults"),
    [
        (Call("ReceiveMessage", {}), ANY),
        (Call("DeleteMessage", {}), (*ANY, Fault.NOT_DONE)),
        (Call("ChangeMessageVisibilityBatch", {"Entries": []}), (*ANY, Fault.FAILED_ENTRIES)),
    ],
    ids=["receive", "delete", "batch"],
)
def test_one_in_so_many_calls_of_each_action_meets_a_fault_and_all_faults_take_turns(
    call: Call, faults: tuple[Fault, ...]
) -> None:
    choose, again = OneIn(20, seed=1), OneIn(20, seed=1)
    chosen = []
    for _ in range(20 * len(faults)):
        chosen.append(choose(call))
        choose(Call("another action", {}))
    assert Counter(fault for fault in chosen if fault) == Counter(faults)
    blocks = [chosen[start : start + 20] for start in range(0, len(chosen), 20)]
    assert all(block.count(None) == 19 for block in blocks)
    assert chosen == [again(call) for _ in chosen]


async def test_a_line_that_stops_cuts_a_poll_that_is_open(sqs: LocalSqs, queue_url: str) -> None:
    with FaultySqs(sqs.endpoint) as line:
        environment = sqs.environment() | {"AWS_ENDPOINT_URL_SQS": line.endpoint}
        async with connected(queue_url, environment) as queue:
            poll = asyncio.create_task(queue.receive(1, wait=20, visibility=1))
            while not line.calls["ReceiveMessage"]:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(line.stop)
            with pytest.raises(QueueError):
                await poll


def test_the_server_loses_nothing_that_is_sent_while_it_deletes_and_brings_nothing_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own code, in threads that are switched as often as can be."""
    monkeypatch.setattr(ServersQueue, "delete_message", ServersQueue.delete_message)
    delete_in_turn()
    backend = sqs_backends["123456789012"][REGION]
    queue = backend.create_queue("in-turn", {})
    before, later = 200, 200

    def handles() -> Iterator[str]:
        for _ in range(before):
            backend.send_message("in-turn", "before")
        while messages := backend.receive_message("in-turn", 10, 0, 60):
            yield from (str(message.receipt_handle) for message in messages)

    def delete(some: list[str]) -> None:
        for handle in some:
            backend.delete_message("in-turn", handle)

    def send() -> None:
        for _ in range(later):
            backend.send_message("in-turn", "later")

    every = [*handles()]
    threads = [threading.Thread(target=delete, args=(every[at::2],)) for at in range(2)]
    threads.append(threading.Thread(target=send))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert [message.body for message in queue._messages] == ["later"] * later
    backend.delete_queue("in-turn")


def test_the_server_ends_a_long_poll_with_what_becomes_visible_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ServersQueue, "wait_for_messages", ServersQueue.wait_for_messages)
    look_while_waiting()
    backend = sqs_backends["123456789012"][REGION]
    queue = backend.create_queue("visible-again", {})
    backend.send_message("visible-again", "one")
    [message] = backend.receive_message("visible-again", 10, 0, 60)
    [hidden] = queue._messages
    hidden.visible_at = unix_time_millis() + 20
    [again] = backend.receive_message("visible-again", 10, 1, 60)
    assert again.id == message.id
    backend.delete_queue("visible-again")
