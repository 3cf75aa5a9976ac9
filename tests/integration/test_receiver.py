"""From the queue to the inbox: what is received, what is not, and what ends the polling."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.errors import WrongSettings
from lookout.leases import Leases
from lookout.model import Delivery, Outcome, Report
from lookout.receiver import Receiver
from lookout.settler import Settler
from lookout.sqs import Queue
from testbed.scripted_sqs import ScriptedSqs, after, cut, refuse
from testbed.sqs import LocalSqs
from tests.integration.queues import ANYONE, body, connected, said, until

pytestmark = pytest.mark.queue

AWAY = refuse("InternalError", "sorry", status=500)
RECEIVE = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sqs:ReceiveMessage", "Resource": "*"}],
}

# A body, and how the one line begins that tells what is wrong with it.
INVALID = {
    "hello": "the body is not JSON",
    '{"ImageName": "acme/api", "ImageTag": "1"': "the body is not JSON",
    '{"ImageName": "acme/api", "ImageTag": "1", "DeployTimeSeconds": NaN}': "the body is not JSON",
    "[]": "the body is a list",
    '"acme/api:1"': "the body is a string",
    "42": "the body is a number",
    "null": "the body is null",
    "{}": "ImageName is missing",
    '{"ImageName": "acme/api"}': "ImageTag is missing",
    body(image=""): "ImageName is empty",
    body(image="acme/api:1"): "ImageName has a tag (after ':')",
    body(image="acme/api@sha256:" + "a" * 64): "ImageName has a digest (after '@')",
    body(image="acme/api\nlevel=critical"): "ImageName has white space or control characters",
    body(image="a" * 100000): "ImageName is longer than 255 characters",
    body(tag="-1"): "ImageTag begins with '.' or '-'",
    body(tag="1\x00"): "ImageTag has other characters than a tag",
    body(ImageTag=42): "ImageTag is a number",
    body(ImageName=["acme/api"]): "ImageName is a list",
    body(imagename="acme/web"): "ImageName is given twice",
    body(ImageDigest="sha256:abc"): "ImageDigest is not a digest",
    body(DeployTimeSeconds="soon"): "DeployTimeSeconds is a string that is not a whole number",
    body(DeployTimeSeconds=0): "DeployTimeSeconds is 0",
    body(DeployTimeSeconds="28801"): "DeployTimeSeconds is a string with a number out of range",
    body(DeployTimeSeconds=True): "DeployTimeSeconds is true or false",
    body(HostId={}): "HostId is an object",
    json.dumps({"Type": "Notification", "Message": "hello"}): "Message in the SNS notification is not JSON",
}


class Bed:
    """A receiver with real leases, settling on a real queue."""

    def __init__(self, queue: Queue, **options: Any) -> None:
        self.queue = queue
        self.inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self.stopping = asyncio.Event()
        self.leases = Leases(queue, slots=options.pop("slots", 32), retry_pause=0.05)
        self.settler = Settler(self.leases, retry_for=3600)
        defaults: dict[str, Any] = {
            "wait": 1,
            "deploy_time": 30,
            "host_id": None,
            "stopping": self.stopping,
            "longest_backoff": 0.1,
        }
        self.receiver = Receiver(queue, self.leases, self.settler, self.inbox, **(defaults | options))
        self.polling = asyncio.create_task(self.receiver.run())

    async def next(self) -> Delivery:
        async with asyncio.timeout(15):
            return await self.inbox.get()

    async def stop(self) -> None:
        """Ask to stop, and wait until the polling has ended by itself."""
        self.stopping.set()
        await asyncio.wait_for(asyncio.shield(self.polling), 10)


@asynccontextmanager
async def receiving(queue: Queue, **options: Any) -> AsyncIterator[Bed]:
    bed = Bed(queue, **options)
    renewals = asyncio.create_task(bed.leases.run())
    yield bed
    assert not renewals.done(), "the renewals ended by themselves"
    for task in (bed.polling, renewals):
        task.cancel()
    await asyncio.gather(bed.polling, renewals, return_exceptions=True)


async def test_a_request_is_put_into_the_inbox_and_stays_held(
    sqs: LocalSqs, queue: Queue, queue_url: str
) -> None:
    sent = sqs.send(queue_url, body("acme/api", "42"))
    async with receiving(queue) as bed:
        delivery = await bed.next()
        assert (delivery.message.id, str(delivery.request.image)) == (sent, "acme/api:42")
        assert bed.leases.holds(delivery.message)
        assert sqs.count(queue_url) == (0, 1)


async def test_a_poll_is_long_and_hides_what_it_brings_for_a_short_time_only(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    async with receiving(scripted_queue, wait=7):
        await until(lambda: scripted.called("ReceiveMessage"))
    parameters = scripted.calls[0].parameters
    assert (parameters["WaitTimeSeconds"], parameters["VisibilityTimeout"]) == (7, 60)
    assert parameters["MaxNumberOfMessages"] == 10


async def test_every_invalid_body_ends_invalid_and_is_kept_and_a_good_one_after_them_is_received(
    sqs: LocalSqs, queue: Queue, queue_url: str, logs: list[EventDict]
) -> None:
    expected = {sqs.send(queue_url, text): reason for text, reason in INVALID.items()}
    good = sqs.send(queue_url, body())
    async with receiving(queue) as bed:
        assert (await bed.next()).message.id == good
        await until(lambda: len(said(logs, "invalid")) == len(INVALID))
        await until(lambda: bed.leases.free == 31)
        assert sqs.count(queue_url) == (0, len(INVALID) + 1), "kept, for some time"
        assert bed.inbox.empty()
    for event in said(logs, "invalid"):
        assert event["reason"].startswith(expected.pop(event["message_id"]))
        assert event["log_level"] == "error"
        assert len(event["reason"]) < 250, "never the whole body"
        assert "\n" not in event["reason"]
    assert expected == {}


async def test_a_mebibyte_of_brackets_is_invalid_and_nothing_more(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    bad = scripted.send("[" * 2**20)
    good = scripted.send(body())
    async with receiving(scripted_queue) as bed:
        assert (await bed.next()).message.id == good
        await until(lambda: 20 < scripted.hidden_for(bad) <= 30)
        await until(lambda: bed.leases.free == 31)
    [event] = said(logs, "invalid")
    assert event["message_id"] == bad


async def test_a_message_for_another_host_is_visible_to_it_soon(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    other = scripted.send(body(HostId="b"))
    mine = scripted.send(body(HostId="a"))
    async with receiving(scripted_queue, host_id="a") as bed:
        assert (await bed.next()).message.id == mine
        await until(lambda: len(scripted.changes(other)) > 0 and bed.leases.free == 31)
        [hidden] = scripted.changes(other)
        assert 1 <= hidden <= 5
        assert scripted.hidden_for(other) <= 5
    [event] = said(logs, "not_here")
    assert event["reason"] == "for another HostId; this is a"


async def test_a_message_for_some_host_is_not_for_a_lookout_without_host_id(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send(body(HostId="b"))
    async with receiving(scripted_queue):
        await until(lambda: said(logs, "not_here"))


async def test_a_stray_result_is_ignored_and_deleted(
    sqs: LocalSqs, queue: Queue, queue_url: str, logs: list[EventDict]
) -> None:
    sqs.send(queue_url, {"Type": "lookout.result", "ImageName": "acme/api", "ImageTag": "1"})
    async with receiving(queue) as bed:
        await until(lambda: said(logs, "ignored"))
        await until(lambda: sqs.count(queue_url) == (0, 0))
        assert bed.inbox.empty()


async def test_what_is_slow_to_settle_does_not_delay_what_came_with_it(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    go = asyncio.Event()
    for _ in range(2):
        scripted.send(json.dumps({"Type": "lookout.result"}))
    scripted.next("DeleteMessage", after(go), after(go))
    good = scripted.send(body())
    async with receiving(scripted_queue) as bed:
        assert (await bed.next()).message.id == good
        await until(lambda: len(scripted.called("DeleteMessage")) == 2)
        go.set()


async def test_the_first_extension_of_each_is_sized_by_its_own_deploy_time(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.send("invalid")
    asking = scripted.send(body(DeployTimeSeconds=100))
    silent = scripted.send(body("acme/web"))
    async with receiving(scripted_queue, deploy_time=200):
        await until(lambda: scripted.changes(asking) and scripted.changes(silent))
        assert scripted.changes(asking)[0] == 180
        assert scripted.changes(silent)[0] == 330


async def test_no_more_is_received_than_can_be_held_and_a_free_slot_is_used(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    ids = [scripted.send(body(f"acme/image-{number}")) for number in range(5)]
    async with receiving(scripted_queue, slots=2) as bed:
        first, second = await bed.next(), await bed.next()
        await until(lambda: all(scripted.changes(delivery.message.id) for delivery in (first, second)))
        assert [call.parameters["MaxNumberOfMessages"] for call in scripted.called("ReceiveMessage")] == [2]
        assert sum(scripted.hidden_for(message_id) <= 0 for message_id in ids) == 3
        await bed.leases.done(first.message)
        third = await bed.next()
        assert third.message.id == ids[2]
        assert [call.parameters["MaxNumberOfMessages"] for call in scripted.called("ReceiveMessage")] == [
            2,
            1,
        ]
        assert sum(scripted.hidden_for(message_id) <= 0 for message_id in ids[2:]) == 2


async def test_without_the_right_to_extend_one_is_received_at_a_time_and_hidden_for_long(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.next("ChangeMessageVisibility", refuse("AccessDenied", status=403))
    scripted.send(body(DeployTimeSeconds=100))
    async with receiving(scripted_queue, wait=5) as bed:
        await bed.next()
        await until(lambda: bed.leases.denied)
        for number in range(3):
            scripted.send(body(f"acme/image-{number}"))
            await bed.next()
        await until(lambda: len(scripted.called("ReceiveMessage")) == 5)
    last = scripted.called("ReceiveMessage")[-1].parameters
    assert (last["MaxNumberOfMessages"], last["VisibilityTimeout"]) == (1, 180)


async def test_a_message_delivered_again_while_in_hand_is_not_put_into_the_inbox_again(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    twice = scripted.send(body())
    async with receiving(scripted_queue) as bed:
        held = (await bed.next()).message
        scripted.show(twice)
        await until(lambda: said(logs, "message delivered again while in hand"))
        assert bed.inbox.empty()
        assert await bed.leases.done(held)
    assert not scripted.has(twice), "deleted by the newest handle"


async def test_a_message_that_could_not_be_deleted_is_deleted_when_it_comes_back(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    again = scripted.send(body())
    scripted.next("DeleteMessage", *[AWAY] * 4)
    async with receiving(scripted_queue) as bed:
        delivery = await bed.next()
        await bed.settler.settle(delivery.message, Report(Outcome.ROLLED_BACK), delivery.request)
        assert scripted.has(again)
        scripted.show(again)
        await until(lambda: not scripted.has(again))
        assert bed.inbox.empty()
        await until(lambda: bed.leases.free == 32)
    assert said(logs, "message ended before; ending it again")


async def test_a_message_that_is_kept_is_received_again(scripted: ScriptedSqs, scripted_queue: Queue) -> None:
    kept = scripted.send(body())
    async with receiving(scripted_queue) as bed:
        for full in (30, 60):
            delivery = await bed.next()
            assert delivery.message.id == kept
            await bed.settler.settle(
                delivery.message, Report(Outcome.FAILED, transient=True), delivery.request
            )
            assert 0.75 * full <= scripted.changes(kept)[-1] <= full
            scripted.show(kept)


async def test_a_poll_that_is_open_when_stopping_ends_by_itself(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    async with receiving(scripted_queue) as bed:
        await until(lambda: scripted.called("ReceiveMessage"))
        await bed.stop()
        polls = len(scripted.called("ReceiveMessage"))
        sent = scripted.send(body())
        assert bed.polling.done()
        assert len(scripted.called("ReceiveMessage")) == polls
        assert scripted.hidden_for(sent) <= 0, "no poll is left that could take it along"


async def test_what_an_open_poll_brings_when_stopping_is_visible_again_at_once(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    async with receiving(scripted_queue, wait=10) as bed:
        await until(lambda: scripted.called("ReceiveMessage"))
        bed.stopping.set()
        ids = [scripted.send(text) for text in (body(), body("acme/web"), "invalid")]
        await bed.stop()
        assert bed.inbox.empty()
        assert bed.leases.free == 32
    assert all(scripted.hidden_for(message_id) <= 0 for message_id in ids)
    assert [scripted.changes(message_id)[-1] for message_id in ids] == [0, 0, 0]


async def test_stopping_does_not_wait_for_the_next_try(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.next("ReceiveMessage", AWAY)
    async with receiving(scripted_queue, longest_backoff=3600) as bed:
        await until(lambda: said(logs, "cannot poll"))
        bed.stopping.set()
        for _ in range(20):  # turns of the loop, which take no time
            await asyncio.sleep(0)
        assert bed.polling.done()


async def test_polling_goes_on_when_sqs_was_away(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    async with receiving(scripted_queue) as bed:
        await until(lambda: scripted.called("ReceiveMessage"))
        await scripted.stop()
        await until(lambda: len(said(logs, "cannot poll; trying again")) >= 3)
        await scripted.start()
        scripted.send(body())
        await bed.next()
        told = said(logs, "cannot poll; trying again")
        assert [event["attempt"] for event in told] == list(range(1, len(told) + 1))
        assert all(0 < event["seconds"] <= 0.1 for event in told)
        scripted.next("ReceiveMessage", cut)
        await until(lambda: len(said(logs, "cannot poll; trying again")) > len(told))
        assert said(logs, "cannot poll; trying again")[-1]["attempt"] == 1, "reset by success"


async def test_a_queue_that_was_never_there_ends_the_polling(sqs: LocalSqs, queue_url: str) -> None:
    async with connected(queue_url + "-missing", sqs.environment()) as queue, receiving(queue) as bed:
        with pytest.raises(WrongSettings, match=r"^SqsQueueUrl or AWS credentials: [^\n]*does not exist"):
            await asyncio.wait_for(bed.polling, 10)


@pytest.mark.parametrize("wrong", [{"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}, {"AWS_SECRET_ACCESS_KEY": "wrong"}])
async def test_credentials_that_never_worked_end_the_polling(
    sqs: LocalSqs, queue_url: str, wrong: dict[str, str]
) -> None:
    with sqs.enforce_iam(RECEIVE) as environment:
        async with connected(queue_url, environment | wrong) as queue, receiving(queue) as bed:
            with pytest.raises(WrongSettings, match=r"^SqsQueueUrl or AWS credentials: [^\n]*$"):
                await asyncio.wait_for(bed.polling, 10)


async def test_no_credentials_end_the_polling(scripted: ScriptedSqs) -> None:
    without = {name: value for name, value in ANYONE.items() if "KEY" not in name}
    async with connected(scripted.queue_url, without) as queue, receiving(queue) as bed:
        with pytest.raises(WrongSettings, match=r"^SqsQueueUrl or AWS credentials: "):
            await asyncio.wait_for(bed.polling, 10)


async def test_who_may_not_receive_at_all_ends_the_polling(sqs: LocalSqs, queue_url: str) -> None:
    policy = json.loads(json.dumps(RECEIVE).replace("ReceiveMessage", "SendMessage"))
    with sqs.enforce_iam(policy) as environment:
        async with connected(queue_url, environment) as queue, receiving(queue) as bed:
            with pytest.raises(WrongSettings, match="AccessDenied"):
                await asyncio.wait_for(bed.polling, 10)


async def test_wrong_settings_are_told_even_where_the_first_polls_did_not_arrive(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.next("ReceiveMessage", cut, AWAY, refuse("InvalidClientTokenId", "is invalid", status=403))
    async with receiving(scripted_queue) as bed:
        with pytest.raises(WrongSettings, match="InvalidClientTokenId"):
            await asyncio.wait_for(bed.polling, 10)


@pytest.mark.parametrize(
    "code", ["QueueDoesNotExist", "InvalidClientTokenId", "ExpiredToken", "AccessDenied"]
)
async def test_the_same_later_is_waited_out(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict], code: str
) -> None:
    scripted.send(body())
    async with receiving(scripted_queue) as bed:
        await bed.next()
        scripted.next("ReceiveMessage", *[refuse(code, status=403)] * 3)
        await until(lambda: len(said(logs, "cannot poll; trying again")) == 3)
        scripted.send(body("acme/web"))
        await bed.next()
