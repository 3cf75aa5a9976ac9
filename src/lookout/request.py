"""From the body of a message to what it asks for: pure, and safe against any text."""

import re
from collections.abc import Sequence
from typing import Any

from lookout.aws import QueueUrl
from lookout.body import Body, kind
from lookout.envelope import unwrap
from lookout.errors import InvalidBody
from lookout.model import (
    LONGEST_DEPLOY_TIME,
    LONGEST_NAME,
    Asked,
    DeployRequest,
    ImageName,
    ImageRef,
    Invalid,
    Nothing,
    is_digest,
    is_tag,
)

REPLY_PREFIX = "lookout-reply-"

_SECONDS = re.compile(r"[0-9]{1,9}")
_WHOLE = re.compile(r"-?[0-9]+")
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")
_QUEUE_NAME = re.compile(r"(?=.{1,80}\Z)[A-Za-z0-9_-]+(?:\.fifo)?")
_LONGEST_TAG = 128
_LONGEST_HOST_ID = 255
_LONGEST_URL = 1024


def parse(body: str, *, queues: Sequence[str]) -> Asked:
    """Read a message body, plain or in its envelopes; raises nothing, whatever it is.

    `queues` are the URLs of Lookout's own queues, that of the requests first. No reason, for Nothing
    or Invalid, quotes a string of the body: it may be a secret.
    """
    try:
        content = unwrap(body)
    except InvalidBody as exc:
        return Invalid(str(exc))
    if isinstance(content, Nothing):
        return content
    try:
        return _read(content, queues)
    except InvalidBody as exc:
        return Invalid(str(exc), _reply_queue_of_invalid(content, queues))


def _reply_queue_of_invalid(body: Body, queues: Sequence[str]) -> str | None:
    """Also who has sent something wrong may be told so."""
    try:
        return _reply_queue(body, queues)[0]
    except InvalidBody:
        return None


def _read(body: Body, queues: Sequence[str]) -> DeployRequest:
    reply_queue_url, reply_fault = _reply_queue(body, queues)
    return DeployRequest(
        image=ImageRef(_image_name(body), _image_tag(body)),
        digest=_digest(body),
        deploy_time=_deploy_time(body),
        host_id=_host_id(body),
        reply_queue_url=reply_queue_url,
        reply_fault=reply_fault,
    )


def _image_name(body: Body) -> ImageName:
    expected = "a repository such as ghcr.io/acme/api, without tag or digest"
    text = body.text("ImageName", expected)
    try:
        return ImageName.parse(text)
    except ValueError:
        raise body.wrong("ImageName", _fault_of_name(text), expected) from None


def _fault_of_name(text: str) -> str:
    last = text.rpartition("@")[2]
    path = text.partition("/")[2] or text
    return _fault_in(
        {
            "is empty": not text,
            f"is longer than {LONGEST_NAME} characters": len(text) > LONGEST_NAME,
            "has white space or control characters": _has_blanks(text),
            "begins with a scheme such as https://": "://" in text,
            "has a digest (after '@')": "@" in text and last.startswith(("sha256:", "sha512:")),
            "has credentials ('@')": "@" in text,
            "has a tag (after ':')": ":" in text.rpartition("/")[2],
            "has upper-case letters": path != path.lower(),
            "is an image id": bool(_IMAGE_ID.fullmatch(text)),
            "is not a repository name": True,
        }
    )


def _image_tag(body: Body) -> str:
    expected = "a tag as a string, such as \"42\": up to 128 letters, digits, '_', '.' or '-'"
    text = body.text("ImageTag", expected)
    if not is_tag(text):
        raise body.wrong("ImageTag", _fault_of_tag(text), expected)
    return text


def _fault_of_tag(text: str) -> str:
    return _fault_in(
        {
            "is empty": not text,
            f"is longer than {_LONGEST_TAG} characters": len(text) > _LONGEST_TAG,
            "begins with '.' or '-'": text.startswith((".", "-")),
            "has other characters than a tag": True,
        }
    )


def _digest(body: Body) -> str | None:
    if "ImageDigest" not in body:
        return None
    expected = "sha256: and 64 hex digits in lower case"
    text = body.text("ImageDigest", expected)
    if not is_digest(text):
        raise body.wrong("ImageDigest", "is not a digest", expected)
    return text


def _deploy_time(body: Body) -> int | None:
    value = body.get("DeployTimeSeconds")
    if value is None:  # null too: what writes a key for everything that it knows writes that
        return None
    seconds = _seconds(value)
    if seconds is None or not 1 <= seconds <= LONGEST_DEPLOY_TIME:
        expected = f"whole seconds from 1 to {LONGEST_DEPLOY_TIME}"
        raise body.wrong("DeployTimeSeconds", _fault_of_seconds(value), expected)
    return seconds


def _seconds(value: Any) -> int | None:
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _fault_of_seconds(value: Any) -> str:
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value)
        return "is a string with a number out of range" if whole else "is a string that is not a whole number"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"is {value}"
    return f"is {kind(value)}"


def _host_id(body: Body) -> str | None:
    if body.get("HostId") is None:
        return None
    expected = f"the HostId setting of one Lookout, up to {_LONGEST_HOST_ID} characters"
    text = body.text("HostId", expected)
    fault = _fault_in(
        {
            "is empty": not text,
            f"is longer than {_LONGEST_HOST_ID} characters": len(text) > _LONGEST_HOST_ID,
            "has characters that cannot be printed": not text.isprintable(),
        }
    )
    if fault:
        raise body.wrong("HostId", fault, expected)
    return text


def _reply_queue(body: Body, queues: Sequence[str]) -> tuple[str | None, str]:
    """The URL, or why there is none: the deploy goes on without a reply.

    A sender must not make Lookout post elsewhere, nor feed a result to what reads requests.
    """
    if "ReplyQueueUrl" not in body:
        return None, ""
    beside = queues[0].rstrip("/").rpartition("/")[0]
    expected = f"{beside}/{REPLY_PREFIX}NAME, none of Lookout's own queues"
    text = body.text("ReplyQueueUrl", expected)
    if fault := _fault_of_reply(text, queues):
        return None, str(body.wrong("ReplyQueueUrl", fault, expected))
    return f"{beside}/{QueueUrl.parse(text).name}", ""


def _fault_of_reply(text: str, queues: Sequence[str]) -> str:
    if len(text) > _LONGEST_URL:
        return f"is longer than {_LONGEST_URL} characters"
    try:
        place = QueueUrl.parse(text)
    except ValueError:
        return "is not a URL"
    own = QueueUrl.parse(queues[0])
    named = {(queue.account, queue.name) for queue in map(QueueUrl.parse, queues)}
    return _fault_in(
        {
            "has white space or control characters": _has_blanks(text),
            "has credentials ('@')": "@" in text,
            "has a query or a fragment": "?" in text or "#" in text,
            "is on another endpoint than SqsQueueUrl": place.server != own.server,
            "is of another account than SqsQueueUrl": place.account != own.account,
            f"names a queue that does not begin with {REPLY_PREFIX}": not place.name.startswith(REPLY_PREFIX),
            "names a queue as none can be named": not _QUEUE_NAME.fullmatch(place.name),
            "is one of Lookout's own queues": (place.account, place.name) in named,
        }
    )


def _has_blanks(text: str) -> bool:
    return " " in text or not text.isprintable()


def _fault_in(faults: dict[str, bool]) -> str:
    """The first of the faults that is there, or nothing."""
    return next((fault for fault, found in faults.items() if found), "")
