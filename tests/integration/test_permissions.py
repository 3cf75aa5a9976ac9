"""The policies that the README gives are enough, and nothing in them can be left out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.dead_letters import DeadLetters
from lookout.errors import QueueDenied, WrongSettings
from lookout.model import Json, Message, Outcome, Report
from testbed.sqs import LocalSqs
from tests.integration.listeners import listening
from tests.integration.queues import body, connected, said, until

pytestmark = pytest.mark.queue

README = (Path(__file__).parents[2] / "README.md").read_text()
DEAD = Report(Outcome.ROLLED_BACK, "it exited")


def blocks() -> Iterator[Json]:
    """The blocks of JSON below "Permissions", in order."""
    section = README.partition("**Permissions.**")[2].partition("\n**")[0]
    yield from (json.loads(text) for text in re.findall(r"```json\n(.*?)```", section, re.DOTALL))


def statements() -> tuple[Json, Json, Json, Json]:
    """Of the receiver, of the receiver with a dead-letter queue, and with results, of the sender."""
    receiver, dead, replies, sender = blocks()
    return receiver["Statement"][0], dead, replies, sender["Statement"][0]


RECEIVER, DEAD_LETTERS, REPLIES, SENDER = statements()


def policy(*allowed: Json, without: str = "") -> Json:
    def left(statement: Json) -> Any:
        actions = statement["Action"]
        return actions if isinstance(actions, str) else [action for action in actions if action != without]

    # The local server knows no other resource than all of them.
    return {
        "Version": "2012-10-17",
        "Statement": [statement | {"Action": left(statement), "Resource": "*"} for statement in allowed],
    }


async def test_with_the_policy_of_the_receiver_messages_are_received_kept_extended_and_deleted(
    sqs: LocalSqs, queue_url: str, logs: list[EventDict]
) -> None:
    for tag in ("1", "2", "3"):
        sqs.send(queue_url, body(f"acme/app{tag}", tag))
    sqs.send(queue_url, "garbage")
    with sqs.enforce_iam(policy(RECEIVER)) as environment:
        async with connected(queue_url, environment) as queue, listening(queue, backoff_base=900) as listener:
            await until(lambda: len(listener.deploys.begun) == 3 and said(logs, "lease renewed"))
            listener.deploys.end(*listener.deploys.begun)
            await until(lambda: len(said(logs, "deployed")) == 3 and listener.leases.free == 32)
    assert sqs.count(queue_url) == (0, 1), "but for what is invalid, which waits"
    assert not [event for event in logs if event["log_level"] == "warning"]


@pytest.mark.parametrize("missing", RECEIVER["Action"])
async def test_nothing_can_be_left_out_of_it(
    sqs: LocalSqs, queue_url: str, logs: list[EventDict], missing: str
) -> None:
    sqs.send(queue_url, body("acme/api", "1"))
    with sqs.enforce_iam(policy(RECEIVER, without=missing)) as environment:
        async with connected(queue_url, environment) as queue:
            if missing == "sqs:ReceiveMessage":
                with pytest.raises(WrongSettings, match="ReceiveMessage"):
                    async with listening(queue) as listener:
                        await listener.has_ended()
                return
            async with listening(queue) as listener:
                if missing == "sqs:ChangeMessageVisibility":
                    await until(lambda: listener.leases.denied)
                listener.deploys.end("acme/api:1")
                await until(lambda: said(logs, "deployed") and listener.leases.free == 32)
    warnings = [event for event in logs if event["log_level"] == "warning"]
    assert missing.lower() in json.dumps(warnings).lower()


async def test_with_the_statement_for_dead_letters_they_are_sent_and_without_it_is_told_what_to_add(
    sqs: LocalSqs, queue_url: str, logs: list[EventDict]
) -> None:
    message = Message("m-1", "body", "handle")
    with sqs.enforce_iam(policy(RECEIVER, DEAD_LETTERS)) as environment:
        async with connected(queue_url, environment) as queue:
            await DeadLetters(queue, retry_pause=0).put(message, DEAD)
    assert sqs.count(queue_url) == (1, 0)
    with sqs.enforce_iam(policy(RECEIVER)) as environment:
        async with connected(queue_url, environment) as queue:
            with pytest.raises(QueueDenied):
                await DeadLetters(queue, retry_pause=0).put(message, DEAD)
    (event,) = said(logs, "message not sent to the dead-letter queue")
    told, written = json.loads(event["statement"]), DEAD_LETTERS
    assert (told["Effect"], told["Action"]) == (written["Effect"], written["Action"])


async def test_the_sender_may_send_and_nothing_else(sqs: LocalSqs, queue_url: str) -> None:
    with sqs.enforce_iam(policy(SENDER)) as environment:
        async with connected(queue_url, environment) as queue:
            await queue.send("body", Message("m-1", "", ""), {}, "once")
            with pytest.raises(QueueDenied):
                await queue.receive(1, wait=1, visibility=1)
    assert sqs.count(queue_url) == (1, 0)


def test_each_statement_is_about_the_queue_that_it_is_for() -> None:
    queue = "arn:aws:sqs:eu-west-1:123456789012:deploys"
    assert (RECEIVER["Resource"], SENDER["Resource"]) == (queue, queue)
    assert DEAD_LETTERS["Resource"] not in (queue, "*")
