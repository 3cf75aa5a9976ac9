"""What the sender of a message, and whoever reads the result queue, is told of it by a running Lookout."""

import json
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from testbed.engine import PrivateEngine
from testbed.faulty_registry import FaultyRegistry
from testbed.faulty_sqs import Call, Fault, FaultySqs
from testbed.images import make_image, push
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.service import ENDED_WITHIN, WAITS, Service, let_go
from tests.integration.test_permissions import RECEIVER, REPLIES, policy

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(120)]

Told = dict[str, Any]

SAYS = 'CMD ["sh", "-c", "echo hunter2 is wrong >&2; exit 3"]'
WITHIN = 40  # seconds; no test of speed


class Listening:
    """What comes on a queue, in the order in which it was received."""

    def __init__(self, sqs: LocalSqs, *, fifo: bool = False, prefix: str = "lookout-reply-") -> None:
        self._sqs = sqs
        suffix, attributes = (".fifo", {"FifoQueue": "true"}) if fifo else ("", {})
        self.url = sqs.create_queue(f"{prefix}{secrets.token_hex(4)}{suffix}", **attributes)
        self.all: list[Told] = []
        self._sent_at: list[int] = []  # milliseconds, by the clock of the server

    def read(self) -> list[Told]:
        while some := self._sqs.receive(self.url):
            self.all += [json.loads(message["Body"]) for message in some]
            self._sent_at += [int(message["Attributes"]["SentTimestamp"]) for message in some]
        return self.all

    def results(self, message: str = "") -> list[Told]:
        """All but progress."""
        return [
            told
            for told in self.read()
            if told["Outcome"] != "in_progress" and message in (told["MessageId"], "")
        ]

    def wait_for(self, message: str, *, count: int = 1) -> Told:
        """The count-th result for a message."""
        deadline = time.monotonic() + WITHIN
        while len(found := self.results(message)) < count:
            assert time.monotonic() < deadline, f"only {self.all}"
            time.sleep(0.1)
        return found[count - 1]

    def gaps(self, message: str) -> list[int]:
        """Milliseconds between the events of progress for a message."""
        told = zip(self.all, self._sent_at, strict=True)
        at = sorted(at for one, at in told if one["Outcome"] == "in_progress" and one["MessageId"] == message)
        return [later - earlier for earlier, later in pairwise(at)]

    def read_progress(self, message: str) -> Told:
        """The first event of progress for a message."""
        deadline = time.monotonic() + WITHIN
        while not (self.read() and (found := self.progress(message))):
            assert time.monotonic() < deadline, f"only {self.all}"
            time.sleep(0.1)
        return found[0]

    def progress(self, message: str) -> list[Told]:
        return [
            told for told in self.all if told["Outcome"] == "in_progress" and told["MessageId"] == message
        ]


@pytest.fixture
def results(sqs: LocalSqs) -> Listening:
    return Listening(sqs, prefix="test-results-")


@pytest.fixture
def replies(sqs: LocalSqs) -> Listening:
    return Listening(sqs)


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def test_a_good_deploy_is_told_on_both_queues_and_its_progress_to_the_sender(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    results: Listening,
    replies: Listening,
) -> None:
    names = [make_container(app_image("1"), suffix) for suffix in ("a", "b")]
    image = app_image("2", changes=["LABEL two=2"])
    service.start(ResultQueueUrl=results.url, HostId="web-1", MonitorSeconds="1.5")
    message = service.send(image, ReplyQueueUrl=replies.url)
    told = replies.wait_for(message)
    name, _, tag = image.rpartition(":")
    assert told | {"StartedAt": 0, "FinishedAt": 0, "DurationMs": 0, "Containers": 0} == {
        "Type": "lookout.result",
        "MessageId": message,
        "ImageName": name,
        "ImageTag": tag,
        "HostId": "web-1",
        "Outcome": "deployed",
        "WillRetry": False,
        "StartedAt": 0,
        "FinishedAt": 0,
        "DurationMs": 0,
        "Containers": 0,
    }
    took = (moment(told["FinishedAt"]) - moment(told["StartedAt"])).total_seconds()
    assert took * 1000 == pytest.approx(told["DurationMs"], abs=2)
    assert took > 3, "two containers, one after the other, are watched"
    assert [one | {"DowntimeMs": 0} for one in told["Containers"]] == [
        {
            "Name": container,
            "Outcome": "deployed",
            "OldImage": f"{name}:1",
            "NewImage": image,
            "DowntimeMs": 0,
        }
        for container in names
    ]
    assert all(0 < one["DowntimeMs"] < told["DurationMs"] for one in told["Containers"])

    assert results.wait_for(message) == told
    assert results.progress(message) == []
    progress = replies.progress(message)
    assert {"replacing"} <= {one["Phase"] for one in progress}
    seen = {(one["Name"], one["Phase"]) for told in progress for one in told.get("Containers", ())}
    assert {(name, "monitoring") for name in names} <= seen
    assert (names[0], "replaced") in seen or (names[1], "waiting") in seen
    assert min(replies.gaps(message)) > 990, "once a second at most"
    assert all("LogTail" not in one for told in progress for one in told.get("Containers", ()))


