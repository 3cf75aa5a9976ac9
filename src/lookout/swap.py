"""One container replaced by its copy on a new image, or the old one brought back.

The engine holds all of the state: names and labels of the two containers say where a swap stands,
so every step first looks and is safe to repeat.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from lookout.engine import Engine
from lookout.errors import (
    Conflict,
    EngineError,
    EngineUnavailable,
    NotFound,
    NotReady,
    RollbackFailed,
    RolledBack,
    SwapRefused,
)
from lookout.model import Json
from lookout.names import REPLACES, old_name
from lookout.ready import wait_until_ready
from lookout.recreate import Copy
from lookout.targets import name_of
from lookout.unbroken import unbroken

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")

# A stopped container with one of these policies would be started by an engine that restarts.
REVIVED_BY_ENGINE = ("always", "on-failure")
PARKED = {"Name": "unless-stopped"}
BAD_REQUEST = 400  # a create that will be refused again
SETTLE = 1.0  # seconds that the old container must run again before the rollback counts
START_FOR = 10.0  # seconds in which the old container's start is tried again
LONGEST_WAIT = 30.0  # seconds between two tries while the engine is away

log = structlog.stdlib.get_logger(__name__)


class Swap:
    """Stop-first: create beside, stop the old, give its name to the new, start it, remove the old."""

    def __init__(
        self,
        engine: Engine,
        old: Json,
        copy: Copy,
        image_id: str,
        *,
        monitor: float,
        deploy_time: float,
    ) -> None:
        self._engine = engine
        self._old = old
        self._copy = copy
        self._image_id = image_id
        self._monitor = monitor
        self._deploy_time = deploy_time
        self._new_id = ""
        self._stop_begun = False
        self._in_a_hurry = False
        self._log_tail = ""
        self.name = name_of(old)
        self.old_id = str(old["Id"])
        self._log = log.bind(container=self.name)

    async def replace(self) -> None:
        """Put the new container in the old one's place; the old one waits, stopped, for `commit`.

        Raises SwapRefused where it ended before the old container was stopped, RolledBack where
        the old one runs again, and RollbackFailed where it does not. Cancelled, it undoes what it
        has done and then lets the cancellation pass.
        """
        self._log.info("replacing", old_image=self._old["Config"]["Image"])
        await self._create_beside()
        stopped_at = time.monotonic()
        try:
            await self._surely(self._stop_old)
            await unbroken(self._take_place())
            self._log.info("started", downtime_seconds=round(time.monotonic() - stopped_at, 2))
            await self._surely(self._wait_until_ready)
        except (NotReady, EngineError) as exc:
            self._log.warning("the new container is not good; bringing the old one back", error=str(exc))
            await self.undo()
            raise RolledBack(f"{self.name}: {exc}") from exc
        except asyncio.CancelledError:
            self._in_a_hurry = True
            await self.undo()
            raise

    async def commit(self) -> None:
        """Remove the old container; its volumes stay."""
        await unbroken(self._surely(self._remove_old))
        self._log.info("replaced", old_id=self.old_id[:12], new_id=self._new_id[:12])

    async def undo(self) -> None:
        """Remove the new container and make sure that the old one runs, whatever has been done.

        Raises RollbackFailed where the old one does not start; the new one is kept then. Cancelled,
        it begins again in a hurry, and lets the cancellation pass when the old one runs.
        """
        try:
            try:
                await self._surely(self._undo)
            except asyncio.CancelledError:
                if self._in_a_hurry:
                    raise
                self._in_a_hurry = True
                await self._surely(self._undo)
                raise
        except EngineError as exc:
            raise RollbackFailed(self.name, str(exc)) from exc
        self._log.info("the old container runs again", log_tail_of_the_new=self._log_tail)

    # Forward, in order

    async def _create_beside(self) -> None:
        try:
            self._new_id = await self._create()
            await self._connect_networks()
            await self._carry_files()
            await self._compare()
        except (EngineError, EngineUnavailable, SwapRefused) as exc:
            await self._discard_new()
            if isinstance(exc, SwapRefused):
                raise
            transient = isinstance(exc, EngineUnavailable) or exc.status != BAD_REQUEST
            raise SwapRefused(f"{self.name}: {exc}", transient=transient) from exc
        except asyncio.CancelledError:
            await self._discard_new()
            raise

    async def _create(self) -> str:
        try:
            return await unbroken(self._engine.create(self._copy.name, self._copy.body))
        except Conflict:
            if not await self._remove_leftover():
                raise
            return await unbroken(self._engine.create(self._copy.name, self._copy.body))

    async def _remove_leftover(self) -> bool:
        """Remove what an interrupted swap of this very container left under the temporary name."""
        other = await self._engine.container(self._copy.name)
        labels = other["Config"].get("Labels") or {}
        if labels.get(REPLACES) != self.old_id or other["State"]["Running"]:
            return False
        self._log.warning("removing what an interrupted swap has left over", leftover=self._copy.name)
        await self._engine.remove(other["Id"], volumes=True, force=True)
        return True

    async def _connect_networks(self) -> None:
        for network in self._copy.disconnect:
            await self._engine.detach(network, self._new_id)
        for network, endpoint in self._copy.connect:
            await self._engine.attach(network, self._new_id, endpoint)

    async def _carry_files(self) -> None:
        for path in self._copy.archives:
            await self._engine.copy_files(self.old_id, self._new_id, path)

    async def _compare(self) -> None:
        """The new container before anything is stopped: the right image, volumes and networks."""
        new = await self._engine.container(self._new_id)
        if new["Image"] != self._image_id:
            raise SwapRefused(
                f"{self.name}: the tag moved to another image while it was deployed", transient=True
            )
        missing = _volumes(self._old) - _volumes(new)
        if missing:
            what = ", ".join(f"{name} at {path}" for path, name in sorted(missing))
            raise SwapRefused(f"{self.name}: the copy would lose volume {what}", transient=False)
        names = await self._engine.networks()
        networks = _networks(self._old, names) ^ _networks(new, names)
        if networks:
            what = ", ".join(sorted(networks))
            raise SwapRefused(f"{self.name}: the copy would differ in networks: {what}", transient=False)

    async def _stop_old(self) -> None:
        policy = self._old["HostConfig"].get("RestartPolicy") or {}
        if policy.get("Name") in REVIVED_BY_ENGINE:
            await self._engine.set_restart_policy(self.old_id, PARKED)
        self._stop_begun = True
        await self._engine.stop(self.old_id, stop_timeout=self._old["Config"].get("StopTimeout"))
        self._stop_begun = False

    async def _take_place(self) -> None:
        await self._surely(self._rename, self.old_id, old_name(self.name, self.old_id))
        await self._surely(self._rename, self._new_id, self.name)
        await self._surely(self._engine.start, self._new_id)

    async def _wait_until_ready(self) -> None:
        await wait_until_ready(
            self._engine, self._new_id, monitor=self._monitor, deploy_time=self._deploy_time
        )

    async def _remove_old(self) -> None:
        try:
            await self._engine.remove(self.old_id)
        except NotFound:
            pass
        except EngineError as exc:
            self._log.warning(
                "the old container could not be removed; remove it by hand",
                leftover=old_name(self.name, self.old_id),
                error=str(exc),
            )

    # Backward, in order

    async def _undo(self) -> None:
        old = await self._engine.container(self.old_id)
        new = await self._find_new()
        if new:
            await self._put_new_aside(new)
        unnamed = await self._name_again()
        await self._give_policy_back(old)
        await self._revive_old()
        if unnamed:
            raise unnamed
        if new:
            await self._remove_new(new["Id"])

    async def _name_again(self) -> EngineError | None:
        """A name that somebody else has taken meanwhile is no reason to leave the service down."""
        try:
            await self._rename(self.old_id, self.name)
        except EngineError as exc:
            return exc
        return None

    async def _find_new(self) -> Json | None:
        """By its label rather than by what a call answered: one that was cut may have happened."""
        for container in await self._engine.containers(every=True, label=f"{REPLACES}={self.old_id}"):
            try:
                return await self._engine.container(container)
            except NotFound:
                continue
        return None

    async def _put_new_aside(self, new: Json) -> None:
        state = new["State"]
        if state["Running"] or state.get("Restarting"):
            timeout = new["Config"].get("StopTimeout")
            await self._engine.stop(new["Id"], stop_timeout=timeout, at_once=self._in_a_hurry)
        if not self._in_a_hurry:
            await self._keep_log(new["Id"])
        await self._rename(new["Id"], self._copy.name)

    async def _keep_log(self, new_id: str) -> None:
        """Its last lines say why it was not good, and go with it."""
        try:
            self._log_tail = await self._engine.log_tail(new_id)
        except EngineError as exc:
            self._log_tail = f"(not to be had: {exc})"

    async def _give_policy_back(self, old: Json) -> None:
        wanted = self._old["HostConfig"].get("RestartPolicy") or {}
        if (old["HostConfig"].get("RestartPolicy") or {}) != wanted:
            await self._engine.set_restart_policy(self.old_id, wanted)

    async def _revive_old(self) -> None:
        """Start the old container. One whose stop was cut may be about to exit: stop it first."""
        if self._stop_begun and (await self._engine.container(self.old_id))["State"]["Running"]:
            timeout = self._old["Config"].get("StopTimeout")
            await self._engine.stop(self.old_id, stop_timeout=timeout, at_once=self._in_a_hurry)
        self._stop_begun = False
        await self._start_old()
        await asyncio.sleep(0 if self._in_a_hurry else SETTLE)
        state = (await self._engine.container(self.old_id))["State"]
        if not state["Running"] and not self._old["State"].get("Restarting"):
            raise RollbackFailed(self.name, f"it exited with code {state['ExitCode']} right after its start")

    async def _start_old(self) -> None:
        """Its port or address may be in use for a moment longer than its successor was."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(EngineError),
            stop=stop_after_delay(0 if self._in_a_hurry else START_FOR),
            wait=wait_random_exponential(min=0.2, max=2),
            reraise=True,
        )
        await retrying(self._engine.start, self.old_id)

    async def _discard_new(self) -> None:
        """Nothing was stopped yet: remove the new container, also one whose create was cut."""
        new = await self._surely(self._find_new)
        if new:
            await self._surely(self._remove_new, new["Id"])

    async def _remove_new(self, new_id: str) -> None:
        """With its own fresh volumes; those it shares with the old one are named, and stay."""
        try:
            await self._engine.remove(new_id, volumes=True, force=True)
        except NotFound:
            pass
        except EngineError as exc:
            self._log.warning(
                "the new container could not be removed; remove it by hand",
                leftover=new_id[:12],
                error=str(exc),
            )

    async def _rename(self, container: str, name: str) -> None:
        if name_of(await self._engine.container(container)) != name:
            await self._engine.rename(container, name)

    async def _surely(
        self,
        step: Callable[Arguments, Coroutine[Any, Any, Value]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Value:
        """Repeat a step for as long as the engine is away: half a swap is no place to give up."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            wait=wait_random_exponential(min=0.2, max=LONGEST_WAIT),
            before_sleep=self._note_absence,
        )
        return await retrying(step, *args, **kwargs)

    def _note_absence(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._log.warning(
            "the engine is away in the middle of a swap; going on when it is back",
            error=str(error),
            seconds=round(state.upcoming_sleep, 1),
        )


def _volumes(container: Json) -> set[tuple[str, str]]:
    return {
        (mount["Destination"].rstrip("/"), mount.get("Name") or "")
        for mount in container.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount.get("Name")
    }


def _networks(container: Json, names: Mapping[str, str]) -> set[str]:
    """By name: one that was asked for by its id, or the beginning of it, is listed by that as well."""
    listed = container["NetworkSettings"].get("Networks") or {}
    return {
        names.get((endpoint or {}).get("NetworkID") or "", _name(key, names))
        for key, endpoint in listed.items()
    }


def _name(key: str, names: Mapping[str, str]) -> str:
    if key in names.values():
        return key
    return next((name for network, name in names.items() if network.startswith(key)), key)
