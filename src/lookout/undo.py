"""The way back: the old container runs again under its name, and nothing is left of the new one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from structlog.stdlib import BoundLogger
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from lookout.engine import Engine
from lookout.errors import EngineError, NotFound, RollbackFailed
from lookout.model import Json
from lookout.names import BY, REPLACES, name_of
from lookout.patience import Patience
from lookout.plan import Plan
from lookout.unbroken import unbroken

SETTLE = 1.0  # seconds that the old container must run again before the rollback counts
INSIST_FOR = 10.0  # seconds in which a call that the engine refuses is tried again
STOP_WITHIN = 10  # seconds that a container which is no good gets to stop, whatever its own timeout

Step = Callable[[], Awaitable[None]]


class Undo:
    """Whatever of a swap has been done; every step first looks, so all of it is safe to repeat."""

    def __init__(self, engine: Engine, plan: Plan, by: str, surely: Patience, log: BoundLogger) -> None:
        self._engine = engine
        self._plan = plan
        self._old = plan.container
        self._old_id = plan.old_id
        self._name = plan.name
        self._labels = (f"{REPLACES}={plan.old_id}", f"{BY}={by}")
        self._surely = surely
        self._log = log
        self._new: Json | None = None
        self._log_tail = ""
        self._in_a_hurry = False
        self.stop_is_open = False  # a stop of the old container was begun, and has not been seen to end
        self.old_is_gone = False

    async def run(self, *, in_a_hurry: bool = False) -> None:
        """Bring the old container back; raises RollbackFailed, and keeps the new one, if it can't.

        In a hurry nothing is asked politely. Cancelled, it begins again in a hurry, and lets the
        cancellation pass when the old one runs.
        """
        try:
            if in_a_hurry:
                await self._hurry()
            else:
                try:
                    await self._surely(self._steps)
                except asyncio.CancelledError:
                    with suppress(EngineError, RollbackFailed):  # the cancellation must not be lost over it
                        await self._hurry()
                    raise
        except EngineError as exc:
            raise RollbackFailed(self._name, str(exc)) from exc

    async def discard(self) -> None:
        """Remove the new container, also one whose create was cut; nothing was stopped yet."""
        self._new = await self._surely(self._find_new)
        await self._surely(self._remove_new)

    async def retire(self) -> None:
        """Stop the new container; what goes wrong with it is for `run` to say."""
        try:
            self._new = await self._surely(self._find_new)
            await self._surely(self._stop_new)
        except EngineError as exc:
            self._log.debug("not retired", error=str(exc))

    async def _hurry(self) -> None:
        self._in_a_hurry = True
        try:
            await self._surely(self._steps)
        except asyncio.CancelledError:
            self._log.critical(
                "ended in the middle of a swap",
                old_id=self._old_id[:12],
                new_id=self._new["Id"][:12] if self._new else None,
                next=f"look at `docker ps -a`; to have the old one back: docker start {self._old_id[:12]}",
            )
            raise

    async def _steps(self) -> None:
        self._new = await self._find_new()
        if await self._is_gone():
            return await self._remove_new()
        steps: tuple[Step, ...] = (
            *((self._stop_new,) if self._in_a_hurry else (self._stop_new, self._keep_log)),
            *(self._put_new_aside, self._name_old_again, self._give_policy_back, self._revive_old),
        )
        await self._each(steps)
        await self._remove_new()
        self._log.info("the old container runs again", log_tail_of_the_new=self._log_tail)
        return None

    async def _each(self, steps: tuple[Step, ...]) -> None:
        """All of them: a step that fails is no reason to leave the service down."""
        problem: EngineError | RollbackFailed | None = None
        for step in steps:
            try:
                await step()
            except (EngineError, RollbackFailed) as exc:
                problem = exc
        if problem:
            raise problem

    async def _is_gone(self) -> bool:
        try:
            await self._engine.container(self._old_id)
        except NotFound:
            self.old_is_gone = True
            self._log.error("the old container was removed by somebody else; there is nothing to bring back")
        return self.old_is_gone

    async def _find_new(self) -> Json | None:
        """By its labels rather than by what a call answered: one that was cut may have happened."""
        for container in await self._engine.containers(*self._labels, every=True):
            try:
                return await self._engine.container(container)
            except NotFound:
                continue
        return None

    async def _stop_new(self) -> None:
        if self._new:
            within = 0 if self._in_a_hurry else STOP_WITHIN
            with self._new_may_be_gone():
                await self._engine.stop(self._new["Id"], within=within)

    async def _keep_log(self) -> None:
        """Its last lines say why it was not good, and go with it. Some log drivers cannot be read."""
        if self._new:
            try:
                self._log_tail = await self._engine.log_tail(self._new["Id"])
            except EngineError as exc:
                self._log_tail = f"(not to be had: {exc})"

    async def _put_new_aside(self) -> None:
        if self._new:
            with self._new_may_be_gone():
                await insist(rename, self._engine, self._new["Id"], self._plan.new_name)

    @contextmanager
    def _new_may_be_gone(self) -> Iterator[None]:
        """Somebody else, such as compose, may remove the new container at any moment: so much the better."""
        try:
            yield
        except NotFound:
            self._new = None

    async def _name_old_again(self) -> None:
        await insist(rename, self._engine, self._old_id, self._name)

    async def _give_policy_back(self) -> None:
        wanted = self._old["HostConfig"].get("RestartPolicy") or {}
        current = (await self._engine.container(self._old_id))["HostConfig"].get("RestartPolicy") or {}
        if current != wanted:
            await insist(self._engine.set_restart_policy, self._old_id, wanted)

    async def _revive_old(self) -> None:
        """Start the old container. One whose stop was cut may be about to exit: stop it first."""
        if not self._plan.runs:
            return
        if self.stop_is_open and (await self._engine.container(self._old_id))["State"]["Running"]:
            own = self._old["Config"].get("StopTimeout")
            await self._engine.stop(self._old_id, own_timeout=own, within=0 if self._in_a_hurry else None)
        self.stop_is_open = False
        await self._start_old()
        await asyncio.sleep(0 if self._in_a_hurry else SETTLE)
        state = (await self._engine.container(self._old_id))["State"]
        looped = self._old["State"].get("Restarting") or self._old.get("RestartCount")
        if not state["Running"] and not (looped and state.get("Restarting")):
            raise RollbackFailed(self._name, f"it exited with code {state['ExitCode']} right after its start")

    async def _start_old(self) -> None:
        """Its port or address may be in use for a moment longer than its successor was."""
        await insist(self._engine.start, self._old_id)

    async def _remove_new(self) -> None:
        """With its own fresh volumes; those it shares with the old one are named, and stay."""
        if not self._new:
            return
        try:
            await insist(self._engine.remove, self._new["Id"], volumes=True, force=True)
        except NotFound:
            pass
        except EngineError as exc:
            self._log.error(
                "the new container is still there",
                error=str(exc),
                next=f"remove it by hand: docker rm -f -v {self._new['Id'][:12]}",
            )


async def rename(engine: Engine, container: str, name: str) -> None:
    """Give a container this name, unless it has it already; raises NotFound only where there is none.

    Of one that is just crashing an engine says 404 as well, and means its network.
    """
    if name_of(await engine.container(container)) == name:
        return
    try:
        await unbroken(engine.rename(container, name))
    except NotFound as exc:
        await engine.container(container)
        raise EngineError(exc.call, exc.status, exc.message) from exc


async def insist(step: Callable[..., Awaitable[None]], *args: object, **kwargs: object) -> None:
    """Repeat for a while what the engine refuses; a container that does not exist is not waited for."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(EngineError) & retry_if_not_exception_type(NotFound),
        stop=stop_after_delay(INSIST_FOR),
        wait=wait_random_exponential(min=0.2, max=2),
        reraise=True,
    )
    await retrying(step, *args, **kwargs)
