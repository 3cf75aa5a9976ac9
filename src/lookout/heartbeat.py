"""A file whose age tells anybody on this machine whether all is well."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import structlog

from lookout.errors import LookoutError
from lookout.vitals import Vitals

EVERY = 5.0  # seconds between two beats, and between two questions to the engine
ENGINE_PATIENCE = 10.0  # seconds for its answer: one that is busy is slow

log = structlog.stdlib.get_logger(__name__)


class Engine(Protocol):
    async def ping(self, *, within: float) -> None: ...


class Heartbeat:
    """Asks the engine whether it is there, and touches the file for as long as all is well."""

    def __init__(
        self,
        path: Path,
        vitals: Vitals,
        engine: Engine,
        *,
        every: float = EVERY,
        engine_patience: float = ENGINE_PATIENCE,
    ) -> None:
        self._file = HeartbeatFile(path)
        self._vitals = vitals
        self._engine = engine
        self._every = every
        self._engine_patience = engine_patience
        self._is_well: bool | None = None  # None before it was well for the first time

    async def run(self) -> None:
        """Beat until cancelled, and leave no file behind."""
        self._file.remove()  # that of a Lookout that was killed
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._again_and_again(self._ask), name="engine watch")
                both.create_task(self._again_and_again(self._beat), name="beat")
        finally:
            self._file.remove()

    async def _again_and_again(self, step: Callable[[], Awaitable[None]]) -> None:
        """A fault of its own is told when it begins: who only watches must not stop what is watched."""
        is_told = False
        while True:
            try:
                await step()
            except Exception:
                if not is_told:
                    log.exception("unexpected error; please report it")
                is_told = True
            else:
                is_told = False
            await asyncio.sleep(self._every)

    async def _ask(self) -> None:
        try:
            await self._engine.ping(within=self._engine_patience)
        except LookoutError as exc:
            self._vitals.engine_failed(str(exc))
        else:
            self._vitals.engine_answered()

    async def _beat(self) -> None:
        problem = self._vitals.problem()
        self._tell(problem)
        if not problem:
            self._file.touch()

    def _tell(self, problem: str) -> None:
        if problem and self._is_well:
            log.warning("unhealthy", reason=problem)
        elif not problem and not self._is_well:
            log.info("healthy")
        if not problem or self._is_well:
            self._is_well = not problem


class HeartbeatFile:
    """An empty file of its own. What it cannot be sure of it neither touches nor removes.

    Anybody may write in a folder such as /dev/shm: a link that lies there is not followed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_warned = False

    def touch(self) -> None:
        """Make it young, and make it if need be; the first time that this fails is a warning."""
        try:
            self._touch()
        except (OSError, ValueError) as exc:
            if not self._is_warned:
                log.warning(
                    "the heartbeat file cannot be written; going on without",
                    file=str(self._path),
                    error=getattr(exc, "strerror", None) or str(exc),
                )
            self._is_warned = True
        else:
            self._is_warned = False

    def remove(self) -> None:
        try:
            if _is_heartbeat(self._path.lstat()):
                self._path.unlink()
        except (OSError, ValueError):
            pass  # it goes stale by itself

    def _touch(self) -> None:
        # Without blocking, since it may be a pipe that nobody reads.
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            opened = os.open(self._path, flags)
        except FileNotFoundError:
            opened = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            if not _is_heartbeat(os.fstat(opened)):
                raise OSError(0, "there is a file that is no heartbeat")
            os.utime(opened)
        finally:
            os.close(opened)


def _is_heartbeat(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_size == 0