def test_the_progress_of_a_pull_has_its_bytes(
    engine: PrivateEngine,
    registry: Registry,
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    replies: Listening,
) -> None:

    path = f"test-{secrets.token_hex(4)}/slow"
    with FaultyRegistry(engine.sandbox, 5019, 5000, rate=1_000_000) as slow_line:
        make_image(engine, f"{slow_line.host}/{path}:1")
        make_container(f"{slow_line.host}/{path}:1", "slow")
        make_image(engine, f"{registry.host}/{path}:2", ballast=3_000_000)
        push(engine, f"{registry.host}/{path}:2")
        engine.docker("rmi", f"{registry.host}/{path}:2")
        service.start()
        message = service.send(f"{slow_line.host}/{path}:2", ReplyQueueUrl=replies.url)
        assert replies.wait_for(message)["Outcome"] == "deployed"
    pulling = [told for told in replies.progress(message) if told["Phase"] == "pulling"]
    moved = [told for told in pulling if 0 < told.get("BytesDone", 0) < told.get("BytesTotal", 0)]
    assert moved
    assert all(0 <= told["Percent"] <= 99 for told in moved)


def test_the_log_of_a_container_that_was_no_good_goes_to_the_sender_only(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    results: Listening,
    replies: Listening,
) -> None:
    name = make_container(app_image("1"), "api")
    bad = app_image("2", changes=['CMD ["sh", "-c", "echo hunter2 is wrong >&2; sleep 2; exit 3"]'])
    service.start(ResultQueueUrl=results.url, MonitorSeconds="5")
    message = service.send(bad, ReplyQueueUrl=replies.url)
    told = replies.wait_for(message)
    assert (told["Outcome"], told["WillRetry"]) == ("rolled_back", False)
    assert "NextAttemptAt" not in told
    assert name in told["Error"]
    [container] = told["Containers"]
    assert (container["Name"], container["Outcome"]) == (name, "rolled_back")
    assert "hunter2 is wrong" in container["LogTail"]
    assert container["DowntimeMs"] >= 2000, "until the old one runs again"
    assert "hunter2" not in told["Error"]
    assert "hunter2" not in json.dumps(results.wait_for(message))
    assert any(one["Phase"] == "rolling_back" for one in replies.progress(message))


def test_what_will_be_tried_again_says_when_and_each_try_is_told(
    engine: PrivateEngine, make_container: MakeContainer, service: Service, replies: Listening
) -> None:
    image = f"127.0.0.1:1/test-{secrets.token_hex(4)}/api"  # where no registry is
    make_image(engine, f"{image}:1")
    name = make_container(f"{image}:1", "api")
    service.start(RetryForSeconds="4", PullTimeoutSeconds="1")
    message = service.send(f"{image}:2", ReplyQueueUrl=replies.url)
    first = replies.wait_for(message)
    assert (first["Outcome"], first["WillRetry"]) == ("failed", True)
    assert moment(first["NextAttemptAt"]) > moment(first["FinishedAt"])
    assert "cannot pull" in first["Error"]
    assert first["Containers"] == [{"Name": name, "Outcome": "unchanged", "OldImage": f"{image}:1"}]
    service.wait_until_settled()
    *others, last = replies.results(message)
    assert (last["Outcome"], last["WillRetry"]) == ("failed", False)
    assert others
    assert len({told.get("NextAttemptAt") for told in (*others, last)}) == len(others) + 1


