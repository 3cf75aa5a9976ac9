"""What a message body asks for, and what is said about one that asks for nothing."""

import json
import os
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit import hostile
from tests.unit.bodies import ACCOUNT, ENDPOINT, QUEUES, SECRET, body, complaint, event, notification, parse

from lookout import request
from lookout.model import LONGEST_DEPLOY_TIME, DeployRequest, ImageName, ImageRef, Invalid, is_digest, is_tag

API_42 = ImageRef(ImageName("ghcr.io", "acme/api"), "42")


def test_the_body_that_ci_sends_today_is_understood() -> None:
    assert parse(body()) == DeployRequest(API_42, deploy_time=30)


@pytest.mark.parametrize(
    ("given_", "seconds"), [("30", 30), (30, 30), (30.0, 30), (..., None), (None, None), ("28800", 28800)]
)
def test_deploy_time_may_be_a_number_a_decimal_string_or_absent(given_: Any, seconds: int | None) -> None:
    parsed = parse(body(DeployTimeSeconds=given_))
    assert isinstance(parsed, DeployRequest)
    assert parsed.deploy_time == seconds


@pytest.mark.parametrize(
    "wrong",
    ["abc", "-1", -1, 0, "0", "", " 30", "3.5", 3.5, 28801, "28801", True, [], {}, "٣٠", 10**400],
)
def test_any_other_deploy_time_is_invalid_and_the_key_is_named(wrong: Any) -> None:
    said = complaint(body(DeployTimeSeconds=wrong))
    assert said.startswith("DeployTimeSeconds is ")
    assert said.endswith("; expected whole seconds from 1 to 28800")


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("soon", "is a string that is not a whole number"),
        ("28801", "is a string with a number out of range"),
        ("-1", "is a string with a number out of range"),
        (28801, "is 28801"),
        (1.5, "is 1.5"),
        (True, "is true or false"),
        ([], "is a list"),
    ],
)
def test_a_wrong_deploy_time_is_shown_only_if_it_is_a_number(wrong: Any, fault: str) -> None:
    expected = "expected whole seconds from 1 to 28800"
    assert complaint(body(DeployTimeSeconds=wrong)) == f"DeployTimeSeconds {fault}; {expected}"


def test_keys_are_matched_without_regard_to_case_and_unknown_ones_ignored() -> None:
    text = '{"imagename": "ghcr.io/acme/api", "IMAGETAG": "42", "Colour": "blue", "COLOUR": 1}'
    assert parse(text) == DeployRequest(API_42)


def test_a_key_given_twice_is_refused_rather_than_guessed() -> None:
    assert "ImageName is given twice" in complaint('{"ImageName": "a", "ImageName": "b", "ImageTag": "7"}')
    assert "ImageTag is given twice" in complaint('{"ImageName": "redis", "ImageTag": "7", "imagetag": "8"}')
    nested = '{"ImageName": "redis", "ImageTag": "7", "Note": {"ImageTag": "8", "imagetag": "9"}}'
    assert parse(nested) == DeployRequest(ImageRef(ImageName.parse("redis"), "7"))


def test_a_digest_and_a_host_id_are_carried() -> None:
    digest = "sha256:" + "0a" * 32
    assert parse(body(ImageDigest=digest, HostId="web-1")) == DeployRequest(API_42, digest, 30, "web-1")
    assert parse(body(HostId=None)) == DeployRequest(API_42, None, 30, None)


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        (f"{ACCOUNT}/lookout-reply-7", "lookout-reply-7"),
        (f"{ACCOUNT}/lookout-reply-{'a' * 66}", f"lookout-reply-{'a' * 66}"),
        (f"{ACCOUNT}/lookout-reply-a_B.fifo", "lookout-reply-a_B.fifo"),
        (f"{ACCOUNT}/lookout-reply-7/", "lookout-reply-7"),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/lookout-reply-7", "lookout-reply-7"),
        (f"{ACCOUNT.replace('amazonaws.com', 'AMAZONAWS.com:443')}/lookout-reply-7", "lookout-reply-7"),
    ],
)
def test_a_reply_queue_is_spelled_like_the_queue_of_the_requests(given_: str, name: str) -> None:
    parsed = parse(body(replyQueueURL=given_))
    assert isinstance(parsed, DeployRequest)
    assert parsed.reply_queue_url == f"{ACCOUNT}/{name}"


