"""What the daemon looks at once, at its start: which containers it manages, and what the queues do not allow."""

import asyncio
from urllib.parse import urlsplit

import structlog

from lookout import aws, permissions
from lookout.chosen import Settings
from lookout.engine_check import left_alone, managed
from lookout.errors import QueueDenied
from lookout.permissions import MISSING, Permission
from lookout.planner import Planner
from lookout.probe import Answer, Probe
from lookout.sqs import Queue

log = structlog.stdlib.get_logger(__name__)


async def look_round(settings: Settings, planner: Planner, queue: Queue) -> None:
    """Say it beside the first poll, which waits for nothing of it. Nothing changes by what is found."""
    for problem in await asyncio.gather(_introduce(planner), _ask(settings, queue), return_exceptions=True):
        if problem:
            log.debug("not all is known at the start", error=str(problem))


async def _introduce(planner: Planner) -> None:
    targets = await planner.everything()
    log.info("managing", containers=managed(targets), left_alone=left_alone(targets))


async def _ask(settings: Settings, queue: Queue) -> None:
    """About receiving and extending the first poll and the first renewal tell by themselves."""
    probe = queue.seen_as(Probe)
    # Another server might take the message that cannot be sent.
    is_strict = aws.is_at_aws(urlsplit(probe.server).hostname or "")
    sending_to = permissions.others(settings) if is_strict else []
    deleting, *sending = await asyncio.gather(
        probe.try_delete(), *(probe.beside(url).try_send() for url, _ in sending_to)
    )
    _note(permissions.DELETE, deleting)
    for (_, permission), answer in zip(sending_to, sending, strict=True):
        _note(permission, answer)


def _note(permission: Permission, answer: Answer) -> None:
    if isinstance(answer.error, QueueDenied):
        log.warning(
            "a permission is missing; add this statement to the policy",
            action=permission.action,
            queue=permission.about,
            without_it=permission.without,
            statement=permission.policy,
            error=str(answer.error),
        )
    elif answer.code in MISSING and permission is not permissions.DELETE:  # of its own the first poll tells
        log.warning("no such queue", queue=permission.about, error=str(answer.error))
