"""One container replaced by its copy on a new image, stop-first.

The engine holds all of the state: names and labels of the two containers say where a swap stands.
"""

import asyncio
import datetime
import time
from collections.abc import Mapping

import structlog

from lookout.engine import ENGINE_STOP_TIMEOUT, Engine
from lookout.errors import (
    Conflict,
    EngineError,
    EngineUnavailable,
    NotFound,
    NotReady,
    RolledBack,
    SwapRefused,
)
from lookout.model import Json
from lookout.names import BY, REPLACES, old_name
from lookout.patience import Patience
from lookout.ready import wait_until_ready
from lookout.recreate import Copy
from lookout.targets import name_of
from lookout.unbroken import unbroken
from lookout.undo import Undo, insist, rename

# A stopped container with one of these policies would be started by an engine that restarts.
REVIVED_BY_ENGINE = ("always", "on-failure")
PARKED = {"Name": "unless-stopped"}
BAD_REQUEST = 400  # a create that will be refused again
ABANDONED_AFTER = 120  # seconds on top of a stop timeout: no swap leaves its new container unstarted so long

log = structlog.stdlib.get_logger(__name__)


class Swap:
    """Create beside, stop the old, give its name to the new, start it, watch it, remove the old."""

    def __init__(
        self,
        engine: Engine,
        old: Json,
        copy: Copy,
        image_id: str,
        *,
        by: str,
        monitor: float,
        deploy_time: float,
    ) -> None:
        self.name = name_of(old)
        self.old_id = str(old["Id"])
        self.failed = False
        self._engine = engine
        self._old = old
        self._copy = copy
        self._image_id = image_id
        self._by = by
        self._monitor = monitor
        self._deploy_time = deploy_time
        self._new_id = ""
        self._stopped = False
        self._log = log.bind(container=self.name)
        self._surely = Patience(self._log)
        self._undo = Undo(engine, old, copy.name, by, self._surely, self._log)

    async def replace(self) -> None:
        """Put the new container in the old one's place; the old one waits, stopped, for `commit`.

        Raises SwapRefused where nothing was stopped, or the engine and not the image was to blame,
        RolledBack where the image was no good, and RollbackFailed where the old container does not
        run again. Cancelled, it undoes what it has done and then lets the cancellation pass.
        """
        self._log.info("replacing", old_image=self._old["Config"]["Image"])
        await self._create_beside()
        stopped_at = time.monotonic()
        try:
            await self._surely(self._stop_old)
            await self._take_place()
            self._log.info("started", downtime_seconds=round(time.monotonic() - stopped_at, 2))
            await self._surely(self._wait_until_ready)
        except asyncio.CancelledError:
            await self._undo.run(in_a_hurry=True)
            raise
        except Exception as exc:  # noqa: BLE001  whatever it is, the old container comes back first
            await self._give_up(exc)

    async def commit(self) -> None:
        """Remove the old container; its volumes stay."""
        removal = asyncio.ensure_future(self._surely(self._remove_old))
        try:
            await unbroken(removal)
        finally:
            if removal.cancelled():
                self._note_old("no time was left to remove it")
        self._log.info("replaced", old_id=self.old_id[:12], new_id=self._new_id[:12])

    async def undo(self) -> None:
        """Bring the old container back after all; raises RollbackFailed."""
        await self._undo.run()

    async def _create_beside(self) -> None:
        try:
            self._new_id = await self._create()
            await self._connect_networks()
            await self._carry_files()
            await self._compare()
        except asyncio.CancelledError:
            await self._undo.discard()
            raise
        except Exception as exc:
            await self._undo.discard()
            if not isinstance(exc, EngineError | EngineUnavailable):
                raise
            transient = isinstance(exc, EngineUnavailable) or exc.status != BAD_REQUEST
            raise SwapRefused(f"{self.name}: {exc}", transient=transient) from exc

    async def _create(self) -> str:
        body = self._copy.body | {"Labels": self._copy.body["Labels"] | {BY: self._by}}
        try:
            return await unbroken(self._engine.create(self._copy.name, body))
        except Conflict:
            await self._remove_leftover()
            return await unbroken(self._engine.create(self._copy.name, body))

    async def _remove_leftover(self) -> None:
        """Remove what an interrupted swap of this very container has left under the temporary name.

        Raises SwapRefused if it may as well be another Lookout's, at work right now.
        """
        other = await self._engine.container(self._copy.name)
        if other["State"]["Running"] or not is_abandoned(other, self._old, by=self._by):
            raise SwapRefused(
                f"{self.name}: {self._copy.name} exists; is another Lookout at work on this engine? "
                "If not, remove it by hand",
                transient=True,
            )
        self._log.warning("removing what an interrupted swap has left over", leftover=self._copy.name)
        await self._engine.remove(other["Id"], volumes=True, force=True)

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
        self._undo.stop_is_open = True
        await self._engine.stop(self.old_id, own_timeout=self._old["Config"].get("StopTimeout"))
        self._undo.stop_is_open = False
        if (await self._engine.container(self.old_id))["State"]["Running"]:
            raise EngineError(f"stop {self.old_id}", 200, "it still runs")
        self._stopped = True

    async def _take_place(self) -> None:
        await self._surely(rename, self._engine, self.old_id, old_name(self.name, self.old_id))
        await self._surely(rename, self._engine, self._new_id, self.name)
        await self._surely(self._engine.start, self._new_id)

    async def _wait_until_ready(self) -> None:
        await wait_until_ready(
            self._engine, self._new_id, monitor=self._monitor, deploy_time=self._deploy_time
        )

    async def _give_up(self, cause: Exception) -> None:
        """Bring the old container back, and say what or who was to blame."""
        self.failed = True
        self._log.warning(
            "the swap failed; bringing the old container back",
            error=str(cause) or repr(cause),
            exc_info=not isinstance(cause, NotReady | EngineError),
        )
        await self._undo.run()
        reason = f"{self.name}: {cause}"
        if self._undo.old_is_gone:
            reason += "; the old container was removed by somebody else meanwhile"
        elif self._surely.was_needed or not self._stopped:
            raise SwapRefused(reason, transient=True) from cause
        raise RolledBack(reason) from cause

    async def _remove_old(self) -> None:
        try:
            await insist(self._engine.remove, self.old_id)
        except NotFound:
            pass
        except EngineError as exc:
            self._note_old(str(exc))

    def _note_old(self, why: str) -> None:
        name = old_name(self.name, self.old_id)
        self._log.error(
            "the old container is still there", error=why, next=f"remove it by hand: docker rm {name}"
        )


def is_abandoned(new: Json, old: Json, *, by: str) -> bool:
    """Whether nobody is at work with this new container of `old` any more.

    It was made by this very Lookout, which makes no second one meanwhile, or longer ago than any
    swap leaves its new container unstarted.
    """
    labels = new["Config"].get("Labels") or {}
    created = datetime.datetime.fromisoformat(new["Created"][:19] + "+00:00")
    age = (datetime.datetime.now(datetime.UTC) - created).total_seconds()
    timeout = old["Config"].get("StopTimeout") or ENGINE_STOP_TIMEOUT
    return labels.get(REPLACES) == old["Id"] and (labels.get(BY) == by or age > timeout + ABANDONED_AFTER)


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
