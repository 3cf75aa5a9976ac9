"""The queue half of `lookout check`: is it there, and what may Lookout do with it?"""

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from lookout import aws, permissions
from lookout.aws import QueueUrl
from lookout.chosen import QueueSettings, Settings
from lookout.errors import QueueDenied, QueueUnusable, WrongSettings
from lookout.findings import Finding, ok, problem, remark
from lookout.permissions import MISSING, Permission
from lookout.probe import Answer, Probe, elsewhere
from lookout.sqs import region_of

CALLS = 8  # at the same time
NOTICED_SKEW, BAD_SKEW = 60.0, 300.0  # seconds; AWS refuses what is signed 15 minutes off, or 5 in places
FEW_RECEIPTS = 50  # a message that is kept is received about ten times in its first hour
SHORT_RETENTION = 3600  # seconds

_SKEWED_CODES = ("RequestExpired", "RequestTimeTooSkewed")
_SKEWED_TEXTS = ("signature expired", "signature not yet current", "request has expired")
_WRONG_KEY = ("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId")
_WRONG_SECRET = ("SignatureDoesNotMatch", "InvalidSignatureException")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException")
_SET_CLOCK = "set it, and let NTP keep it right"
_REPLIES = "lookout-reply-check"  # the name of a queue that is not there


async def check_queue(settings: QueueSettings) -> list[Finding]:
    """All that there is to say of the queues; nothing is received, hidden, counted, deleted or sent."""
    at_aws = aws.region_of(urlsplit(settings.sqs_queue_url).hostname or "") or ""
    found = list(_region(settings, at_aws))
    try:
        async with Probe.connect(settings, poll_time=1, calls=CALLS, region=at_aws) as probe:
            return [*found, *await _ask(settings, probe, at_aws)]
    except WrongSettings as exc:
        return [*found, *(problem(*line.partition(": ")[::2]) for line in exc.lines)]


def _region(settings: QueueSettings, at_aws: str) -> Iterator[Finding]:
    """At AWS the URL of a queue says where it is, so that this needs no network."""
    configured = region_of(settings)
    if at_aws and configured and configured != at_aws:
        yield problem(
            "region",
            f"SqsQueueUrl is in {at_aws}, {_regions_source()} says {configured}",
            f"set AWS_REGION={at_aws}",
        )


def _regions_source() -> str:
    """What has said the region, as the daemon reads it."""
    given = (name for name in ("AWS_REGION", "AWS_DEFAULT_REGION") if os.environ.get(name, "").strip())
    return next(given, "without AWS_REGION the SDK")


async def _ask(settings: QueueSettings, probe: Probe, at_aws: str) -> list[Finding]:
    sending_to = permissions.others(settings)
    reply_url = f"{probe.url.rpartition('/')[0]}/{_REPLIES}"
    looking, receiving, deleting, changing, replying, *sending = await asyncio.gather(
        probe.attributes(),
        probe.try_receive(),
        probe.try_delete(),
        probe.try_change_visibility(),
        probe.beside(reply_url).try_send(),
        *(probe.beside(url).try_send() for url, _ in sending_to),
    )
    asked = (receiving, deleting, changing)
    clock = list(_clock((looking, *asked, replying, *sending)))
    if obstacle := await _obstacle(settings, probe, (*asked, replying, *sending), asked, at_aws):
        return [obstacle] if obstacle.about == "clock" else [*clock, obstacle]
    return [
        *_presence(probe, asked),
        *clock,
        _permission(permissions.RECEIVE, receiving),
        _permission(permissions.DELETE, deleting),
        _permission(permissions.CHANGE, changing),
        *(_permission(to, answer) for (_, to), answer in zip(sending_to, sending, strict=True)),
        *_replies(replying),
        *_attributes(settings, looking),
        *_oddities(receiving, sending),
    ]


async def _obstacle(
    settings: QueueSettings, probe: Probe, every: Sequence[Answer], asked: Sequence[Answer], at_aws: str
) -> Finding | None:
    """What stands before every permission, if anything does."""
    for answer in every:
        if _is_skewed(answer):
            text = f"SQS refuses what this machine signs, whose clock is {_off(answer.skew)} ({answer.code})"
            return problem("clock", text, _SET_CLOCK)
    for answer in every:
        if finding := _credentials(answer):
            return finding
    for answer in asked:
        if answer.code in MISSING:
            return await _missing(settings, probe, at_aws)
    for answer in asked:
        if answer.error and not answer.code:
            next_step = (
                f"check that {_host(probe.server)} can be reached from here, through proxy and firewall"
            )
            return problem("queue", str(answer.error), next_step)
    if not any(answer.is_allowed or isinstance(answer.error, QueueDenied) for answer in asked):
        text = f"{_host(probe.server)} answers otherwise than SQS should: {asked[0].error}"
        return problem("queue", text, "check SqsQueueUrl, and try again")
    return None


def _presence(probe: Probe, asked: Sequence[Answer]) -> Iterator[Finding]:
    """A denial does not tell: AWS may deny what is not there."""
    if any(answer.is_allowed for answer in asked):
        yield ok("queue", f"{probe.url} is there, in {probe.region}")


def _is_skewed(answer: Answer) -> bool:
    text = str(answer.error or "").lower()
    return answer.code in _SKEWED_CODES or any(words in text for words in _SKEWED_TEXTS)


