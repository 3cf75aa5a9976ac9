"""What SNS puts around a body."""

import json
from typing import Any

import pytest
from tests.unit.bodies import body, complaint, notification

from lookout.model import DeployRequest, ImageName, ImageRef, Nothing
from lookout.request import parse

API_42 = ImageRef(ImageName("ghcr.io", "acme/api"), "42")


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


@pytest.mark.parametrize("inner", [body(), '{"Type": "lookout.result"}'])
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
