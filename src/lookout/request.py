"""From the body of a message to what it asks for: pure, and safe against any text."""

import json
import re
from dataclasses import dataclass
from typing import Any

from lookout.errors import InvalidBody
from lookout.model import LONGEST_DEPLOY_TIME, DeployRequest, ImageName, ImageRef, Json, is_digest, is_tag

_KEYS = {key.lower(): key for key in ("ImageName", "ImageTag", "ImageDigest", "DeployTimeSeconds", "HostId")}
_SECONDS = re.compile(r"[0-9]{1,9}")
_HOST_ID = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True)
class Nothing:
    """A body that is understood and asks for nothing."""

    reason: str


def parse(body: str) -> DeployRequest | Nothing:
    """Read a message body, plain or wrapped by SNS; raises InvalidBody, and nothing else."""
    return _read(_unwrap(_object(body, "the body")))


def _object(text: str, what: str) -> Json:
    try:
        value = json.loads(text, parse_constant=_not_json, object_pairs_hook=_keys_once)
    except (ValueError, RecursionError):
        raise InvalidBody(
            f'{what} is not JSON; expected {{"ImageName": "ghcr.io/acme/api", "ImageTag": "42"}}'
        ) from None
    if not isinstance(value, dict):
        raise InvalidBody(f"{what} is {_kind(value)}; expected a JSON object with ImageName and ImageTag")
    return value


def _not_json(constant: str) -> None:
    """Python reads NaN and Infinity; JSON has no such numbers."""
    raise ValueError(constant)


def _keys_once(pairs: list[tuple[str, Any]]) -> Json:
    """Keys are matched without regard to case; one that is given twice would have to be guessed."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key.lower() in seen & _KEYS.keys():
            raise InvalidBody(f"{_KEYS[key.lower()]} is given twice; expected it once")
        seen.add(key.lower())
    return dict(pairs)


def _unwrap(body: Json) -> Json:
    """Take the message out of the envelope that SNS puts around it without raw delivery."""
    if body.get("Type") == "Notification" and isinstance(body.get("Message"), str):
        return _object(body["Message"], "Message in the SNS notification")
    return body


def _read(body: Json) -> DeployRequest | Nothing:
    if body.get("Type") == "lookout.result":
        return Nothing("a result of Lookout, not a request; check who sends to this queue")
    keys = {key.lower(): value for key, value in body.items()}
    return DeployRequest(
        image=ImageRef(_image_name(keys), _image_tag(keys)),
        digest=_digest(keys),
        deploy_time=_deploy_time(keys),
        host_id=_host_id(keys),
    )


def _image_name(keys: Json) -> ImageName:
    text = _text(keys, "ImageName", "a repository such as ghcr.io/acme/api, without tag")
    try:
        return ImageName.parse(text)
    except ValueError:
        raise InvalidBody(
            f"ImageName is {_shown(text)}; expected a repository such as ghcr.io/acme/api, "
            "without tag or digest (those go into ImageTag and ImageDigest)"
        ) from None


def _image_tag(keys: Json) -> str:
    text = _text(keys, "ImageTag", 'a tag as a string, such as "42"')
    if not is_tag(text):
        raise InvalidBody(f"ImageTag is {_shown(text)}; expected up to 128 letters, digits, '_', '.' or '-'")
    return text


def _digest(keys: Json) -> str | None:
    if "imagedigest" not in keys:
        return None
    text = _text(keys, "ImageDigest", "sha256: and 64 hex digits")
    if not is_digest(text):
        raise InvalidBody(f"ImageDigest is {_shown(text)}; expected sha256: and 64 hex digits")
    return text


def _deploy_time(keys: Json) -> int | None:
    if "deploytimeseconds" not in keys:
        return None
    value = keys["deploytimeseconds"]
    seconds = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        seconds = int(value)
    if isinstance(value, float) and value.is_integer():
        seconds = int(value)
    if seconds is None or not 1 <= seconds <= LONGEST_DEPLOY_TIME:
        raise InvalidBody(
            f"DeployTimeSeconds is {_shown(value)}; expected whole seconds from 1 to {LONGEST_DEPLOY_TIME}"
        )
    return seconds


def _host_id(keys: Json) -> str | None:
    if "hostid" not in keys:
        return None
    text = _text(keys, "HostId", "the HostId setting of one Lookout")
    if not _HOST_ID.fullmatch(text):
        raise InvalidBody(f"HostId is {_shown(text)}; expected up to 255 printable characters")
    return text


def _text(keys: Json, key: str, expected: str) -> str:
    if key.lower() not in keys:
        raise InvalidBody(f"{key} is missing; expected {expected}")
    value = keys[key.lower()]
    if not isinstance(value, str):
        raise InvalidBody(f"{key} is {_kind(value)}; expected {expected}")
    return value


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    """A value as it may stand in a log line: short, on one line, in ASCII."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        text = ascii(value)
        return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} characters)"
    return _kind(value)
