"""What a message body asks for, and what is said about one that asks for nothing."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookout.errors import InvalidBody
from lookout.model import DeployRequest, ImageName, ImageRef
from lookout.request import Nothing, parse

GOOD = {"ImageName": "ghcr.io/acme/api", "ImageTag": "42", "DeployTimeSeconds": "30"}
API_42 = ImageRef(ImageName("ghcr.io", "acme/api"), "42")


def body(**changes: Any) -> str:
    return json.dumps({k: v for k, v in (GOOD | changes).items() if v is not ...})


def test_the_body_that_ci_sends_today_is_understood() -> None:
    assert parse(body()) == DeployRequest(API_42, deploy_time=30)


@pytest.mark.parametrize(
    ("given_", "seconds"), [("30", 30), (30, 30), (30.0, 30), (..., None), ("28800", 28800)]
)
def test_deploy_time_may_be_a_number_a_decimal_string_or_absent(given_: Any, seconds: int | None) -> None:
    request = parse(body(DeployTimeSeconds=given_))
    assert isinstance(request, DeployRequest)
    assert request.deploy_time == seconds


@pytest.mark.parametrize(
    "wrong",
    ["abc", "-1", -1, 0, "0", "", " 30", "3.5", 3.5, 28801, "28801", True, None, [], {}, "٣٠", 10**400],
)
def test_any_other_deploy_time_is_invalid_and_the_key_is_named(wrong: Any) -> None:
    with pytest.raises(InvalidBody, match=r"^DeployTimeSeconds is .*expected whole seconds from 1 to 28800"):
        parse(body(DeployTimeSeconds=wrong))


def test_keys_are_matched_without_regard_to_case_and_unknown_ones_ignored() -> None:
    text = '{"imagename": "ghcr.io/acme/api", "IMAGETAG": "42", "Colour": "blue", "COLOUR": 1}'
    assert parse(text) == DeployRequest(API_42)


def test_a_key_given_twice_is_refused_rather_than_guessed() -> None:
    with pytest.raises(InvalidBody, match="ImageName is given twice"):
        parse('{"ImageName": "a", "ImageName": "b", "ImageTag": "7"}')
    with pytest.raises(InvalidBody, match="ImageTag is given twice"):
        parse('{"ImageName": "redis", "ImageTag": "7", "imagetag": "8"}')


def test_an_sns_notification_is_unwrapped() -> None:
    envelope = {"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:x:1:t", "Message": body()}
    assert parse(json.dumps(envelope)) == DeployRequest(API_42, deploy_time=30)


def test_garbage_inside_an_sns_notification_is_said_to_be_there() -> None:
    with pytest.raises(InvalidBody, match="Message in the SNS notification is not JSON"):
        parse('{"Type": "Notification", "Message": "hello"}')


def test_a_result_that_strayed_onto_the_queue_asks_for_nothing() -> None:
    assert isinstance(parse('{"Type": "lookout.result", "Outcome": "deployed"}'), Nothing)


def test_a_digest_and_a_host_id_are_carried() -> None:
    digest = "sha256:" + "0a" * 32
    assert parse(body(ImageDigest=digest, HostId="web-1")) == DeployRequest(API_42, digest, 30, "web-1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "the body is not JSON", id="empty"),
        pytest.param("redeploy please", "the body is not JSON", id="prose"),
        pytest.param("[]", "the body is a list", id="list"),
        pytest.param("null", "the body is null", id="null"),
        pytest.param("{}", "ImageName is missing", id="no keys"),
        pytest.param("[" * 1_000_000, "the body is not JSON", id="a million brackets"),
        pytest.param("x" * 200_000, "the body is not JSON", id="200 kB of garbage"),
        pytest.param('{"ImageTag": NaN}', "the body is not JSON", id="NaN is no JSON"),
        pytest.param(body(ImageTag=...), "ImageTag is missing", id="no tag"),
        pytest.param(body(ImageTag=42), "ImageTag is a number", id="tag as a number"),
        pytest.param(body(ImageTag=""), "ImageTag is ''", id="empty tag"),
        pytest.param(body(ImageTag="a/b"), "ImageTag is 'a/b'", id="slash in the tag"),
        pytest.param(body(ImageTag="a" * 129), "129|131 characters", id="long tag"),
        pytest.param(body(ImageName="redis:7"), "without tag or digest", id="tag in the name"),
        pytest.param(body(ImageName="127.0.0.1:5000/api:7"), "without tag", id="port and tag in the name"),
        pytest.param(body(ImageName="redis@sha256:" + "a" * 64), "without tag", id="digest in the name"),
        pytest.param(body(ImageName="a" * 64), "ImageName is", id="an image id"),
        pytest.param(body(ImageName="Acme"), "ImageName is 'Acme'", id="upper case"),
        pytest.param(body(ImageName="redis\n"), r"ImageName is 'redis\\n'", id="line feed"),
        pytest.param(body(ImageName="a\x00b"), r"ImageName is 'a\\x00b'", id="NUL"),
        pytest.param(body(ImageName="\ud800"), r"ImageName is '\\ud800'", id="half a character"),
        pytest.param(body(ImageName=None), "ImageName is null", id="null name"),
        pytest.param(body(ImageName="a" * 200_000), "200002 characters", id="200 kB name"),
        pytest.param(body(ImageDigest="sha256:1"), "ImageDigest is 'sha256:1'", id="short digest"),
        pytest.param(body(HostId=["a"]), "HostId is a list", id="two hosts"),
    ],
)
def test_an_invalid_body_gets_one_short_line_that_names_the_key(text: str, said: str) -> None:
    with pytest.raises(InvalidBody, match=said) as caught:
        parse(text)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KEYS = st.sampled_from(
    ["ImageName", "imagetag", "ImageDigest", "DEPLOYTIMESECONDS", "HostId", "Type", "Message"]
)
ALMOST = st.dictionaries(KEYS, JSON | st.sampled_from(["redis", "7", "Notification", "{}"])).map(json.dumps)


@settings(max_examples=500, deadline=None)
@given(st.text() | JSON.map(json.dumps) | ALMOST)
def test_no_text_raises_anything_but_invalid_body(text: str) -> None:
    try:
        parsed: object = parse(text)
    except InvalidBody as exc:
        parsed = exc
    assert isinstance(parsed, DeployRequest | Nothing | InvalidBody)
    assert "\n" not in str(parsed)
