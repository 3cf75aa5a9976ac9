"""The four calls on a queue, and what each kind of refusal means."""

import asyncio
import time

import pytest

from lookout.errors import (
    HandleGone,
    NoSuchQueue,
    QueueDenied,
    QueueError,
    QueueRefused,
    QueueUnusable,
    WrongSettings,
)
from lookout.model import Message
from lookout.sqs import Queue
from testbed.scripted_sqs import ScriptedSqs, after, cut, fail_entries, hang, refuse
from testbed.sqs import LocalSqs
from tests.integration.queues import ANYONE, connected, receive, until

pytestmark = pytest.mark.queue

RECEIVE_AND_DELETE = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"], "Resource": "*"}
    ],
}


HANDLE_INVALID = "Value AQEB for parameter ReceiptHandle is invalid"
ANSWERS: list[tuple[str, str, type[QueueError]]] = [
    ("ReceiptHandleIsInvalid", "The input receipt handle is invalid.", HandleGone),
    ("MessageNotInflight", "", HandleGone),
    ("AWS.SimpleQueueService.MessageNotInflight", "", HandleGone),
    (
        "InvalidParameterValue",
        f"{HANDLE_INVALID}. Reason: The receipt handle has expired.",
        HandleGone,
    ),
    (
        "InvalidParameterValue",
        f"{HANDLE_INVALID}. Reason: Message does not exist or is not available for visibility timeout change.",
        HandleGone,
    ),
    (
        "InvalidParameterValue",
        "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total is beyond the limit",
        QueueRefused,
    ),
    ("InvalidParameterValue", "Reason: The receipt handle has expired.", HandleGone),
    ("InvalidMessageContents", "The message contains characters outside the allowed set.", QueueRefused),
    ("AccessDenied", "Access to the resource is denied.", QueueDenied),
    ("AccessDeniedException", "not authorized to perform: sqs:changemessagevisibility", QueueDenied),
    ("AWS.SimpleQueueService.NonExistentQueue", "does not exist", NoSuchQueue),
    ("QueueDoesNotExist", "does not exist", NoSuchQueue),
    ("InvalidClientTokenId", "The security token included in the request is invalid.", QueueUnusable),
    ("InvalidSignatureException", "The request signature does not match.", QueueUnusable),
    ("ExpiredToken", "The security token included in the request has expired", QueueUnusable),
    ("RequestThrottled", "Rate exceeded", QueueError),
    ("InternalFailure", "We encountered an internal error.", QueueError),
]


async def test_a_message_comes_with_its_id_body_time_and_count(
    sqs: LocalSqs, queue: Queue, queue_url: str
) -> None:
    before = time.time() * 1000
    sent = sqs.send(queue_url, "première")
    [message] = await queue.receive(1, wait=1, visibility=60)
    assert (message.id, message.body, message.receive_count) == (sent, "première", 1)
    assert before - 1 <= message.sent_timestamp <= time.time() * 1000
    assert message.receipt_handle


async def test_a_message_is_hidden_for_as_long_as_asked_and_no_longer(
    sqs: LocalSqs, queue: Queue, queue_url: str
) -> None:
    sqs.send(queue_url, "body")
    [first] = await queue.receive(1, wait=1, visibility=1)
    assert sqs.count(queue_url) == (0, 1)
    [again] = await receive(queue)
    assert again.id == first.id
    assert again.receive_count == 2


async def test_no_more_than_asked_for_and_never_more_than_ten_come_at_once(
    sqs: LocalSqs, queue: Queue, queue_url: str
) -> None:
    for number in range(15):
        sqs.send(queue_url, str(number))
    assert len(await queue.receive(2, wait=1, visibility=60)) == 2
    assert len(await queue.receive(13, wait=1, visibility=60)) == 10


async def test_an_empty_queue_brings_nothing(queue: Queue) -> None:
    assert await queue.receive(10, wait=1, visibility=60) == []


async def test_a_deleted_message_is_gone_for_good(sqs: LocalSqs, queue: Queue, queue_url: str) -> None:
    sqs.send(queue_url, "body")
    [message] = await receive(queue)
    await queue.delete(message)
    assert sqs.count(queue_url) == (0, 0)