def _credentials(answer: Answer) -> Finding | None:
    """What is wrong with the AWS credentials. The words of AWS are not shown: they may hold what was signed."""
    match answer.code:
        case "" if isinstance(answer.error, QueueUnusable):
            next_step = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this host a role"
            return problem("AWS credentials", str(answer.error).removeprefix("AWS credentials: "), next_step)
        case code if code in _WRONG_KEY:
            return problem("AWS credentials", f"AWS does not know them ({code})", "check AWS_ACCESS_KEY_ID")
        case code if code in _WRONG_SECRET:
            next_step = "check AWS_SECRET_ACCESS_KEY"
            return problem("AWS credentials", f"the secret is not that of the access key ({code})", next_step)
        case code if code in _EXPIRED:
            next_step = "get new ones; better is a role, whose credentials the SDK renews"
            return problem("AWS credentials", f"they have expired ({code})", next_step)
        case code if code not in MISSING and isinstance(answer.error, QueueUnusable):
            return problem("AWS credentials", f"AWS refuses them ({code})", "check them, and SqsQueueUrl")
    return None


async def _missing(settings: QueueSettings, probe: Probe, at_aws: str) -> Finding:
    """At AWS the URL names the region; a server of one's own has to be asked for the others."""
    found = [] if at_aws else await elsewhere(settings)
    if not found:
        name = QueueUrl.parse(probe.url).name
        text = f"no such queue: {_host(probe.server)} has no {name} in {probe.region}, or shows it to others only"
        return problem("queue", text, "check the account and the name in SqsQueueUrl")
    text = f"the queue is in {', '.join(found)}, {_regions_source()} says {probe.region}"
    return problem("region", text, f"set AWS_REGION={found[0]}")


def _clock(answers: Sequence[Answer]) -> Iterator[Finding]:
    told = [answer.skew for answer in answers if answer.skew is not None]
    skew = min(told, key=abs, default=0.0)  # what the answers took on their way makes it only larger
    if abs(skew) > NOTICED_SKEW:
        found = problem if abs(skew) > BAD_SKEW else remark
        text = f"this machine's clock is {_off(skew)}, which refuses what is 15 min off"
        yield found("clock", text, _SET_CLOCK)


def _off(skew: float | None) -> str:
    if not skew:
        return "another than that of SQS"
    return f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} that of SQS"


def _permission(permission: Permission, answer: Answer) -> Finding:
    if answer.is_allowed:
        return ok(permission.about, f"{permission.action} is allowed")
    if isinstance(answer.error, QueueDenied):
        text = f"{permission.action} is not allowed: {permission.without}"
        return problem(permission.about, text, f"add this statement to the policy: {permission.policy}")
    if answer.code in MISSING:
        return problem(
            permission.about, "no such queue", f"check the account and the name in {permission.about}"
        )
    return remark(permission.about, f"whether {permission.action} is allowed is not known: {answer.error}")


def _replies(answer: Answer) -> Iterator[Finding]:
    """Asked of a queue that is not there: without the permission, that is not what SQS says of it."""
    if isinstance(answer.error, QueueDenied):
        text = f"{permissions.REPLY.action} to lookout-reply-* is not allowed: {permissions.REPLY.without}"
        yield remark(
            permissions.REPLY.about,
            text,
            f"if any sender does, add this statement to the policy: {permissions.REPLY.policy}",
        )


def _attributes(settings: QueueSettings, answer: Answer) -> Iterator[Finding]:
    """What is odd about the queue itself, where Lookout may look."""
    about, attributes = "SqsQueueUrl", answer.attributes
    receipts = _number(_object(attributes.get("RedrivePolicy", "")).get("maxReceiveCount"))
    if receipts is not None and receipts < FEW_RECEIPTS:
        text = f"its redrive policy takes a message away at receipt {receipts}, also one that is only tried again"
        yield remark(
            about, text, "raise maxReceiveCount to 1000, and set DeadLetterQueueUrl for what ends badly"
        )
    retention = _number(attributes.get("MessageRetentionPeriod"))
    longest = max(SHORT_RETENTION, settings.retry_for_seconds if isinstance(settings, Settings) else 0)
    if retention is not None and retention < longest:
        text = f"it keeps a message for {retention} s only, after which a deploy that waits is lost"
        yield remark(about, text, "raise its MessageRetentionPeriod, to 345600 for example")
    if key := attributes.get("KmsMasterKeyId"):
        text = f"it is encrypted with the key {key}, whose permissions no call without a message can show"
        yield remark(
            about, text, "see that its policy allows kms:Decrypt, and kms:GenerateDataKey to senders"
        )


def _oddities(receiving: Answer, sending: Sequence[Answer]) -> Iterator[Finding]:
    """What only a server does that is more lenient than SQS."""
    if receiving.messages:
        text = (
            f"this server gave {receiving.messages} messages to a call that SQS refuses; they were given back"
        )
        yield remark("queue", text, "each check counts as one receipt of them here")
    if any(answer.error is None for answer in sending):
        yield remark("queue", "this server took a message that SQS refuses", "remove it from there")


def _host(server: str) -> str:
    url = urlsplit(server)
    return f"{url.hostname}:{url.port}" if url.port else str(url.hostname)


def _object(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        if isinstance(found := json.loads(text), dict):
            return found
    return {}


def _number(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() else None