def test_an_unknown_tag_fails_for_good_and_what_is_left_alone_says_why(
    app_image: AppImage, make_container: MakeContainer, service: Service, replies: Listening
) -> None:
    image = app_image("1")
    make_container(image, "api")
    left = make_container(image, "left", "--label=lookout.enable=false")
    service.start()
    message = service.send(f"{image}0", ReplyQueueUrl=replies.url)
    told = replies.wait_for(message)
    assert (told["Outcome"], told["WillRetry"]) == ("failed", False)
    [ignored] = [one for one in told["Containers"] if one["Name"] == left]
    assert (ignored["Outcome"], ignored["Reason"]) == ("ignored", "is labelled lookout.enable=false")


def test_what_runs_nowhere_here_is_told_once_until_it_ends_and_another_host_says_nothing(
    service: Service, results: Listening, replies: Listening
) -> None:
    lookout = service.start(ResultQueueUrl=results.url, HostId="a")
    nobodys = service.send("ghcr.io/acme/nobody:1", ReplyQueueUrl=replies.url)
    others = service.send("ghcr.io/acme/nobody:1", HostId="b", ReplyQueueUrl=replies.url)
    lookout.wait_for("not_here", message_id=nobodys, count=3)
    lookout.wait_for("not_here", message_id=others)
    told = replies.wait_for(nobodys)
    assert (told["Outcome"], told["WillRetry"], told["HostId"]) == ("not_here", True, "a")
    assert lookout.terminate(ENDED_WITHIN) == 0
    for queue in (results, replies):
        assert len(queue.results(nobodys)) == 1
        assert queue.results(others) == []


def test_who_has_sent_something_wrong_is_told_what(
    service: Service, sqs: LocalSqs, results: Listening, replies: Listening
) -> None:
    service.start(ResultQueueUrl=results.url)
    wrong = {"ImageName": "acme/api", "ImageTag": "not a tag", "ReplyQueueUrl": replies.url}
    message = sqs.send(service.queue_url, wrong)
    told = replies.wait_for(message)
    assert (told["Outcome"], told["WillRetry"]) == ("invalid", False)
    assert "ImageTag" in told["Error"]
    assert results.wait_for(message) == told
    garbage = sqs.send(service.queue_url, "garbage")
    assert results.wait_for(garbage)["Outcome"] == "invalid"


def test_both_who_are_superseded_and_who_wait_are_told(
    engine: PrivateEngine,
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    replies: Listening,
) -> None:
    name, slow = make_container(app_image("1"), "api"), app_image("2", changes=[WAITS])
    three, four = app_image("3"), app_image("4")
    lookout = service.start(MonitorSeconds="1.5")
    first = service.send(slow, ReplyQueueUrl=replies.url, DeployTimeSeconds=60)
    lookout.wait_for("started", container=name)
    second = service.send(three, ReplyQueueUrl=replies.url)
    assert replies.read_progress(second)["Phase"] == "waiting"
    third = service.send(four, ReplyQueueUrl=replies.url)
    assert replies.wait_for(second)["Outcome"] == "superseded"
    replies.read_progress(third)
    let_go(engine, name)
    assert replies.wait_for(first)["Outcome"] == "deployed"
    assert replies.wait_for(third)["Outcome"] == "deployed"
    assert min(replies.gaps(third)) > 990, "also of one that has waited"


FORBIDDEN = [
    "http://169.254.169.254/latest/meta-data/iam",
    "http://169.254.169.254/123456789012/lookout-reply-1",
    "{endpoint}/210987654321/lookout-reply-1",
    "https://sqs.eu-west-1.amazonaws.com/123456789012/lookout-reply-1",
    "{server}/someone-elses",
    "{server}/lookout-reply-../{queue}",
    "{own}",
    "{dead}",
    "{results}",
    "file:///etc/passwd",
]


