"""What is sent, and what is made of the answers."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import bodies

from lookout import sender
from lookout.model import LONGEST_DEPLOY_TIME, DeployRequest, ImageName, ImageRef, Outcome
from lookout.reply_queue import Answer
from lookout.request import parse
from lookout.result import Result

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/deploys"
REPLIES = "https://sqs.eu-west-1.amazonaws.com/123456789012/lookout-reply-1"
REQUEST = DeployRequest(ImageRef(ImageName.parse("ghcr.io/acme/api"), "2"))
RESULT = Result("m-1")


class Told:
    """Notes what a screen is told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, object]] = []

    def sent(self, message_id: str) -> None:
        self.all.append(("sent", message_id))

    def progress(self, result: Result) -> None:
        self.all.append(("progress", result.percent))

    def will_retry(self, result: Result) -> None:
        self.all.append(("will retry", result.error))

    def trouble(self, text: str) -> None:
        self.all.append(("trouble", text))


def progress(sent: int, percent: int) -> Answer:
    return Answer(sent, replace(RESULT, percent=percent))


def result(
    sent: int, outcome: Outcome = Outcome.FAILED, *, error: str = "", will_retry: bool = True
) -> Answer:
    return Answer(sent, replace(RESULT, outcome=outcome, error=error, will_retry=will_retry))


@given(
    name=st.sampled_from(["redis", "acme/api", "ghcr.io/acme/api", "127.0.0.1:5000/a/b", "localhost/a"]),
    digest=st.none() | st.just(f"sha256:{'0' * 64}"),
    deploy_time=st.none() | st.integers(1, LONGEST_DEPLOY_TIME),
    host_id=st.none() | st.text(min_size=1, max_size=255).filter(str.isprintable),
    replies=st.none() | st.just(REPLIES),
)
def test_what_is_sent_is_read_as_what_was_meant(
    name: str, digest: str | None, deploy_time: int | None, host_id: str | None, replies: str | None
) -> None:
    request = DeployRequest(ImageRef(ImageName.parse(name), "1"), digest, deploy_time, host_id, replies)
    assert parse(sender.body(request), queues=[QUEUE]) == request
    assert sender.fault(request, QUEUE) == ""


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"digest": "sha256:A"}, "ImageDigest"),
        ({"deploy_time": 0}, "DeployTimeSeconds"),
        ({"host_id": ""}, "HostId"),
        ({"reply_queue_url": QUEUE}, "ReplyQueueUrl"),
        ({"reply_queue_url": REPLIES.replace("1234", "4321")}, "ReplyQueueUrl"),
        ({"reply_queue_url": REPLIES.replace("eu-", "us-")}, "ReplyQueueUrl"),
    ],
)
def test_what_would_be_refused_is_named_by_its_key(changes: dict[str, object], key: str) -> None:
    assert sender.fault(replace(REQUEST, **changes), QUEUE).startswith(f"{key} ")  # type: ignore[arg-type]


def test_the_message_says_no_more_than_was_asked() -> None:
    assert json.loads(sender.body(REQUEST)) == {"ImageName": "ghcr.io/acme/api", "ImageTag": "2"}
    assert isinstance(bodies.parse(sender.body(REQUEST)), DeployRequest)


def test_a_group_is_the_image_and_never_longer_than_sqs_allows() -> None:
    assert sender._group_id("docker.io/library/redis") == "docker.io/library/redis"
    long = [f"ghcr.io/{'a' * 200}/{name}" for name in "ab"]
    groups = {sender._group_id(name) for name in long}
    assert len(groups) == 2
    assert all(len(group) <= 128 for group in groups)


def test_the_first_result_is_the_last_word() -> None:
    watch = sender.Watch(Told(), for_retries=False)
    assert not watch.hear(progress(1, 10))
    assert watch.hear(result(2, error="no registry"))
    assert watch.result
    assert watch.result.error == "no registry"


def test_progress_that_comes_late_is_not_shown() -> None:
    told = Told()
    watch = sender.Watch(told, for_retries=True)
    for answer in (progress(1, 10), progress(3, 30), progress(2, 20), result(5, error="a"), progress(4, 40)):
        assert not watch.hear(answer)
    assert told.all == [("progress", 10), ("progress", 30), ("will retry", "a")]
    assert watch.progress
    assert watch.progress.percent == 30


def test_a_result_counts_although_progress_that_was_sent_later_has_come_before() -> None:
    watch = sender.Watch(Told(), for_retries=False)
    watch.hear(progress(9, 10))
    assert watch.hear(result(5))


def test_each_failure_is_shown_once_and_the_newest_counts() -> None:
    told = Told()
    watch = sender.Watch(told, for_retries=True)
    for answer in (result(2, error="b"), result(2, error="b"), result(3, error="b"), result(1, error="a")):
        assert not watch.hear(answer)
    assert told.all == [("will retry", "b")]
    assert watch.result
    assert watch.result.error == "b"
    assert watch.hear(result(4, Outcome.DEPLOYED, will_retry=False))
    assert watch.result.outcome is Outcome.DEPLOYED


def test_what_will_not_be_tried_again_ends_the_wait_for_retries() -> None:
    watch = sender.Watch(Told(), for_retries=True)
    assert watch.hear(result(1, Outcome.ROLLED_BACK, will_retry=False))
