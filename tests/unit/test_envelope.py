"""What SNS and EventBridge put around a body, or in its place."""

import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.loaders import create_loader
from tests.unit.bodies import DIGEST, body, complaint, event, notification, parse, push

from lookout.aws import dns_suffix
from lookout.model import DeployRequest, ImageName, ImageRef, Nothing

API_42 = ImageRef(ImageName("ghcr.io", "acme/api"), "42")
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
PUSHED = DeployRequest(ImageRef(ImageName(ECR, "acme/api"), "42"), DIGEST)


def test_an_sns_notification_is_unwrapped() -> None:
    assert parse(notification(body())) == DeployRequest(API_42, deploy_time=30)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("hello", "Message in the SNS notification is not JSON"),
        ("[]", "Message in the SNS notification is a list"),
        (..., "Message is missing"),
        ({"ImageName": "redis"}, "Message is an object"),
        (body(ImageTag=""), "ImageTag is empty"),
    ],
)
def test_what_is_wrong_inside_an_sns_notification_is_said(message: Any, said: str) -> None:
    assert complaint(notification(message)).startswith(said)


@pytest.mark.parametrize("inner", [body(), event(), '{"Type": "lookout.result"}'])
def test_sns_is_unwrapped_only_once(inner: str) -> None:
    said = complaint(notification(notification(inner)))
    assert said == "Message is an SNS notification in another; expected a request"


@pytest.mark.parametrize("wrap", [str, notification])
def test_a_subscription_that_waits_is_invalid_and_the_next_step_is_said(wrap: Any) -> None:
    waiting = {
        "Type": "SubscriptionConfirmation",
        "Token": "23364",
        "SubscribeURL": "https://x",
        "Message": "m",
    }
    said = complaint(wrap(json.dumps(waiting)))
    assert "an SNS subscription that waits for its confirmation" in said
    assert "ConfirmSubscription" in said
    assert "has ended" in complaint(wrap(json.dumps(waiting | {"Type": "UnsubscribeConfirmation"})))


@pytest.mark.parametrize("key", ["Type", "type", "TYPE"])
def test_a_result_that_strayed_onto_the_queue_asks_for_nothing(key: str) -> None:
    result = body(**{key: "lookout.result", "Outcome": "deployed"})
    assert isinstance(parse(result), Nothing)
    assert isinstance(parse(notification(result)), Nothing)


def test_a_push_to_ecr_deploys_what_was_pushed() -> None:
    assert parse(event()) == PUSHED
    assert parse(notification(event())) == PUSHED


def test_a_push_that_tells_no_digest_deploys_by_its_tag() -> None:
    assert parse(push(**{"image-digest": ...})) == replace(PUSHED, digest=None)