@pytest.mark.parametrize("count", [1, 12])
async def test_the_visibility_of_one_and_of_more_than_a_batch_can_be_changed(
    sqs: LocalSqs, queue: Queue, queue_url: str, count: int
) -> None:
    for number in range(count):
        sqs.send(queue_url, str(number))
    messages = await receive(queue, count)
    assert sqs.count(queue_url) == (0, count)
    assert await queue.change_visibility([(message, 0) for message in messages]) == {}
    assert sqs.count(queue_url) == (count, 0)


async def test_one_change_goes_out_alone_and_several_in_batches_of_ten(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    for number in range(12):
        scripted.send(str(number))
    messages = await receive(scripted_queue, 12)
    await scripted_queue.change_visibility([(message, 60) for message in messages])
    batches = scripted.called("ChangeMessageVisibilityBatch")
    assert sorted(len(call.timeouts) for call in batches) == [2, 10]
    await scripted_queue.change_visibility([(messages[0], 60)])
    assert len(scripted.called("ChangeMessageVisibility")) == 1


async def test_a_batch_that_hangs_does_not_hold_up_the_next(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    for number in range(20):
        scripted.send(str(number))
    messages = await receive(scripted_queue, 20)
    go = asyncio.Event()
    scripted.next("ChangeMessageVisibilityBatch", after(go))
    changing = asyncio.create_task(scripted_queue.change_visibility([(m, 600) for m in messages]))
    await until(lambda: scripted.hidden_for(messages[10].id) > 500)
    assert scripted.hidden_for(messages[0].id) < 100
    go.set()
    assert await changing == {}
    assert scripted.hidden_for(messages[0].id) > 500


async def test_an_open_poll_does_not_hold_up_other_calls(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.send("body")
    [message] = await receive(scripted_queue)
    poll = asyncio.create_task(scripted_queue.receive(1, wait=20, visibility=60))
    await until(lambda: len(scripted.called("ReceiveMessage")) == 2)
    assert await scripted_queue.change_visibility([(message, 600)]) == {}
    await scripted_queue.delete(message)
    assert not poll.done()
    poll.cancel()


async def test_a_failed_entry_of_a_batch_is_told_for_its_own_message_only(
    sqs: LocalSqs, queue: Queue, queue_url: str
) -> None:
    for number in range(3):
        sqs.send(queue_url, str(number))
    messages = await receive(queue, 3)
    gone = messages[1]
    await queue.delete(gone)
    failures = await queue.change_visibility([(message, 0) for message in messages])
    assert list(failures) == [gone.id]
    assert isinstance(failures[gone.id], HandleGone)
    assert sqs.count(queue_url) == (2, 0)


async def test_a_failed_entry_need_not_mean_that_the_handle_is_gone(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    messages = [Message("a", "", "a#1"), Message("b", "", "b#1")]
    scripted.next("ChangeMessageVisibilityBatch", fail_entries("InternalError", "try again"))
    failures = await scripted_queue.change_visibility([(message, 60) for message in messages])
    assert {key: (type(error), str(error)) for key, error in failures.items()} == {
        "a": (QueueError, "InternalError: try again"),
        "b": (QueueError, "InternalError: try again"),
    }


async def test_the_handle_of_a_message_that_is_gone_is_told_apart(
    sqs: LocalSqs, queue: Queue, queue_url: str
) -> None:
    sqs.send(queue_url, "body")
    [message] = await receive(queue)
    await queue.delete(message)
    failures = await queue.change_visibility([(message, 60)])
    assert isinstance(failures[message.id], HandleGone)


async def test_what_sqs_says_becomes_what_lookout_can_do(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    understood: list[tuple[str, str, type[QueueError]]] = []
    for code, text, _ in ANSWERS:
        scripted.next("DeleteMessage", refuse(code, text))
        with pytest.raises(QueueError) as caught:
            await scripted_queue.delete(Message("a", "", "a#1"))
        assert text in str(caught.value)
        understood.append((code, text, type(caught.value)))
    assert understood == ANSWERS


async def test_an_answer_that_is_a_page_becomes_one_short_line(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.next("DeleteMessage", refuse("ServiceUnavailable", "<html>\n" + "  <p>sorry</p>\n" * 1000))
    with pytest.raises(QueueError, match=r"^ServiceUnavailable: <html> <p>sorry</p> [^\n]{1,500}$"):
        await scripted_queue.delete(Message("a", "", "a#1"))


async def test_a_missing_queue_is_unusable(sqs: LocalSqs, queue_url: str) -> None:
    async with connected(queue_url + "-missing", sqs.environment()) as queue:
        with pytest.raises(QueueUnusable, match="queue"):
            await queue.receive(1, wait=1, visibility=60)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/1/refused", "http://nowhere.invalid/1/unknown"])
async def test_a_server_that_is_not_there_may_come_back(url: str) -> None:
    async with connected(url) as queue:
        with pytest.raises(QueueError) as caught:
            await queue.receive(1, wait=1, visibility=60)
    assert type(caught.value) is QueueError


async def test_a_cut_connection_is_an_error_like_another(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.next("ReceiveMessage", cut)
    with pytest.raises(QueueError, match="SQS did not answer"):
        await scripted_queue.receive(1, wait=1, visibility=60)
    assert len(scripted.called("ReceiveMessage")) == 1, "a poll that the SDK repeats may swallow messages"


async def test_a_server_that_hangs_is_not_waited_for_as_long_as_a_lease_has_left(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.next("ChangeMessageVisibility", hang)
    async with asyncio.timeout(9):
        failures = await scripted_queue.change_visibility([(Message("a", "", "a#1"), 60)])
    assert "did not answer" in str(failures["a"])


async def test_who_may_not_change_visibility_may_still_receive_and_delete(
    sqs: LocalSqs, queue_url: str
) -> None:
    for number in range(3):
        sqs.send(queue_url, str(number))
    with sqs.enforce_iam(RECEIVE_AND_DELETE) as environment:
        async with connected(queue_url, environment) as queue:
            messages = await receive(queue, 3)
            for some in (messages[:1], messages):
                failures = await queue.change_visibility([(message, 60) for message in some])
                assert {type(error) for error in failures.values()} == {QueueDenied}
                assert len(failures) == len(some)
            for message in messages:
                await queue.delete(message)
    assert sqs.count(queue_url) == (0, 0)


async def test_who_may_change_only_single_messages_can_still_change_several(
    sqs: LocalSqs, queue_url: str
) -> None:
    for number in range(2):
        sqs.send(queue_url, str(number))
    actions = ["sqs:ReceiveMessage", "sqs:ChangeMessageVisibility"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}],
    }
    with sqs.enforce_iam(policy) as environment:
        async with connected(queue_url, environment) as queue:
            messages = await receive(queue, 2)
            assert await queue.change_visibility([(message, 0) for message in messages]) == {}
    assert sqs.count(queue_url) == (2, 0)


async def test_an_unknown_key_is_refused(sqs: LocalSqs, queue_url: str) -> None:
    with sqs.enforce_iam(RECEIVE_AND_DELETE) as environment:
        async with connected(queue_url, environment | {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}) as queue:
            with pytest.raises((QueueUnusable, QueueDenied)):
                await queue.receive(1, wait=1, visibility=60)


async def test_a_wrong_secret_is_refused(sqs: LocalSqs, queue_url: str) -> None:
    with sqs.enforce_iam(RECEIVE_AND_DELETE) as environment:
        async with connected(queue_url, environment | {"AWS_SECRET_ACCESS_KEY": "wrong"}) as queue:
            with pytest.raises((QueueUnusable, QueueDenied)):
                await queue.receive(1, wait=1, visibility=60)


async def test_no_credentials_at_all_are_unusable(scripted: ScriptedSqs) -> None:
    without = {name: value for name, value in ANYONE.items() if "KEY" not in name}
    async with connected(scripted.queue_url, without) as queue:
        with pytest.raises(QueueUnusable, match="credentials"):
            await queue.receive(1, wait=1, visibility=60)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"])
async def test_an_endpoint_of_the_sdks_own_needs_no_region(scripted: ScriptedSqs, variable: str) -> None:
    environment = ANYONE | {variable: scripted.queue_url.rpartition("/1234")[0]}
    async with connected(scripted.queue_url, environment) as queue:
        scripted.send("body")
        await receive(queue)


async def test_a_queue_at_aws_whose_url_tells_no_region_needs_one() -> None:
    with pytest.raises(WrongSettings, match="AWS_REGION: is required"):
        async with connected("https://vpce-1.vpce.amazonaws.com/1/deploys"):
            raise AssertionError("connected")
