"""Bodies that deploy, plain and in their envelopes."""

import json
from functools import partial
from typing import Any

from lookout import request
from lookout.model import Invalid

ENDPOINT = "https://sqs.eu-west-1.amazonaws.com"
ACCOUNT = f"{ENDPOINT}/123456789012"
QUEUES = (f"{ACCOUNT}/deploys", f"{ACCOUNT}/lookout-reply-all")
SECRET = "hunter2-sesame"
DIGEST = "sha256:" + "0a" * 32
GOOD = {"ImageName": "ghcr.io/acme/api", "ImageTag": "42", "DeployTimeSeconds": "30"}
# As ECR sends it; the media types are newer than most descriptions of it.
PUSH: dict[str, Any] = {
    "version": "0",
    "id": "7bf73129-1428-4cd3-a780-95db273d1602",
    "detail-type": "ECR Image Action",
    "source": "aws.ecr",
    "account": "123456789012",
    "time": "2026-02-03T04:05:06Z",
    "region": "eu-west-1",
    "resources": [],
    "detail": {
        "action-type": "PUSH",
        "result": "SUCCESS",
        "repository-name": "acme/api",
        "image-tag": "42",
        "image-digest": DIGEST,
        "manifest-media-type": "application/vnd.oci.image.index.v1+json",
        "artifact-media-type": "application/vnd.oci.image.config.v1+json",
    },
}

parse = partial(request.parse, queues=QUEUES)


def body(**changes: Any) -> str:
    """The good one with other values; `...` takes a key away."""
    return json.dumps(_changed(GOOD, changes))


def event(**changes: Any) -> str:
    """A push to ECR with other values."""
    return json.dumps(_changed(PUSH, changes))


def push(**changes: Any) -> str:
    """A push to ECR with other values in its detail."""
    return event(detail=_changed(PUSH["detail"], changes))


def notification(message: Any, **changes: Any) -> str:
    """What SNS puts on a queue, as far as it matters, and some of what does not."""
    envelope = {
        "Type": "Notification",
        "MessageId": "2f0a1c60-2b1c-5d0f-9d0d-43d0ad2ad2b6",
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:pushes",
        "Message": message,
        "Timestamp": "2026-02-03T04:05:06.789Z",
        "SignatureVersion": "1",
        "Signature": "c2lnbmF0dXJl",
    }
    return json.dumps(_changed(envelope, changes))


def complaint(text: str) -> str:
    """What is said of an invalid body."""
    parsed = parse(text)
    assert isinstance(parsed, Invalid)
    return parsed.reason


def _changed(values: Any, changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (values | changes).items() if value is not ...}