def test_the_order_of_keys_and_further_ones_do_not_matter() -> None:
    pushed = json.loads(push(further={"a": [1]}))
    backwards = dict(reversed(pushed.items())) | {"detail": dict(reversed(pushed["detail"].items()))}
    assert parse(json.dumps(backwards)) == PUSHED


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ({"image-tag": ...}, "a push to ECR without a tag"),
        ({"image-tag": ""}, "a push to ECR without a tag"),
        ({"action-type": "DELETE"}, "a DELETE in ECR, not a push"),
        ({"action-type": "DELETE", "image-tag": ...}, "a DELETE in ECR, not a push"),
        ({"action-type": "hunter2"}, "another action in ECR, not a push"),
        ({"result": "FAILURE"}, "a push to ECR that did not succeed"),
        ({"result": "hunter2"}, "a push to ECR that did not succeed"),
    ],
)
def test_what_else_is_done_to_an_image_asks_for_nothing(detail: dict[str, Any], reason: str) -> None:
    for wrap in (str, notification):
        parsed = parse(wrap(push(**detail)))
        assert isinstance(parsed, Nothing)
        assert parsed.reason.startswith(reason)


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        ("ECR Image Scan", "ECR Image Scan, not a push"),
        ("ECR Pull Through Cache Action", "ECR Pull Through Cache Action, not a push"),
        ("AWS API Call via CloudTrail", "another event of ECR, not a push"),
        ("hunter2", "another event of ECR, not a push"),
    ],
)
def test_other_events_of_ecr_ask_for_nothing(happened: str, reason: str) -> None:
    assert parse(event(**{"detail-type": happened}, detail={"scan-status": "COMPLETE"})) == Nothing(reason)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"account": "1234"}, "account is not an AWS account; expected 12 digits"),
        ({"account": "١٢٣٤٥٦٧٨٩٠١٢"}, "account is not an AWS account; expected 12 digits"),
        ({"account": 123456789012}, "account is a number; expected the 12 digits"),
        ({"account": ...}, "account is missing; expected the 12 digits"),
        ({"region": "evil.example/x"}, "region is not an AWS region; expected one such as eu-west-1"),
        ({"region": "eu-west-1\n"}, "region is not an AWS region"),
        ({"region": None}, "region is null; expected an AWS region"),
        ({"detail-type": ...}, "detail-type is missing; expected ECR Image Action"),
        ({"detail-type": 1}, "detail-type is a number; expected ECR Image Action"),
        ({"detail": ...}, "detail is missing; expected an object"),
        ({"detail": "PUSH"}, "detail is a string; expected an object"),
        ({"detail": {}}, "detail.action-type is missing; expected PUSH or DELETE"),
    ],
)
def test_an_event_of_another_shape_is_invalid_and_the_key_is_named(
    changed: dict[str, Any], said: str
) -> None:
    assert complaint(event(**changed)).startswith(said)


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ({"action-type": ["PUSH"]}, "detail.action-type is a list; expected PUSH or DELETE"),
        ({"result": ...}, "detail.result is missing; expected SUCCESS or FAILURE"),
        ({"repository-name": ["a"]}, "detail.repository-name is a list; expected the name of a repository"),
        ({"repository-name": ...}, "detail.repository-name is missing; expected the name of a repository"),
        ({"repository-name": ""}, "detail.repository-name is not a repository name"),
        ({"repository-name": "Acme"}, "detail.repository-name has upper-case letters"),
        ({"repository-name": "a:1"}, "detail.repository-name has a tag (after ':')"),
        ({"repository-name": "a" * 256}, "detail.repository-name is longer than 255 characters"),
        ({"image-tag": None}, "detail.image-tag is null; expected the tag"),
        ({"image-tag": "a b"}, "detail.image-tag has other characters than a tag"),
        ({"image-digest": None}, "detail.image-digest is null; expected the digest"),
        ({"image-digest": "sha256:1"}, "detail.image-digest is not a digest; expected sha256: and 64"),
    ],
)
def test_a_push_of_another_shape_is_invalid_and_the_key_is_named_by_its_path(
    detail: dict[str, Any], said: str
) -> None:
    assert complaint(push(**detail)).startswith(said)
    assert complaint(notification(push(**detail))).startswith(said)


def test_a_key_of_an_event_that_is_given_twice_is_refused() -> None:
    assert complaint(event().replace('"region"', '"region": "us-east-1", "region"')) == (
        "region is given twice; expected it once"
    )
    assert complaint(event().replace('"image-tag"', '"image-tag": "41", "image-tag"')) == (
        "detail.image-tag is given twice; expected it once"
    )


PARTITIONS = create_loader().load_data("partitions")["partitions"]


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda partition: str(partition["id"]))
def test_a_registry_is_under_the_domain_of_its_partition(partition: dict[str, Any]) -> None:
    regions = [region for region in partition["regions"] if not region.endswith("-global")]
    suffix = partition["outputs"]["dnsSuffix"]
    assert {region: dns_suffix(region) for region in regions} == dict.fromkeys(regions, suffix)
    for region in regions:
        parsed = parse(event(region=region))
        assert isinstance(parsed, DeployRequest)
        assert parsed.image.name.domain == f"123456789012.dkr.ecr.{region}.{suffix}"