@pytest.mark.parametrize(
    ("queue", "given_", "read"),
    [
        ("http://sqs:9324/queue/q", "http://sqs:9324/queue/lookout-reply-1", "http://sqs:9324/queue/"),
        ("http://sqs:9324/queue/q/", "http://sqs:9324/queue/lookout-reply-1", "http://sqs:9324/queue/"),
        ("http://sqs/q", "http://sqs:80/lookout-reply-1", "http://sqs/"),
        ("https://sqs:443/q", "https://sqs/lookout-reply-1", "https://sqs:443/"),
    ],
)
def test_a_reply_queue_may_be_on_any_server_that_the_queue_is_on(queue: str, given_: str, read: str) -> None:
    parsed = request.parse(body(ReplyQueueUrl=given_), queues=(queue,))
    assert isinstance(parsed, DeployRequest)
    assert parsed.reply_queue_url == f"{read}lookout-reply-1"


@pytest.mark.parametrize(
    ("queue", "wrong"),
    [
        ("http://sqs:9324/queue/q", "http://sqs:9325/queue/lookout-reply-1"),
        ("http://sqs:9324/queue/q", "http://sqs/queue/lookout-reply-1"),
        ("http://sqs/q", "http://sqs:0/lookout-reply-1"),
        ("https://sqs/q", "http://sqs:443/lookout-reply-1"),
    ],
)
def test_a_reply_queue_behind_another_port_is_on_another_endpoint(queue: str, wrong: str) -> None:
    parsed = request.parse(body(ReplyQueueUrl=wrong), queues=(queue,))
    assert isinstance(parsed, DeployRequest)
    assert parsed.reply_queue_url is None
    assert "on another endpoint than SqsQueueUrl" in parsed.reply_fault


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("", "is on another endpoint"),
        ("results", "is on another endpoint"),
        ("https://[", "is not a URL"),
        (f"{ENDPOINT}:port/123456789012/lookout-reply-7", "is not a URL"),
        (f"{ENDPOINT}.evil.example/123456789012/lookout-reply-7", "is on another endpoint"),
        ("https://sqs.eu-west-2.amazonaws.com/123456789012/lookout-reply-7", "is on another endpoint"),
        (f"{ACCOUNT.replace('https', 'http')}/lookout-reply-7", "is on another endpoint"),
        (f"{ENDPOINT}:8443/123456789012/lookout-reply-7", "is on another endpoint"),
        (f"{ENDPOINT}/210987654321/lookout-reply-7", "is of another account"),
        (f"{ENDPOINT}/lookout-reply-7", "is of another account"),
        (f"{ACCOUNT}/lookout-reply-7/lookout-reply-7", "is of another account"),
        (f"{ACCOUNT}/../210987654321/lookout-reply-7", "is of another account"),
        (f"{ACCOUNT}//lookout-reply-7", "is of another account"),
        (f"{ACCOUNT}/deploys", "does not begin with lookout-reply-"),
        (f"{ACCOUNT}/Lookout-Reply-7", "does not begin with lookout-reply-"),
        (f"{ACCOUNT}/lookout-reply-%37", "as none can be named"),
        (f"{ACCOUNT}/lookout-reply-7.fif", "as none can be named"),
        (f"{ACCOUNT}/lookout-reply-é", "as none can be named"),
        (f"{ACCOUNT}/lookout-reply-{'a' * 67}", "as none can be named"),
        (f"{ACCOUNT}/lookout-reply-{'a' * 1024}", "is longer than 1024 characters"),
        (f"{ACCOUNT}/lookout-reply-7\n", "has white space or control characters"),
        (f"{ACCOUNT}/look\tout-reply-7", "has white space or control characters"),
        (f" {ACCOUNT}/lookout-reply-7", "has white space or control characters"),
        (f"{ACCOUNT}/lookout-reply-7?", "has a query or a fragment"),
        (f"{ACCOUNT}/lookout-reply-7?Action=DeleteQueue", "has a query or a fragment"),
        (f"{ACCOUNT}/lookout-reply-7#", "has a query or a fragment"),
        (f"{ACCOUNT.replace('//', '//me:pw@')}/lookout-reply-7", "has credentials ('@')"),
        (f"https://sqs.eu-west-1.amazonaws.com\\@evil.example/{'1' * 12}/lookout-reply-7", "has credentials"),
        (QUEUES[1], "is one of Lookout's own queues"),
        (QUEUES[1].replace("com/", "com:443/"), "is one of Lookout's own queues"),
        (f"{QUEUES[1]}/", "is one of Lookout's own queues"),
    ],
)
def test_a_reply_goes_nowhere_else_than_to_a_reply_queue_and_the_deploy_goes_on(
    wrong: str, fault: str
) -> None:
    parsed = parse(body(ReplyQueueUrl=wrong))
    assert isinstance(parsed, DeployRequest)
    said = parsed.reply_fault
    assert parsed == DeployRequest(API_42, deploy_time=30, reply_fault=said)
    assert said.startswith("ReplyQueueUrl ")
    assert fault in said
    assert said.endswith(f"; expected {ACCOUNT}/lookout-reply-NAME, none of Lookout's own queues")
    assert_tellable(said)


