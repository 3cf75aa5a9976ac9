"""For the few steps that must not be left half done."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from lookout.errors import Interrupted

Value = TypeVar("Value")


async def unbroken(step: Awaitable[Value]) -> Value:
    """Run `step` to its end even where the caller is cancelled; the cancellation follows then."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def unless(stop: asyncio.Event, step: Coroutine[Any, Any, Value]) -> Value:
    """Run `step`; when `stop` is set before it ends, cancel it and raise Interrupted."""
    task = asyncio.ensure_future(step)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Interrupted
        return task.result()
    finally:
        stopped.cancel()
        await ended(task, within=None)


async def ended(task: asyncio.Future[Any], *, within: float | None) -> None:
    """Cancel a task; again after so many seconds, for one that cleans up and cannot end."""
    for seconds in (within, None):
        task.cancel()
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return
