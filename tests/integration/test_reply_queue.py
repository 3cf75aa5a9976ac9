"""Reply queues on a real SQS server: many who share one, and what was left behind."""

import asyncio
import secrets
import time
from collections.abc import Iterable

import pytest

from lookout import reply_queue, sender
from lookout.errors import WrongSettings
from lookout.model import DeployRequest, ImageName, ImageRef, Outcome
from lookout.reply_queue import ReplyQueue
from lookout.result import Result
from lookout.screen import Lines
from lookout.settings import QueueSettings
from lookout.sqs import BATCH, Queue
from testbed.faulty_sqs import Call, FaultySqs
from testbed.sqs import LocalSqs
from tests.integration.answering import Answering, ended, pulling, remove_reply_queues
from tests.integration.queues import connected, until

pytestmark = [pytest.mark.queue, pytest.mark.timeout(120)]


def name() -> str:
    return f"lookout-reply-{secrets.token_hex(16)}"


def names(sqs: LocalSqs) -> set[str]:
    urls = sqs._sqs.list_queues(QueueNamePrefix="lookout-reply-").get("QueueUrls", ())
    return {url.rpartition("/")[2] for url in urls}


@pytest.fixture(autouse=True)
def none_before(sqs: LocalSqs) -> None:
    remove_reply_queues(sqs)


async def test_ten_who_share_a_queue_each_get_their_own_answer(
    sqs: LocalSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in sqs.environment().items():
        monkeypatch.setenv(key, value)
    url = sqs.create_queue(name())
    for _ in range(12):
        sqs.send(url, "garbage")
    settings = QueueSettings(SqsQueueUrl=queue_url)  # type: ignore[call-arg]
    sending = [new_sender(settings, url, str(tag)) for tag in range(10)]

    def answers(result: Result) -> Iterable[Result]:
        yield from (pulling(result, percent) for percent in (1, 50, 99))
        yield ended(result, Outcome.DEPLOYED, error=f"of {result.image_tag}")

    with Answering(sqs.environment(), queue_url, answers):
        await asyncio.gather(*(one.deploy(90) for one in sending))
    told = [one.watch.result.error if one.watch.result else "" for one in sending]
    assert told == [f"of {tag}" for tag in range(10)]
    assert all(one.watch.result and one.watch.result.message_id == one.message_id for one in sending)
    left: dict[str, str] = {}
    deadline = time.monotonic() + 60
    while len(left) < 12:
        assert time.monotonic() < deadline, left
        left |= {m["MessageId"]: m["Body"] for m in sqs.receive(url, 1) if m["Body"] == "garbage"}


def new_sender(settings: QueueSettings, reply_queue_url: str | None, tag: str) -> sender.Sender:
    screen = Lines(lambda _: None)
    request = DeployRequest(ImageRef(ImageName.parse("acme/api"), tag), reply_queue_url=reply_queue_url)
    watch = sender.Watch(screen, for_retries=False)
    return sender.Sender(settings, request, sender.Stop(), watch, screen)


async def test_what_is_for_others_is_given_back_at_once(sqs: LocalSqs, queue: Queue) -> None:
    url = sqs.create_queue(name())
    replies = ReplyQueue(queue.beside(url))
    sqs.send(url, Result("theirs", outcome=Outcome.DEPLOYED).to_json())
    sqs.send(url, Result("mine", outcome=Outcome.DEPLOYED).to_json())
    (answer,) = await replies.answers("mine", wait=1)
    assert answer.result.message_id == "mine"
    assert sqs.count(url) == (1, 0)


async def test_what_nobody_fetches_does_not_stand_in_the_way(sqs: LocalSqs, queue: Queue) -> None:
    url = sqs.create_queue(name())
    for _ in range(BATCH):
        sqs.send(url, "garbage")
    replies = ReplyQueue(queue.beside(url))
    for _ in range(reply_queue.LOOKS - 1):
        await queue.beside(url).receive(BATCH, wait=0, visibility=0)
    sqs.send(url, Result("mine", outcome=Outcome.DEPLOYED).to_json())
    assert await replies.answers("mine", wait=1) == [], "ten of them come first"
    assert len(await replies.answers("mine", wait=1)) == 1


async def test_looking_whether_it_can_be_received_from_takes_nothing(sqs: LocalSqs, queue: Queue) -> None:
    url = sqs.create_queue(name())
    sqs.send(url, "theirs")
    await ReplyQueue(queue.beside(url)).check()
    assert sqs.count(url) == (1, 0)


async def test_without_permission_to_give_back_others_wait_a_little(sqs: LocalSqs, queue_url: str) -> None:
    url = sqs.create_queue(name())
    sqs.send(url, Result("theirs", outcome=Outcome.DEPLOYED).to_json())
    actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}],
    }
    with sqs.enforce_iam(policy) as environment:
        async with connected(queue_url, environment) as queue:
            replies = ReplyQueue(queue.beside(url))
            assert await replies.answers("mine", wait=1) == []
            assert len(await replies.answers("theirs", wait=5)) == 1