@pytest.mark.parametrize(("wrong", "fault"), [(7, "is a number"), (None, "is null"), (["a"], "is a list")])
def test_what_is_no_string_names_no_queue_for_replies(wrong: Any, fault: str) -> None:
    assert complaint(body(ReplyQueueUrl=wrong)).startswith(f"ReplyQueueUrl {fault}; expected ")


def test_a_queue_of_lookout_is_none_for_replies_by_whatever_endpoint_it_is_named() -> None:
    by_its_old_name = "https://eu-west-1.queue.amazonaws.com/123456789012/lookout-reply-7"
    parsed = request.parse(
        body(ReplyQueueUrl=f"{ACCOUNT}/lookout-reply-7"), queues=(f"{ACCOUNT}/deploys", by_its_old_name)
    )
    assert isinstance(parsed, DeployRequest)
    assert parsed.reply_queue_url is None
    assert "is one of Lookout's own queues" in parsed.reply_fault


def test_a_number_of_any_length_in_an_unknown_key_is_ignored() -> None:
    assert parse(f'{body()[:-1]}, "Build": {"9" * 100_000}}}') == DeployRequest(API_42, deploy_time=30)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "the body is not JSON", id="empty"),
        pytest.param("redeploy please", "the body is not JSON", id="prose"),
        pytest.param("[]", "the body is a list", id="list"),
        pytest.param("null", "the body is null", id="null"),
        pytest.param("{}", "ImageName is missing", id="no keys"),
        pytest.param('{"ImageTag": NaN}', "the body is not JSON", id="NaN is no JSON"),
        pytest.param(body(ImageTag=...), "ImageTag is missing", id="no tag"),
        pytest.param(body(ImageTag=42), "ImageTag is a number", id="tag as a number"),
        pytest.param(body(ImageTag=""), "ImageTag is empty", id="empty tag"),
        pytest.param(body(ImageTag="a/b"), "ImageTag has other characters", id="slash in the tag"),
        pytest.param(body(ImageTag="-a"), "ImageTag begins with '.' or '-'", id="dash before the tag"),
        pytest.param(body(ImageTag="a" * 129), "ImageTag is longer than 128 characters", id="long tag"),
        pytest.param(body(ImageName=""), "ImageName is empty", id="empty name"),
        pytest.param(body(ImageName="redis:7"), "has a tag (after ':')", id="tag in the name"),
        pytest.param(body(ImageName="[::1]:5000/api:7"), "has a tag (after ':')", id="port and tag"),
        pytest.param(body(ImageName="redis@sha256:" + "a" * 64), "has a digest (after '@')", id="digest"),
        pytest.param(body(ImageName="redis:7@sha256:1"), "has a digest (after '@')", id="tag and digest"),
        pytest.param(body(ImageName="me:pw@ghcr.io/api"), "has credentials ('@')", id="credentials"),
        pytest.param(body(ImageName="https://ghcr.io/api"), "begins with a scheme such as", id="scheme"),
        pytest.param(body(ImageName="https://me:pw@ghcr.io/api"), "begins with a scheme", id="whole URL"),
        pytest.param(body(ImageName="a" * 64), "ImageName is an image id", id="an image id"),
        pytest.param(body(ImageName="Acme"), "ImageName has upper-case letters", id="upper case"),
        pytest.param(body(ImageName="GHCR.io/Acme"), "ImageName has upper-case letters", id="in the path"),
        pytest.param(body(ImageName="GHCR.io/a..b"), "ImageName is not a repository name", id="two dots"),
        pytest.param(body(ImageName="redis\n"), "has white space or control characters", id="line feed"),
        pytest.param(body(ImageName="a b"), "has white space or control characters", id="blank"),
        pytest.param(body(ImageName="a\x00b"), "has white space or control characters", id="NUL"),
        pytest.param(body(ImageName="\ud800"), "has white space or control", id="half a character"),
        pytest.param(body(ImageName=None), "ImageName is null", id="null name"),
        pytest.param(body(ImageName=f"ghcr.io/{'A' * 247}"), "has upper-case letters", id="no longer name"),
        pytest.param(body(ImageName="a" * 256), "is longer than 255 characters", id="long name"),
        pytest.param(body(ImageDigest="sha256:1"), "ImageDigest is not a digest", id="short digest"),
        pytest.param(body(ImageDigest=None), "ImageDigest is null", id="null digest"),
        pytest.param(body(HostId=["a"]), "HostId is a list", id="two hosts"),
        pytest.param(body(HostId=""), "HostId is empty", id="no host"),
        pytest.param(body(HostId="a\x85b"), "HostId has characters that cannot be", id="control in a host"),
        pytest.param(body(HostId="a" * 256), "HostId is longer than 255 characters", id="long host"),
    ],
)
def test_an_invalid_body_gets_one_short_line_that_names_the_key(text: str, said: str) -> None:
    assert said in complaint(text)
    assert_tellable(complaint(text))


