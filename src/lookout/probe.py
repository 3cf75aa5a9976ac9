"""What Lookout may do with a queue, found out without touching any message."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from lookout.chosen import QueueSettings
from lookout.errors import HandleGone, QueueError, QueueRefused
from lookout.sqs import BATCH, LONGEST_VISIBILITY, Queue, code_of, message_of, region_of, regions

# What a queue says of parameters that it does not take; servers other than AWS have their own words.
_WRONG_PARAMETERS = (
    "ReadCountOutOfRange",
    "InvalidParameterCombination",
    "MissingParameter",
    "MissingRequiredParameter",
    "MissingRequiredParameterException",
    "ValidationError",
    "ValidationException",
)
_NO_HANDLE = "lookout-check"
_LONGEST_DELAY = 900  # seconds that a message may be delayed
_SEARCH = 20.0  # seconds for the look into all regions


@dataclass(frozen=True)
class Answer:
    """What came of a call of a Probe."""

    error: QueueError | None = None  # None where the server did as it was asked
    code: str = ""  # of SQS's own error; empty where there was none
    skew: float | None = None  # seconds that the clock of the server is ahead of this machine's
    attributes: Mapping[str, str] = field(default_factory=dict)
    messages: int = 0  # that it brought, which no server should let it

    @property
    def is_allowed(self) -> bool:
        """Whether the call got as far as its parameters, so that the queue exists and the permission too."""
        return (
            self.error is None
            or isinstance(self.error, HandleGone | QueueRefused)
            or self.code in _WRONG_PARAMETERS
        )


class Probe(Queue):
    """Learns what Lookout may do with a queue, without any message: by calls that no queue can carry out.

    SQS looks at the credentials and the permission before it looks at the parameters. So each call has some
    that are impossible: a denial is one of the permission, and a refusal of the parameters shows that the
    permission is there. Nothing is received, hidden, counted, deleted or sent.
    """

    @property
    def server(self) -> str:
        """Where calls go to."""
        return str(self._client.meta.endpoint_url)

    @property
    def region(self) -> str:
        return str(self._client.meta.region_name)

    async def attributes(self) -> Answer:
        """Those of the queue; this needs sqs:GetQueueAttributes, which Lookout can do without."""
        return await self._ask(self._client.get_queue_attributes, AttributeNames=["All"])

    async def try_receive(self) -> Answer:
        """Not with 0 messages: several other servers take that for 1.

        Should a server give messages all the same, they are given back.
        """
        impossible = {"MaxNumberOfMessages": BATCH + 1, "WaitTimeSeconds": -1, "VisibilityTimeout": -1}
        return await self._ask(self._client.receive_message, **impossible)

    async def try_delete(self) -> Answer:
        return await self._ask(self._client.delete_message, ReceiptHandle=_NO_HANDLE)

    async def try_change_visibility(self) -> Answer:
        return await self._ask(
            self._client.change_message_visibility,
            ReceiptHandle=_NO_HANDLE,
            VisibilityTimeout=LONGEST_VISIBILITY + 1,
        )

    async def try_send(self) -> Answer:
        """A delay that is too long, and a character that no message may have."""
        impossible = {
            "MessageBody": "lookout check, never to be sent\x00",
            "DelaySeconds": _LONGEST_DELAY + 1,
        }
        return await self._ask(self._client.send_message, **impossible)

    async def _ask(self, method: Callable[..., Awaitable[Any]], **parameters: Any) -> Answer:
        began = time.time()
        try:
            answer = await self._call(method, **parameters)
        except QueueError as exc:
            refusal = exc.__cause__.response if isinstance(exc.__cause__, ClientError) else {}
            return Answer(exc, code_of(refusal), _skew(refusal, began))
        messages = [message_of(raw) for raw in answer.get("Messages", ())]
        await self.change_visibility([(message, 0) for message in messages])
        attributes = answer.get("Attributes", {})
        return Answer(None, "", _skew(answer, began), attributes, len(messages))


async def elsewhere(settings: QueueSettings) -> list[str]:
    """The other regions in which the same server has a queue of that name."""
    few = asyncio.Semaphore(BATCH)

    async def is_in(region: str) -> bool:
        async with few, Probe.connect(settings, poll_time=0, calls=1, region=region) as probe:
            return (await probe.try_receive()).is_allowed

    others = [region for region in await regions() if region != region_of(settings)]
    try:
        async with asyncio.timeout(_SEARCH):
            found = await asyncio.gather(*map(is_in, others))
    except TimeoutError:
        return []
    return [region for region, there in zip(others, found, strict=True) if there]


def _skew(answer: Mapping[str, Any], began: float) -> float | None:
    """By the Date of an answer, which has whole seconds; None where it has none."""
    told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        there = parsedate_to_datetime(told).timestamp()
    except ValueError:
        return None
    ended = time.time()
    return max(0.0, there - ended) or min(0.0, there + 1 - began)
