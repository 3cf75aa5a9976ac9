"""The queue. Besides ecr.py, the only file that imports aiobotocore."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

from lookout.aws import DENIED, NO_CREDENTIALS, said
from lookout.chosen import QueueSettings
from lookout.errors import (
    HandleGone,
    NoSuchQueue,
    QueueDenied,
    QueueError,
    QueueRefused,
    QueueUnusable,
    WrongSettings,
)
from lookout.model import Message

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

BATCH = 10  # entries in one call at most, and messages in one receive
LONGEST_VISIBILITY = 43200  # seconds: SQS refuses to hide a message for longer than this after its receipt

_PAGE = 1000  # queues in one answer at most
DEADLINE = 5.0  # seconds for any call but receive: less than a renewal has left

_GONE = ("ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidReceiptHandle")
# What SQS says instead of those codes, as InvalidParameterValue, of handles that were good once.
_GONE_TEXTS = ("for parameter receipthandle is invalid", "receipt handle has expired")
_REFUSED = ("InvalidParameterValue", "InvalidMessageContents", "MissingParameter", "UnsupportedOperation")
# The key of an encrypted queue is off or gone; throttling by KMS passes.
_NO_KEY = re.compile(r"kms\.?(?!.*throttl)", re.IGNORECASE)
_LONGEST_TEXT = 500  # an answer that is not SQS's own may be a whole page
_NO_SUCH_QUEUE = ("QueueDoesNotExist", "NonExistentQueue")
_UNUSABLE = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "InvalidAccessKeyId",
    "ExpiredToken",
    "ExpiredTokenException",
    "AuthFailure",
    "InvalidAddress",
    "InvalidSecurity",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    *DENIED,
)


Kind = TypeVar("Kind", bound="Queue")


class Queue:
    """One SQS queue, by the five calls that Lookout makes on it.

    Every method raises QueueError where SQS did not answer or said that the call may work later,
    and one of its children where it said more.
    """

    def __init__(self, client: "SQSClient", url: str) -> None:
        self._client = client
        self.url = url

    @property
    def is_fifo(self) -> bool:
        """SQS has the names of FIFO queues end so."""
        return self.url.endswith(".fifo")

    def beside(self, url: str) -> Self:
        """Another queue of the same region, over the same connections."""
        return type(self)(self._client, url)

    def seen_as(self, kind: "type[Kind]") -> "Kind":
        """The same queue, by the calls of another class."""
        return kind(self._client, self.url)

    @property
    def account(self) -> "Account":
        """All queues of whom the credentials belong to, over the same connections."""
        return Account(self._client)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, settings: QueueSettings, *, poll_time: int, calls: int, region: str = ""
    ) -> AsyncIterator[Self]:
        """One client for the life of the process, with the SDK's own chain of credentials.

        It waits for `poll_time` seconds in a receive call at most, and is for so many calls at the same time.
        A `region` wins over that of the settings.
        """
        config = AioConfig(
            connect_timeout=5,
            # Shorter than the wait, and each abandoned poll could swallow a message.
            read_timeout=poll_time + 10,
            # A pool of one would let a visibility call wait for the end of the poll.
            max_pool_connections=calls,
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(
                    get_session().create_client(
                        "sqs",
                        region_name=region or region_of(settings),
                        endpoint_url=settings.endpoint_url,
                        config=config,
                    )
                )
            except NoRegionError:
                raise WrongSettings(
                    ["AWS_REGION: is required, since SqsQueueUrl does not tell the region"]
                ) from None
            except (BotoCoreError, ValueError) as exc:
                raise WrongSettings([f"AWS settings: {said(exc)}"]) from None
            yield cls(client, settings.sqs_queue_url)

    async def receive(self, count: int, *, wait: int, visibility: int) -> list[Message]:
        """Long-poll for up to `count` messages, hidden for `visibility` seconds from now on."""
        answer = await self._call(
            self._client.receive_message,
            deadline=None,
            MaxNumberOfMessages=min(count, BATCH),
            WaitTimeSeconds=wait,
            VisibilityTimeout=visibility,
            MessageSystemAttributeNames=[
                "SentTimestamp",
                "ApproximateReceiveCount",
                "MessageGroupId",
                "SequenceNumber",
            ],
        )
        return [message_of(raw) for raw in answer.get("Messages", ())]

    async def send(
        self, body: str, about: Message, attributes: Mapping[str, str], deduplication_id: str
    ) -> None:
        """Send a message that tells of another one; a FIFO queue takes each id once in five minutes."""
        fifo: dict[str, Any] = {
            "MessageGroupId": about.group_id or about.id,
            "MessageDeduplicationId": deduplication_id,
        }
        await self._call(
            self._client.send_message,
            MessageBody=body,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
            **(fifo if self.is_fifo else {}),
        )

    async def request(self, body: str, *, group_id: str, deduplication_id: str) -> str:
        """Send a message that asks for a deploy, and return its id; only a FIFO queue is told the other ids."""
        fifo: dict[str, Any] = {"MessageGroupId": group_id, "MessageDeduplicationId": deduplication_id}
        answer = await self._call(
            self._client.send_message, MessageBody=body, **(fifo if self.is_fifo else {})
        )
        return str(answer["MessageId"])

    async def delete(self, message: Message) -> None:
        await self._call(self._client.delete_message, ReceiptHandle=message.receipt_handle)

    async def change_visibility(self, changes: Sequence[tuple[Message, int]]) -> dict[str, QueueError]:
        """Hide each message for so many seconds from now on; the failures, by message id.

        A single change goes out as ChangeMessageVisibility, several as batches of ten, side by side:
        one that is not answered must not use up the time that the others have left.
        """
        batches = [changes[start : start + BATCH] for start in range(0, len(changes), BATCH)]
        failures = await asyncio.gather(*map(self._change_batch, batches))
        return {message_id: error for failed in failures for message_id, error in failed.items()}

    async def _change_batch(self, changes: Sequence[tuple[Message, int]]) -> dict[str, QueueError]:
        if len(changes) > 1:
            try:
                return await self._change_together(changes)
            except QueueDenied:
                pass  # some servers know the permission for the single call only
            except QueueError as exc:
                return {message.id: exc for message, _ in changes}
        failures = {}
        for message, seconds in changes:
            try:
                await self._call(
                    self._client.change_message_visibility,
                    ReceiptHandle=message.receipt_handle,
                    VisibilityTimeout=seconds,
                )
            except QueueError as exc:
                failures[message.id] = exc
        return failures

    async def _change_together(self, changes: Sequence[tuple[Message, int]]) -> dict[str, QueueError]:
        answer = await self._call(
            self._client.change_message_visibility_batch,
            Entries=[
                {
                    "Id": str(i),
                    "ReceiptHandle": message.receipt_handle,
                    "VisibilityTimeout": seconds,
                }
                for i, (message, seconds) in enumerate(changes)
            ],
        )
        return {
            changes[int(entry["Id"])][0].id: _error(entry["Code"], entry.get("Message", ""))
            for entry in answer.get("Failed", ())
        }

    async def _call(
        self,
        method: Callable[..., Awaitable[Any]],
        *,
        deadline: float | None = DEADLINE,
        **parameters: Any,
    ) -> Any:
        return await _call(method, deadline=deadline, QueueUrl=self.url, **parameters)


class Account:
    """The queues of an account. Its methods raise what those of Queue raise."""

    def __init__(self, client: "SQSClient") -> None:
        self._client = client

    async def create(self, name: str, attributes: Mapping[str, str]) -> str:
        """Make a queue, and return its URL; SQS may take a second to know it everywhere."""
        answer = await _call(self._client.create_queue, QueueName=name, Attributes=dict(attributes))
        return str(answer["QueueUrl"])

    async def delete(self, url: str) -> None:
        await _call(self._client.delete_queue, QueueUrl=url)

    async def urls(self, prefix: str) -> AsyncIterator[str]:
        """Those of all queues whose names begin so."""
        page: dict[str, Any] = {"QueueNamePrefix": prefix, "MaxResults": _PAGE}
        while True:
            answer = await _call(self._client.list_queues, **page)
            for url in answer.get("QueueUrls", ()):
                yield url
            if not answer.get("NextToken"):
                return
            page["NextToken"] = answer["NextToken"]

    async def created(self, url: str) -> float:
        """When a queue was made: seconds since the epoch, by the clock of SQS."""
        name = "CreatedTimestamp"
        answer = await _call(self._client.get_queue_attributes, QueueUrl=url, AttributeNames=[name])
        return float(answer["Attributes"][name])


async def _call(
    method: Callable[..., Awaitable[Any]], *, deadline: float | None = DEADLINE, **parameters: Any
) -> Any:
    try:
        async with asyncio.timeout(deadline):
            return await method(**parameters)
    except ClientError as exc:
        error = exc.response.get("Error", {})
        raise _error(str(error.get("Code", "")), str(error.get("Message", ""))) from exc
    except NO_CREDENTIALS as exc:
        raise QueueUnusable(f"AWS credentials: {said(exc)}") from None
    except TimeoutError:
        raise QueueError(f"SQS did not answer within {deadline:.0f} s") from None
    except Exception as exc:
        raise QueueError(f"SQS did not answer: {str(exc) or type(exc).__name__}") from exc


async def regions() -> list[str]:
    """Those in which AWS has SQS, as far as the SDK knows."""
    return [str(region) for region in await get_session().get_available_regions("sqs")]


def region_of(settings: QueueSettings) -> str | None:
    """A server of one's own takes any region; AWS needs the right one."""
    if settings.region:
        return settings.region
    configured = get_session().get_config_variable("region")
    own = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"))
    local = settings.endpoint_url or own
    return configured or ("us-east-1" if local else None)


