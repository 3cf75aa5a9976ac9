"""What the daemon finds out at its start: it warns of what is missing, and decides and changes nothing by it."""

import secrets
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.look_round import look_round
from lookout.model import Json
from lookout.planner import Planner
from lookout.probe import Probe
from lookout.settings import Settings
from lookout.targets import Target
from testbed.scripted_sqs import PATH, Act, ScriptedSqs, refuse
from testbed.sqs import LocalSqs
from tests.integration.queues import ANYONE, connected, said
from tests.integration.test_permissions import DEAD_LETTERS, RECEIVER, policy

pytestmark = pytest.mark.queue

AT_AWS = "https://sqs.eu-west-1.amazonaws.com"
MISSING = "a permission is missing"


class NoContainers(Planner):
    """Of an engine on which nothing runs."""

    def __init__(self) -> None:
        pass

    async def everything(self) -> list[Target]:
        return []


async def look(url: str, environment: dict[str, str] = ANYONE, **more: Any) -> None:
    settings = Settings(**{"SqsQueueUrl": url, **more})
    async with connected(url, environment) as queue:
        await look_round(settings, NoContainers(), queue)


async def test_a_server_that_would_take_any_message_is_sent_none(scripted: ScriptedSqs) -> None:
    async def leniently(parameters: Json, act: Act) -> Json:
        parameters["DelaySeconds"] = 0
        return act()

    for _ in range(2):
        scripted.next("SendMessage", leniently)
    others = {name: scripted.queue_url.replace(PATH, f"{PATH}-{name}") for name in ("dead", "results")}
    await look(scripted.queue_url, DeadLetterQueueUrl=others["dead"], ResultQueueUrl=others["results"])
    assert [call.action for call in scripted.calls] == ["DeleteMessage"]


async def test_one_odd_answer_is_warned_of_and_leases_are_extended_all_the_same(
    scripted: ScriptedSqs, logs: list[EventDict]
) -> None:
    for action in ("DeleteMessage", "ChangeMessageVisibility"):
        scripted.next(action, refuse("403", "<h1>Forbidden</h1>", 403))
    await look(scripted.queue_url)
    assert [event["action"] for event in said(logs, MISSING)] == ["sqs:DeleteMessage"]
    assert not said(logs, "not allowed to extend"), "the first renewal decides that"


async def test_at_aws_it_warns_where_nothing_may_be_sent_and_sends_nothing(
    sqs: LocalSqs, queue_url: str, logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "server", AT_AWS)
    dead, results = (sqs.create_queue(f"test-{secrets.token_hex(4)}") for _ in range(2))
    others = {"DeadLetterQueueUrl": dead, "ResultQueueUrl": results}
    with sqs.enforce_iam(policy(RECEIVER, without="sqs:DeleteMessage")) as environment:
        await look(queue_url, environment, **others)
    denied = ["SqsQueueUrl", "DeadLetterQueueUrl", "ResultQueueUrl"]
    assert [event["queue"] for event in said(logs, MISSING)] == denied
    logs.clear()
    with sqs.enforce_iam(policy(RECEIVER, DEAD_LETTERS)) as environment:
        await look(queue_url, environment, DeadLetterQueueUrl=dead, ResultQueueUrl=f"{results}-gone")
    assert [(event["event"], event["queue"]) for event in logs if event["log_level"] == "warning"] == [
        ("no such queue", "ResultQueueUrl")
    ]
    assert sqs.count(dead) == sqs.count(results) == (0, 0)


async def test_what_is_managed_is_said_also_where_the_queue_does_not_answer(logs: list[EventDict]) -> None:
    await look("http://127.0.0.1:9/123456789012/deploys")
    assert said(logs, "managing")
