"""In which order results and progress are sent, and for how long that is tried."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs
from tests.unit.bench import message

from lookout.errors import QueueError
from lookout.model import (
    ContainerReport,
    Delivery,
    DeployRequest,
    Ending,
    ImageName,
    ImageRef,
    Outcome,
    Phase,
    Report,
)
from lookout.replies import Replies
from lookout.sqs import Queue

REQUEST = DeployRequest(ImageRef(ImageName.parse("acme/api"), "1"), reply_queue_url="reply")
DELIVERY = Delivery(message(), REQUEST)
NOW = datetime.now(UTC)
BAD = Report(Outcome.ROLLED_BACK, "why", (ContainerReport("api", Outcome.ROLLED_BACK, log_tail="secret"),))
ENDING = Ending(message(), BAD, REQUEST, NOW, NOW)


class Client:
    """Takes each message after the time that its queue needs, or refuses it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.seconds: dict[str, float] = {}
        self.refuses: dict[str, list[Exception]] = {}
        self.begun = 0

    async def send_message(self, *, QueueUrl: str, MessageBody: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        self.begun += 1
        await asyncio.sleep(self.seconds.get(QueueUrl, 0))
        if refused := self.refuses.get(QueueUrl):
            raise refused.pop(0)
        self.sent.append((QueueUrl, json.loads(MessageBody)))
        return {}

    def outcomes(self, url: str) -> list[str]:
        return [told["Outcome"] for queue, told in self.sent if queue == url]


def made(client: Client, **options: Any) -> Replies:
    defaults = {"retry_pause": 0, "tell_every": 0.01, "result_queue_url": "results"}
    return Replies(Queue(client, "queue"), **(defaults | options))  # type: ignore[arg-type]


async def test_a_reply_queue_that_does_not_answer_is_given_up_soon_and_the_result_queue_later() -> None:
    client = Client()
    client.seconds = {"reply": 60, "results": 0.05}
    began = time.monotonic()
    with pytest.raises(QueueError, match="in time"):
        await made(client, reply_patience=0.1).tell(ENDING)
    assert 0.1 <= time.monotonic() - began < 60
    assert client.outcomes("results") == ["rolled_back"]


async def test_what_was_wrong_is_said_where_the_time_is_over_in_a_pause() -> None:
    client = Client()
    gone = ClientError({"Error": {"Code": "QueueDoesNotExist"}}, "SendMessage")
    client.refuses = {"reply": [gone] * 10_000}
    with capture_logs() as logs:
        await made(client, result_queue_url=None, reply_patience=0.1, retry_pause=3600).tell(ENDING)
    assert [(event["event"], event["log_level"]) for event in logs] == [("result not sent", "info")]


async def test_once_lookout_is_asked_to_stop_a_result_has_little_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lookout.replies.LAST_WORDS", 0.05)
    client, stopping = Client(), asyncio.Event()
    client.seconds = {"results": 60, "reply": 0.01}
    telling = asyncio.create_task(made(client, stopping=stopping).tell(ENDING))
    while client.begun < 2:
        await asyncio.sleep(0)
    stopping.set()
    with pytest.raises(QueueError):
        await asyncio.wait_for(telling, 30)
    assert client.outcomes("reply") == ["rolled_back"]


async def test_after_that_each_queue_is_tried_once() -> None:
    client, stopping = Client(), asyncio.Event()
    stopping.set()
    client.refuses = {"results": [OSError("away")] * 9}
    with pytest.raises(QueueError):
        await made(client, stopping=stopping).tell(ENDING)
    assert client.begun == 2
    assert client.outcomes("reply") == ["rolled_back"]


async def test_the_queue_that_has_taken_a_result_does_not_get_it_again_for_the_sake_of_the_other() -> None:
    client = Client()
    client.refuses = {"results": [OSError("away")] * 10_000}
    replies = made(client, result_patience=0.05)
    for _ in range(2):
        with pytest.raises(QueueError):
            await replies.tell(ENDING)
    client.refuses = {}
    await replies.tell(ENDING)
    assert client.outcomes("reply") == client.outcomes("results") == ["rolled_back"]
    await replies.tell(replace(ENDING, report=Report(Outcome.DEPLOYED)))
    assert client.outcomes("reply") == ["rolled_back", "deployed"]


async def test_a_queue_that_takes_less_than_a_log_is_long_gets_the_result_without_it() -> None:
    client = Client()
    client.refuses = {"reply": [ClientError({"Error": {"Code": "InvalidParameterValue"}}, "SendMessage")]}
    await made(client).tell(ENDING)
    (told,) = (told for queue, told in client.sent if queue == "reply")
    assert (told["Outcome"], "LogTail" in told["Containers"][0]) == ("rolled_back", False)


async def test_that_a_message_waits_is_told_before_how_it_ended() -> None:
    client = Client()
    replies = made(client)
    client.seconds = {"reply": 0.1}
    replies.waits(DELIVERY)
    await asyncio.sleep(0)
    client.seconds = {}
    await replies.tell(ENDING)
    assert client.outcomes("reply") == ["in_progress", "rolled_back"]


async def test_progress_that_is_on_its_way_arrives_before_the_result_and_none_follows() -> None:
    client = Client()
    replies = made(client)
    async with replies.following(DELIVERY) as course:
        client.seconds = {"reply": 0.1}
        course.enter(Phase.PULLING)
        while not client.begun:
            await asyncio.sleep(0)
        course.enter(Phase.CLEANING)
    client.seconds = {}
    await replies.tell(ENDING)
    await asyncio.sleep(0.05)
    assert client.outcomes("reply") == ["in_progress", "rolled_back"]


async def test_progress_that_hangs_holds_up_the_end_of_a_deploy_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lookout.replies.LAST_PROGRESS", 0.05)
    client = Client()
    client.seconds = {"reply": 3600}
    async with asyncio.timeout(60), made(client).following(DELIVERY) as course:
        course.enter(Phase.PULLING)
        while not client.begun:
            await asyncio.sleep(0)
    assert client.sent == []


async def test_nothing_is_told_of_a_deploy_that_has_moved_nothing() -> None:
    client = Client()
    async with made(client).following(DELIVERY):
        await asyncio.sleep(0.05)
    assert client.begun == 0


async def test_what_does_not_come_is_made_good_by_the_next_and_what_is_forbidden_is_not_tried_again() -> None:
    client = Client()
    client.refuses = {"reply": [OSError("away")]}
    async with made(client).following(DELIVERY) as course:
        course.enter(Phase.PULLING)
        while client.begun < 1:
            await asyncio.sleep(0)
        course.enter(Phase.CREATING)
        while client.begun < 2:
            await asyncio.sleep(0.01)
    assert [told["Phase"] for _, told in client.sent] == ["creating"]
    client.refuses = {"reply": [ClientError({"Error": {"Code": "AccessDenied"}}, "SendMessage")]}
    async with made(client).following(DELIVERY) as course:
        for phase in (Phase.PULLING, Phase.CREATING, Phase.REPLACING):
            course.enter(phase)
            await asyncio.sleep(0.03)
    assert client.begun == 3
