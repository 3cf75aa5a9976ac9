"""What the tests of the queue side share: how to reach a server, what to send, how to wait."""

import asyncio
import inspect
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.model import Message
from lookout.settings import Settings
from lookout.sqs import Queue

# The credentials and region of any server that asks for none in particular.
ANYONE = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@asynccontextmanager
async def connected(url: str, environment: dict[str, str] = ANYONE, **more: Any) -> AsyncIterator[Queue]:
    """The queue at `url` as Lookout itself connects to it, as the user that the environment names."""
    settings = Settings(**{"SqsQueueUrl": url, "PollTimeSeconds": 1, **more})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        async with Queue.connect(settings, poll_time=settings.poll_time_seconds, calls=36) as queue:
            yield queue


def body(image: str = "acme/api", tag: str = "1", **more: object) -> str:
    return json.dumps({"ImageName": image, "ImageTag": tag, **more})


async def receive(queue: Queue, count: int = 1, *, visibility: int = 60) -> list[Message]:
    """Exactly so many messages."""
    messages: list[Message] = []
    deadline = time.monotonic() + 10
    while len(messages) < count:
        assert time.monotonic() < deadline, f"only {len(messages)} of {count} messages came"
        messages += await queue.receive(count - len(messages), wait=1, visibility=visibility)
    return messages


async def until(condition: Callable[[], object | Awaitable[object]], within: float = 15) -> None:
    """Wait until the condition holds; one that takes long to look at is looked at less often."""
    deadline = time.monotonic() + within
    while True:
        began = time.monotonic()
        met = condition()
        if await met if inspect.isawaitable(met) else met:
            return
        assert time.monotonic() < deadline, "in vain"
        await asyncio.sleep(min(max(0.01, 4 * (time.monotonic() - began)), 0.1))


def said(logs: list[EventDict], text: str) -> list[EventDict]:
    """The log events that begin with this text."""
    return [event for event in logs if event["event"].startswith(text)]
