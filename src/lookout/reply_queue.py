"""The queue that brings a sender its answers: made for one deploy and removed after it, or shared with others."""

import asyncio
import random
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
    wait_random_exponential,
)

from lookout.aws import QueueUrl
from lookout.errors import (
    NoSuchQueue,
    QueueDenied,
    QueueError,
    QueueRefused,
    QueueUnusable,
    WrongSettings,
)
from lookout.model import Message
from lookout.request import REPLY_PREFIX
from lookout.result import Result
from lookout.sqs import BATCH, Account, Queue
from lookout.unbroken import unbroken

KNOWN_WITHIN = 10.0  # seconds: SQS asks for one after CreateQueue, and promises nothing
SHORTEST_RETENTION = 60  # seconds, by SQS
LEFT_BEHIND_AFTER = 86400  # seconds: twice as long as anybody waits for an answer
LONGEST_SWEEP = 30.0  # seconds
#: Seconds that a message is hidden from others by whoever looks at it, should it not give it back.
HIDDEN = 2
#: Looks at a message, by anyone, after each of which it is given back for a second later, so that
#: messages that nobody fetches any more do not stand in the way of the others.
LOOKS = 50
LONGEST_REST = 30  # seconds
PAUSE = (0.1, 0.4)  # seconds, by chance: without them those who share a queue would ask in a hot loop

_MADE = re.compile(re.escape(REPLY_PREFIX) + "[0-9a-f]{32}")
_OTHER_ACCOUNT = (
    "the AWS credentials are of another account than SqsQueueUrl: give a --reply-queue there, or --no-wait; "
    "nothing was sent"
)
_TRIES = 3
_LONGEST_PAUSE = 2.0  # seconds between two tries


@dataclass(frozen=True)
class Answer:
    """What was told of a message, and when by the clock of SQS: a standard queue keeps no order."""

    sent_timestamp: int
    result: Result


class ReplyQueue:
    """Brings the answers to one message, and leaves those to others to whom they belong."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._known = time.monotonic() + KNOWN_WITHIN

    @property
    def url(self) -> str:
        return self._queue.url

    async def check(self) -> None:
        """Raises QueueError where nothing could be received later; leaves all messages where they are."""
        with suppress(QueueRefused):  # a server may want a message to be hidden for a second at least
            await self._queue.receive(1, wait=0, visibility=0)

    async def answers(self, message_id: str, *, wait: int) -> list[Answer]:
        """Long-poll for what was told of this message, in the order in which it was sent."""
        messages = await self._queue.receive(BATCH, wait=wait, visibility=HIDDEN)
        read = [(message, _result(message)) for message in messages]
        own = [(message, result) for message, result in read if result and result.message_id == message_id]
        foreign = [message for message, result in read if not result or result.message_id != message_id]
        await asyncio.gather(*(self._delete(message) for message, _ in own), self._give_back(foreign))
        if foreign and not own:
            await asyncio.sleep(random.uniform(*PAUSE))  # noqa: S311  nobody is to guess it
        answers = [Answer(message.sent_timestamp, result) for message, result in own]
        return sorted(answers, key=lambda answer: answer.sent_timestamp)

    def may_come_to_be(self, error: QueueError) -> bool:
        """Whether SQS only seems not to know the queue yet."""
        return isinstance(error, NoSuchQueue) and time.monotonic() < self._known

    async def _delete(self, message: Message) -> None:
        with suppress(QueueError):  # then it comes again, and is known
            await self._queue.delete(message)

    async def _give_back(self, messages: list[Message]) -> None:
        """Without the permission they come back by themselves a little later."""
        if messages:
            await self._queue.change_visibility([(message, _rest(message)) for message in messages])


def _result(message: Message) -> Result | None:
    try:
        return Result.from_json(message.body)
    except ValueError:
        return None


def _rest(message: Message) -> int:
    return min(LONGEST_REST, message.receive_count // LOOKS)


@asynccontextmanager
async def made(
    beside: Queue, *, keep: int, give_up: Callable[[], bool], left: Callable[[str], None]
) -> AsyncIterator[ReplyQueue]:
    """A new queue in the account of that one, which keeps messages for so many seconds; removed in every case.

    Creating and removing are never cut short: what is under way would be done without anybody knowing.
    Once it is time to `give_up`, nothing is tried again. `left` is told why it could not be removed.
    """
    name = f"{REPLY_PREFIX}{secrets.token_hex(16)}"
    url = f"{beside.url.rstrip('/').rpartition('/')[0]}/{name}"
    created = ""
    try:
        try:
            created = await unbroken(_create(beside.account, name, keep, give_up))
        except (QueueDenied, QueueUnusable, QueueRefused):
            url = ""  # there is nothing to remove
            raise
        if QueueUrl.parse(created).account != QueueUrl.parse(url).account:
            url = created
            raise WrongSettings([_OTHER_ACCOUNT])
        yield ReplyQueue(beside.beside(url))
    finally:
        if url:
            # Where nobody knows whether it was made, there is nothing to say of one that is left.
            if created:
                await unbroken(_remove(beside.account, url, left, tries=_TRIES))
            else:
                await unbroken(_remove(beside.account, url, _say_nothing, tries=1 if give_up() else _TRIES))


def _say_nothing(_: str) -> None:
    pass


async def _create(account: Account, name: str, keep: int, give_up: Callable[[], bool]) -> str:
    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda exc: may_pass(exc) and not give_up()),
        stop=stop_after_attempt(_TRIES),
        wait=wait_random_exponential(max=_LONGEST_PAUSE),
        reraise=True,
    )
    return await retrying(
        account.create, name, {"MessageRetentionPeriod": str(max(SHORTEST_RETENTION, keep))}
    )


async def _remove(account: Account, url: str, left: Callable[[str], None], *, tries: int) -> None:
    retrying = AsyncRetrying(
        # One that was made just now may not be known yet.
        retry=retry_if_exception(lambda exc: may_pass(exc) or isinstance(exc, NoSuchQueue)),
        stop=stop_after_attempt(tries),
        wait=wait_fixed(1),
        reraise=True,
    )
    try:
        await retrying(account.delete, url)
    except NoSuchQueue:
        pass
    except QueueError as exc:
        left(f"the reply queue {url} is left behind: {exc}")


def may_pass(error: BaseException) -> bool:
    """Whether the same call may work a little later."""
    return isinstance(error, QueueError) and not isinstance(error, QueueDenied | QueueUnusable | QueueRefused)


async def sweep(account: Account, own: str, *, older_than: float = LEFT_BEHIND_AFTER) -> None:
    """Remove what senders that were killed have left behind, as far as that is allowed; raises nothing.

    Old is what was made so long before the queue `own`: both times are of the clock of SQS.
    """
    with suppress(QueueError, TimeoutError, KeyError, ValueError):  # or a server that tells no time
        async with asyncio.timeout(LONGEST_SWEEP):
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(NoSuchQueue),
                stop=stop_after_delay(KNOWN_WITHIN),
                wait=wait_fixed(1),
                reraise=True,
            )
            before = await retrying(account.created, own) - older_than
            async for url in account.urls(REPLY_PREFIX):
                if _MADE.fullmatch(QueueUrl.parse(url).name) and url.rpartition("/")[2] not in own:
                    await _remove_if_made(account, url, before)


async def _remove_if_made(account: Account, url: str, before: float) -> None:
    with suppress(NoSuchQueue):  # somebody else has removed it in between
        if await account.created(url) < before:
            await account.delete(url)
