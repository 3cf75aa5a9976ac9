"""One lock for each container name: two swaps never touch one container at the same time."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from lookout.unbroken import unless


class Locks:
    """The locks of this process; waiting for one ends when `stopping` is set."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of these containers; taken in sorted order, so that no two wait in a ring.

        Raises Interrupted where Lookout is asked to stop meanwhile.
        """
        async with AsyncExitStack() as stack:
            for name in sorted(names):
                lock = self._locks.setdefault(name, asyncio.Lock())
                await unless(self._stopping, lock.acquire())
                stack.callback(lock.release)
            yield

    def are_free(self, names: Iterable[str]) -> bool:
        """Whether nobody holds any of them now."""
        return not any(name in self._locks and self._locks[name].locked() for name in names)