async def test_answers_come_in_the_order_in_which_they_were_sent(sqs: LocalSqs, queue: Queue) -> None:
    url = sqs.create_queue(name())
    for percent in (1, 2, 3):
        sqs.send(url, pulling(Result("mine"), percent).to_json())
        await asyncio.sleep(0.01)
    answers = await ReplyQueue(queue.beside(url)).answers("mine", wait=1)
    assert [answer.result.percent for answer in answers] == [1, 2, 3]
    assert sqs.count(url) == (0, 0)


async def test_only_what_senders_have_left_behind_is_removed(sqs: LocalSqs, queue: Queue) -> None:
    old = name()
    kept = {"lookout-reply-", "lookout-reply-jobs", f"{name()}x", f"{name()[:-1]}", f"{name()[:-1]}G"}
    for each in (old, *kept):
        sqs.create_queue(each)
    await asyncio.sleep(2.1)
    young, own = name(), name()
    urls = {each: sqs.create_queue(each) for each in (young, own)}
    await reply_queue.sweep(queue.account, urls[own])
    assert old in names(sqs), "it is not a day old"
    await reply_queue.sweep(queue.account, urls[own], older_than=1)
    assert names(sqs) == {*kept, young, own}
    await reply_queue.sweep(queue.account, urls[own], older_than=-5)
    assert names(sqs) == {*kept, own}


def test_nobody_waits_for_as_long_as_what_is_left_behind_has_to_be_old() -> None:
    from lookout.arguments import LONGEST_TIMEOUT

    assert reply_queue.LEFT_BEHIND_AFTER == 24 * 3600 >= 2 * LONGEST_TIMEOUT


async def test_a_queue_in_another_account_than_the_requests_is_removed_and_refused(
    sqs: LocalSqs, queue_url: str, queue_line: FaultySqs
) -> None:
    removed: list[str] = []

    def note(call: Call) -> None:
        if call.action == "DeleteQueue":
            removed.append(call.parameters["QueueUrl"])

    queue_line.choose = note
    environment = sqs.environment() | {"AWS_ENDPOINT_URL_SQS": queue_line.endpoint}
    elsewhere = queue_url.replace("123456789012", "210987654321")
    async with connected(elsewhere, environment) as queue:
        with pytest.raises(WrongSettings, match="another account"):
            async with reply_queue.made(queue, keep=60, give_up=lambda: False, left=pytest.fail):
                pytest.fail("it is of no use")
    assert ["/123456789012/" in url for url in removed] == [True], "where it was made"
    assert names(sqs) == set()


async def test_a_cancelled_sender_leaves_no_queue(sqs: LocalSqs, queue: Queue) -> None:
    async def wait() -> None:
        async with reply_queue.made(queue, keep=60, give_up=lambda: False, left=pytest.fail):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await until(lambda: names(sqs))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(sqs) == set()


async def test_a_sender_that_is_cancelled_while_the_queue_is_made_leaves_none(
    sqs: LocalSqs, queue_url: str, queue_line: FaultySqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_on, done = queue_line._pass_on, []

    async def late(request: object, parameters: dict[str, object]) -> object:
        if "QueueName" in parameters:
            await asyncio.sleep(2.5)  # longer than a queue that is not there yet is tried to be removed
        answer = await pass_on(request, parameters)  # type: ignore[arg-type]
        done.extend(["made"] if "QueueName" in parameters else [])
        return answer

    monkeypatch.setattr(queue_line, "_pass_on", late)

    async def wait(queue: Queue) -> None:
        async with reply_queue.made(queue, keep=60, give_up=lambda: False, left=pytest.fail):
            await asyncio.Event().wait()

    environment = sqs.environment() | {"AWS_ENDPOINT_URL_SQS": queue_line.endpoint}
    async with connected(queue_url, environment) as queue:
        task = asyncio.create_task(wait(queue))
        await until(lambda: queue_line.calls["CreateQueue"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: done)
    assert queue_line.calls["CreateQueue"] == 1
    assert names(sqs) == set()


async def test_all_pages_of_what_was_left_behind_are_seen(
    sqs: LocalSqs, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookout.sqs._PAGE", 2)
    for _ in range(5):
        sqs.create_queue(name())
    own = sqs.create_queue(name())
    await reply_queue.sweep(queue.account, own, older_than=-5)
    assert names(sqs) == {own.rpartition("/")[2]}


async def test_the_sweep_never_delays_the_result(
    sqs: LocalSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in sqs.environment().items():
        monkeypatch.setenv(key, value)
    begun = asyncio.Event()

    async def sweep_for_ever(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(reply_queue, "sweep", sweep_for_ever)
    sending = new_sender(QueueSettings(SqsQueueUrl=queue_url), None, "1")  # type: ignore[call-arg]
    with Answering(sqs.environment(), queue_url):
        await sending.deploy(60)
    assert begun.is_set()
    assert sending.watch.result
