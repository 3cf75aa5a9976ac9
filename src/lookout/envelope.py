"""What SNS and EventBridge put around a body, or in its place, is taken off."""

import re

from lookout import result
from lookout.aws import dns_suffix
from lookout.body import Body
from lookout.errors import InvalidBody
from lookout.model import Nothing

_NOTIFICATION = "Notification"
_IMAGE_ACTION = "ECR Image Action"
# What else comes from ECR, besides API calls by way of CloudTrail.
_OTHER_EVENTS = (
    "ECR Image Scan",
    "ECR Replication Action",
    "ECR Pull Through Cache Action",
    "ECR Scan Resource Change",
    "ECR Artifact Action",
    "ECR Referrer Action",
)
_EVENT_KEYS = {
    "ImageName": "detail.repository-name",
    "ImageTag": "detail.image-tag",
    "ImageDigest": "detail.image-digest",
}
_ACCOUNT = re.compile(r"[0-9]{12}")
_REGION = re.compile(r"[a-z]{2,8}(?:-[a-z]{1,16}){1,3}-[0-9]{1,2}")


def unwrap(text: str) -> Body | Nothing:
    """The body with Lookout's own keys, or why there is nothing to do; raises InvalidBody."""
    body = Body.parse(text, "the body")
    if body.get("Type") == _NOTIFICATION:
        body = _notified(body)
    match body.get("Type"):
        case result.TYPE:
            return Nothing(
                "a result of Lookout, not a request; check who sends to this queue", is_result=True
            )
        case "SubscriptionConfirmation":
            raise InvalidBody(
                "the body is an SNS subscription that waits for its confirmation; expected a request: "
                "call ConfirmSubscription with its Token, or let the owner of the queue subscribe it"
            )
        case "UnsubscribeConfirmation":
            raise InvalidBody(
                "the body says that an SNS subscription of this queue has ended; expected a request"
            )
    return _of_ecr(body) if body.get("source") == "aws.ecr" else body


def _notified(notification: Body) -> Body:
    """What SNS was asked to deliver; it wraps a message once, where the delivery is not raw."""
    text = notification.text("Message", "a string of JSON, as SNS puts it there")
    body = Body.parse(text, "Message in the SNS notification")
    if body.get("Type") == _NOTIFICATION:
        raise notification.wrong("Message", "is an SNS notification in another", "a request")
    return body


def _of_ecr(event: Body) -> Body | Nothing:
    """The request that a push to ECR stands for."""
    happened = event.text("detail-type", _IMAGE_ACTION)
    if happened != _IMAGE_ACTION:
        return Nothing(f"{happened if happened in _OTHER_EVENTS else 'another event of ECR'}, not a push")
    detail = event.part("detail", "an object with action-type, result, repository-name and so on")
    if reason := _no_deploy(detail):
        return Nothing(reason)
    asked = {
        "imagename": f"{_registry(event)}/{detail.text('repository-name', 'the name of a repository')}",
        "imagetag": detail.text("image-tag", "the tag that was pushed"),
    }
    if "image-digest" in detail:
        asked["imagedigest"] = detail.text("image-digest", "the digest that was pushed")
    return Body(asked, called=lambda key: _EVENT_KEYS.get(key, key))


def _no_deploy(detail: Body) -> str:
    """Why an action on an image asks for no deploy; empty if it does."""
    action = detail.text("action-type", "PUSH or DELETE")
    result = detail.text("result", "SUCCESS or FAILURE")
    if action != "PUSH":
        return f"{'a DELETE' if action == 'DELETE' else 'another action'} in ECR, not a push"
    if result != "SUCCESS":
        return "a push to ECR that did not succeed"
    if "image-tag" not in detail or detail.get("image-tag") == "":
        return "a push to ECR without a tag, such as a part of an image for several platforms"
    return ""


def _registry(event: Body) -> str:
    account = event.text("account", "the 12 digits of an AWS account")
    if not _ACCOUNT.fullmatch(account):
        raise event.wrong("account", "is not an AWS account", "12 digits")
    region = event.text("region", "an AWS region such as eu-west-1")
    if not _REGION.fullmatch(region):
        raise event.wrong("region", "is not an AWS region", "one such as eu-west-1")
    return f"{account}.dkr.ecr.{region}.{dns_suffix(region)}"
