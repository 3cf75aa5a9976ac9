"""A settler on a queue that remembers what was done to its messages."""

import asyncio
import time
from typing import Any

from lookout.dead_letters import DeadLetters
from lookout.leases import Leases
from lookout.model import Asked, Message, Nothing, Report
from lookout.replies import Replies
from lookout.settler import Settler
from lookout.sqs import Queue

NOTHING = Nothing("said for its outcome only")


class Client:
    """The calls of an SQS client that settling makes; all work, but for the sends that are refused first."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.deleted: list[str] = []
        self.kept: dict[str, list[int]] = {}
        self.sent: list[dict[str, Any]] = []
        self.refused: list[Exception] = []
        self.away = ""  # a queue that never answers
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.keeps: list[Exception] = []  # what deletes are refused with first

    async def send_message(self, **parameters: Any) -> dict[str, Any]:
        await self.may_send.wait()
        if parameters["QueueUrl"] == self.away:
            raise OSError("away")
        if self.refused:
            raise self.refused.pop(0)
        self.calls.append("send")
        self.sent.append(parameters)
        return {}

    async def delete_message(self, **parameters: Any) -> dict[str, Any]:
        if self.keeps:
            raise self.keeps.pop(0)
        self.calls.append("delete")
        self.deleted.append(parameters["ReceiptHandle"])
        return {}

    async def change_message_visibility(self, **parameters: Any) -> dict[str, Any]:
        self.kept.setdefault(parameters["ReceiptHandle"], []).append(parameters["VisibilityTimeout"])
        return {}


class Bench:
    """A settler, and a queue that remembers what was done to its messages."""

    def __init__(self, *, aside: str = "", results: str = "", patience: float = 0.05, **options: Any) -> None:
        self.client = Client()
        self.queue = Queue(self.client, "queue")  # type: ignore[arg-type]
        self.leases = Leases(self.queue, slots=32, retry_pause=0)
        dead_letters = DeadLetters(self.queue.beside(aside), retry_pause=0) if aside else None
        replies = Replies(
            self.queue, result_queue_url=results or None, retry_pause=0, result_patience=patience
        )
        defaults = {"retry_for": 3600, "dead_letters": dead_letters, "replies": replies}
        self.settler = Settler(self.leases, **(defaults | options))

    async def settle(self, message: Message, report: Report, request: Asked = NOTHING) -> float | None:
        """Settle a receipt of this message: the seconds that it is kept for, or None if it is deleted."""
        self.leases.hold(message, time.monotonic())
        deleted = len(self.client.deleted)
        await self.settler.settle(message, report, request)
        assert not self.leases.holds(message)
        if len(self.client.deleted) > deleted:
            assert self.client.deleted[deleted:] == [message.receipt_handle]
            return None
        return self.client.kept[message.receipt_handle][-1]


def message(number: int = 1, *, age: float = 0) -> Message:
    return Message(f"m-{number}", "", f"handle-{number}", int((time.time() - age) * 1000))
