"""What Lookout does with queues, and what it needs for each of these things."""

from dataclasses import dataclass

from lookout import dead_letters, leases, replies
from lookout.aws import statement
from lookout.chosen import QueueSettings, Settings

#: Codes of errors: there is no such queue.
MISSING = ("QueueDoesNotExist", "NonExistentQueue", "QueueDeletedRecently", "InvalidAddress")


@dataclass(frozen=True)
class Permission:
    """Something that Lookout does with a queue."""

    about: str  # the setting that names the queue
    action: str
    policy: str  # the statement that allows it
    without: str  # what becomes of Lookout's work without it


RECEIVE = Permission(
    "SqsQueueUrl",
    "sqs:ReceiveMessage",
    statement("sqs:ReceiveMessage", "<the ARN of the queue>"),
    "Lookout hears of no deploy",
)
DELETE = Permission(
    "SqsQueueUrl",
    "sqs:DeleteMessage",
    statement("sqs:DeleteMessage", "<the ARN of the queue>"),
    "every message comes back after its deploy",
)
CHANGE = Permission(
    "SqsQueueUrl",
    "sqs:ChangeMessageVisibility",
    leases.PERMISSION,
    "messages are received one at a time, hidden for the longest deploy time seen",
)
LAY_ASIDE = Permission(
    "DeadLetterQueueUrl",
    "sqs:SendMessage",
    dead_letters.PERMISSION,
    "messages that ended badly stay on the queue",
)
TELL = Permission(
    "ResultQueueUrl",
    "sqs:SendMessage",
    replies.PERMISSION,
    "results are not sent",
)
REPLY = Permission(
    "ReplyQueueUrl",
    "sqs:SendMessage",
    replies.PERMISSION,
    "a sender that asks for a reply gets none",
)


def others(settings: QueueSettings) -> list[tuple[str, Permission]]:
    """The queues that Lookout only sends to, as far as the settings are right."""
    if not isinstance(settings, Settings):
        return []
    found = ((settings.dead_letter_queue_url, LAY_ASIDE), (settings.result_queue_url, TELL))
    return [(url, permission) for url, permission in found if url]