def test_no_reply_goes_anywhere_else_and_the_deploy_goes_on(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    sqs: LocalSqs,
    queue_line: FaultySqs,
    inspect: Inspect,
) -> None:
    name, image = make_container(app_image("1"), "api"), app_image("2")
    results = Listening(sqs)  # whose name would be allowed
    asked: list[Call] = []

    def note(call: Call) -> None:
        # At the start each queue is asked whether it may be sent to, by what none takes.
        if "DelaySeconds" not in call.parameters:
            asked.append(call)

    queue_line.choose = note
    lookout = service.start(ResultQueueUrl=results.url, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
    server, _, queue = service.queue_url.rpartition("/")
    places = {
        "endpoint": sqs.endpoint,
        "server": server,
        "queue": queue,
        "own": service.queue_url,
        "dead": service.dead_letters_url,
        "results": results.url,
    }
    for url in FORBIDDEN:
        message = service.send(image, ReplyQueueUrl=url.format(**places))
        lookout.wait_for("no reply will be sent", message_id=message)
        results.wait_for(message)
    service.wait_until_settled()
    assert {call.parameters["QueueUrl"] for call in asked} == {service.queue_url, results.url}
    sends = [call for call in asked if call.action == "SendMessage"]
    assert {call.parameters["QueueUrl"] for call in sends} == {results.url}
    assert inspect(name)["Config"]["Image"] == image


def test_a_result_that_strays_onto_the_queue_is_ignored_and_brings_no_other(
    service: Service, sqs: LocalSqs, results: Listening, replies: Listening
) -> None:
    lookout = service.start(ResultQueueUrl=results.url)
    stray = {"Type": "lookout.result", "ImageName": "acme/api", "ImageTag": "1", "ReplyQueueUrl": replies.url}
    message = sqs.send(service.queue_url, stray)
    lookout.wait_for("ignored", message_id=message)
    service.wait_until_settled()
    assert (results.read(), replies.read()) == ([], [])


@pytest.mark.parametrize("outcome", ["deployed", "unchanged"])
def test_killed_between_the_result_and_the_delete_the_same_is_told_again_and_nothing_done_twice(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    queue_line: FaultySqs,
    inspect: Inspect,
    results: Listening,
    replies: Listening,
    outcome: str,
) -> None:
    image = app_image("1")
    name = make_container(image, "api")
    if outcome == "deployed":
        image = app_image("2")
    queue_line.choose = lambda call: Fault.CUT_BEFORE if call.action == "DeleteMessage" else None
    way = {"ResultQueueUrl": results.url, "AWS_ENDPOINT_URL_SQS": queue_line.endpoint}
    lookout = service.start(pace={}, **way)
    message = service.send(image, ReplyQueueUrl=replies.url)
    first = replies.wait_for(message)
    lookout.kill()
    assert first["Outcome"] == outcome
    container = inspect(name)["Id"]
    queue_line.choose = lambda _: None
    service.start(pace={}, **way)
    second = replies.wait_for(message, count=2)
    service.wait_until_settled()
    same = ("Outcome", "WillRetry", "ImageName", "ImageTag", "MessageId")
    assert [first[key] for key in same] == [second[key] for key in same]
    for told in (*first["Containers"], *second["Containers"]):
        told.pop("DowntimeMs", None)
    assert second["Containers"] == first["Containers"]
    assert results.wait_for(message, count=2)["Outcome"] == outcome
    assert inspect(name)["Id"] == container


def test_a_reply_queue_that_is_gone_holds_up_nothing(
    app_image: AppImage, make_container: MakeContainer, service: Service, sqs: LocalSqs
) -> None:
    make_container(app_image("1"), "api")
    image = app_image("2")
    lookout = service.start()
    gone = f"{service.queue_url.rpartition('/')[0]}/lookout-reply-gone"
    message = service.send(image, ReplyQueueUrl=gone)
    lookout.wait_for("deployed", message_id=message)
    assert lookout.wait_for("result not sent", message_id=message)["level"] == "info"
    service.wait_until_settled()


def refuse_sends_to(url: str, fault: Fault) -> Callable[[Call], Fault | None]:
    return lambda call: fault if call.action == "SendMessage" and call.parameters["QueueUrl"] == url else None


def test_a_message_stays_until_its_result_could_be_sent(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    queue_line: FaultySqs,
    sqs: LocalSqs,
    results: Listening,
) -> None:
    make_container(app_image("1"), "api")
    image = app_image("2")
    queue_line.choose = refuse_sends_to(results.url, Fault.UNAVAILABLE)
    lookout = service.start(ResultQueueUrl=results.url, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
    message = service.send(image)
    lookout.wait_for("deployed", message_id=message)
    lookout.wait_for("result not sent", message_id=message)
    assert sum(sqs.count(service.queue_url)) == 1
    queue_line.choose = lambda _: None
    assert results.wait_for(message)["Outcome"] == "deployed"
    service.wait_until_settled()
    assert len(lookout.logged("deploying")) == 1


def test_what_must_not_come_again_goes_without_its_result(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    queue_line: FaultySqs,
    results: Listening,
    replies: Listening,
) -> None:
    """Else a Lookout that is started again would stop the service once more, for an image that is no good."""
    make_container(app_image("1"), "api")
    bad = app_image("2", changes=[SAYS])
    queue_line.choose = refuse_sends_to(results.url, Fault.UNAVAILABLE)
    lookout = service.start(ResultQueueUrl=results.url, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
    message = service.send(bad, ReplyQueueUrl=replies.url)
    lookout.wait_for("rolled_back", message_id=message)
    assert replies.wait_for(message)["Outcome"] == "rolled_back"
    assert lookout.wait_for("result not sent", message_id=message)["level"] == "error"
    service.wait_until_settled()
    [letter] = service.dead_letters()
    assert letter["MessageAttributes"]["MessageId"]["StringValue"] == message
    assert results.read() == []


def test_without_the_permission_to_send_results_the_log_says_what_to_add_and_deploys_go_on(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    sqs: LocalSqs,
    results: Listening,
    replies: Listening,
) -> None:
    make_container(app_image("1"), "api")
    image = app_image("2")
    message = service.send(image, ReplyQueueUrl=replies.url)
    with sqs.enforce_iam(policy(RECEIVER)) as environment:
        lookout = service.start(pace={}, ResultQueueUrl=results.url, **environment)
        lookout.wait_for("deployed", message_id=message)
        for url in (results.url, replies.url):
            denied = lookout.wait_for("result not sent", queue=url)
            assert denied["level"] == "error"
            assert "sqs:SendMessage" in denied["statement"]
        assert lookout.terminate(ENDED_WITHIN) == 0
    service.wait_until_settled()


def test_with_the_statement_of_the_readme_results_are_sent(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    sqs: LocalSqs,
    results: Listening,
    replies: Listening,
) -> None:
    make_container(app_image("1"), "api")
    image = app_image("2")
    message = service.send(image, ReplyQueueUrl=replies.url)
    with sqs.enforce_iam(policy(RECEIVER, REPLIES)) as environment:
        lookout = service.start(pace={}, ResultQueueUrl=results.url, **environment)
        lookout.wait_for("deployed", message_id=message)
        assert lookout.terminate(ENDED_WITHIN) == 0
    assert results.wait_for(message)["Outcome"] == replies.wait_for(message)["Outcome"] == "deployed"
    assert not lookout.logged("result not sent")


def test_queues_of_results_may_be_fifo(
    app_image: AppImage, make_container: MakeContainer, service: Service, sqs: LocalSqs
) -> None:
    make_container(app_image("1"), "api")
    image = app_image("2")
    results, replies = Listening(sqs, fifo=True, prefix="test-results-"), Listening(sqs, fifo=True)
    service.start(ResultQueueUrl=results.url, MonitorSeconds="1.5")
    message = service.send(image, ReplyQueueUrl=replies.url)
    assert results.wait_for(message)["Outcome"] == replies.wait_for(message)["Outcome"] == "deployed"
    assert len(replies.progress(message)) > 1