def message_of(raw: Any) -> Message:
    """A message as SQS gives it."""
    attributes = raw.get("Attributes", {})
    return Message(
        id=raw["MessageId"],
        body=raw.get("Body", ""),
        receipt_handle=raw["ReceiptHandle"],
        sent_timestamp=int(attributes.get("SentTimestamp", 0)),
        receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
        group_id=attributes.get("MessageGroupId", ""),
        sequence_number=int(attributes.get("SequenceNumber", 0)),
    )


def code_of(answer: Any) -> str:
    """SQS's own code for an error, without the prefixes that it may have."""
    return _name(str(answer.get("Error", {}).get("Code", "")))


def _name(code: str) -> str:
    return code.rpartition(".")[2].rpartition("#")[2]


def _error(code: str, message: str) -> QueueError:
    """SQS's error codes, which come with or without a prefix, as Lookout's errors."""
    name = _name(code)
    text = " ".join(f"{name}: {message}".split())[:_LONGEST_TEXT]
    if name in _GONE or any(said in message.lower() for said in _GONE_TEXTS):
        return HandleGone(text)
    if name in DENIED:
        return QueueDenied(text)
    if _NO_KEY.match(code.rpartition("#")[2]):
        return QueueUnusable(text)
    if name in _NO_SUCH_QUEUE:
        return NoSuchQueue(text)
    if name in _UNUSABLE:
        return QueueUnusable(text)
    return QueueRefused(text) if name in _REFUSED else QueueError(text)