@pytest.mark.parametrize(
    "key", ["ImageName", "ImageTag", "ImageDigest", "DeployTimeSeconds", "HostId", "ReplyQueueUrl"]
)
@pytest.mark.parametrize(
    "wrong",
    [
        f"{SECRET}\n",
        f"https://me:{SECRET}@ghcr.io/acme/api" + "/" * 256,
        f"me:{SECRET}@ghcr.io/\x00",
        [SECRET],
        {SECRET: SECRET},
    ],
)
def test_no_value_of_the_body_is_quoted(key: str, wrong: Any) -> None:
    text = body(**{key: wrong, SECRET: SECRET})
    said = fault_of(text) + fault_of(notification(text)) + complaint(text[:-1])
    assert key in said
    assert SECRET not in said


def fault_of(text: str) -> str:
    """What is said of the body, whether it is invalid or is deployed without a reply."""
    parsed = parse(text)
    if isinstance(parsed, Invalid):
        return parsed.reason
    assert isinstance(parsed, DeployRequest)
    assert parsed.reply_fault
    return parsed.reply_fault


def assert_tellable(said: str) -> None:
    assert said.isprintable()
    assert said.isascii()
    assert len(said) < 300


MEGABYTE = 2**20


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * MEGABYTE, id="garbage"),
        pytest.param("[" * MEGABYTE, id="brackets"),
        pytest.param('{"ImageName":' * (MEGABYTE // 13), id="objects"),
        pytest.param('"' * MEGABYTE, id="quotes"),
        pytest.param("9" * MEGABYTE, id="a number"),
        pytest.param(f'{{"DeployTimeSeconds": {"9" * MEGABYTE}}}', id="seconds"),
        pytest.param(body(DeployTimeSeconds="9" * MEGABYTE), id="seconds in a string"),
        *(
            pytest.param(body(**{key: (unit * MEGABYTE)[:MEGABYTE]}), id=f"{key} of {unit}")
            for key in ("ImageName", "ImageTag", "ImageDigest", "ReplyQueueUrl")
            for unit in ("a", "a/", "a.", "a-", "-", "A@", "a:", "/", "://", "\ud800")
        ),
        pytest.param(body(ImageTag="") * (MEGABYTE // 80), id="bodies in a row"),
        pytest.param(event(region="a-" * (MEGABYTE // 2)), id="a region"),
        pytest.param(event(account="1" * MEGABYTE), id="an account"),
        pytest.param(notification('"' * (MEGABYTE // 2)), id="escapes in SNS"),
        pytest.param(notification("[" * MEGABYTE), id="brackets in SNS"),
        pytest.param(
            '{"ImageTag": 1' + ', "ImageTag": 1' * (MEGABYTE // 15) + "}", id="a key again and again"
        ),
    ],
)
@pytest.mark.timeout(30)
def test_a_megabyte_is_refused_without_delay(text: str) -> None:
    assert_tellable(fault_of(text))


BODIES = int(os.environ.get("LOOKOUT_TEST_FUZZ", "2000"))  # made up in all, a quarter by each test
fuzz = settings(max_examples=max(1, BODIES // 4), deadline=None, suppress_health_check=[HealthCheck.too_slow])
patient = pytest.mark.timeout(180 + BODIES // 50)


@patient
@fuzz
@given(st.text() | st.text().map(json.dumps) | st.text().map(notification))
def test_no_text_does_harm(text: str) -> None:
    assert_harmless(text)


@patient
@fuzz
@given(hostile.JSON)
def test_no_json_does_harm(value: Any) -> None:
    assert_harmless(json.dumps(value))


@patient
@fuzz
@given(hostile.NEARLY_RIGHT)
def test_no_value_of_any_key_does_harm(text: str) -> None:
    assert_harmless(text)


@patient
@fuzz
@given(hostile.damaged())
def test_no_damage_to_a_good_body_does_harm(text: str) -> None:
    assert_harmless(text)


def assert_harmless(text: str) -> None:
    """It is a request whose every part is valid, or what is said of it is fit for a log."""
    parsed = parse(text)
    if isinstance(parsed, DeployRequest):
        assert_valid(parsed)
    else:
        assert_tellable(parsed.reason)
        assert SECRET not in parsed.reason.lower()


def assert_valid(parsed: DeployRequest) -> None:
    assert ImageName.parse(str(parsed.image.name)) == parsed.image.name
    assert is_tag(parsed.image.tag)
    assert parsed.digest is None or is_digest(parsed.digest)
    assert parsed.deploy_time is None or parsed.deploy_time in range(1, LONGEST_DEPLOY_TIME + 1)
    assert parsed.host_id is None or (parsed.host_id.isprintable() and 1 <= len(parsed.host_id) <= 255)
    reply = parsed.reply_queue_url
    assert reply is None or (re.fullmatch(rf"{ACCOUNT}/lookout-reply-[\w.-]{{0,66}}", reply, re.ASCII))
    assert reply not in QUEUES
    assert_tellable(parsed.reply_fault)
