"""One container replaced by its copy on a new image, stop-first.

The engine holds all of the state: names and labels of the two containers say where a swap stands.
"""

import asyncio
import datetime
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

import structlog

from lookout import proof
from lookout.engine import ENGINE_STOP_TIMEOUT, Engine
from lookout.errors import (
    Conflict,
    EngineError,
    EngineUnavailable,
    LookoutError,
    NotFound,
    NotReady,
    RolledBack,
    SwapRefused,
)
from lookout.model import Json
from lookout.names import BY, REPLACES, old_name
from lookout.patience import Patience
from lookout.plan import NAMESPACES, Plan
from lookout.ready import patience, wait_until_ready
from lookout.unbroken import unbroken
from lookout.undo import Undo, insist, rename

# A stopped container with one of these policies would be started by an engine that restarts.
REVIVED_BY_ENGINE = ("always", "on-failure")
PARKED = {"Name": "unless-stopped"}
ENDLESS = ("always", "unless-stopped")  # a container with one of these is never done
BAD_REQUEST = 400  # a create that will be refused again
ABANDONED_AFTER = 120  # seconds on top of what a swap waits for: none takes so long

log = structlog.stdlib.get_logger(__name__)


class Swap:
    """Create beside, stop the old, give its name to the new, start it, watch it, remove the old.

    The caller takes the steps, so that containers which depend on each other can take them together,
    and after a failure calls `undo` on all that were `touched`.
    """

    def __init__(self, engine: Engine, plan: Plan, *, by: str, monitor: float, deploy_time: float) -> None:
        self.plan = plan
        self.name = plan.name
        self.new_id = ""
        self.touched = False  # a step was begun that only `undo` takes back
        self._engine = engine
        self._old = plan.container
        self._by = by
        self._monitor = monitor
        self._deploy_time = deploy_time
        self._stopped_at: float | None = None
        self._log = log.bind(container=self.name)
        self._surely = Patience(self._log)
        self._undo = Undo(engine, plan, by, self._surely, self._log)

    async def prepare(self, new_ids: Mapping[str, str]) -> None:
        """Create the new container beside the old one, and prove that it is what was planned.

        `new_ids` are the ids of new containers that this one depends on, by their names. Raises
        SwapRefused, and leaves nothing behind, where it could not be made or is another.
        """
        try:
            body = _with_ids(self.plan.body, new_ids)
            self.new_id = await self._create(body)
            await self._connect_networks()
            await self._carry_files()
            await self._prove(body)
        except asyncio.CancelledError:
            await self._undo.discard()
            raise
        except Exception as exc:
            await self._undo.discard()
            self.new_id = ""
            if not isinstance(exc, EngineError | EngineUnavailable):
                raise
            transient = isinstance(exc, EngineUnavailable) or exc.status != BAD_REQUEST
            raise SwapRefused(f"{self.name}: {exc}", transient=transient) from exc

    async def discard(self) -> None:
        """Remove the new container again, if it was made and the old one was not touched yet."""
        if self.new_id and not self.touched:
            await self._undo.discard()

    async def stop(self) -> None:
        """Stop the old container, if it runs."""
        if self.plan.runs and self._stopped_at is None:
            self.touched = True
            stopped_at = time.monotonic()
            await self._surely(self._stop_old)
            self._stopped_at = stopped_at

    async def replace(self) -> None:
        """Put the new container in the old one's place; the old one waits, stopped, for `commit`.

        Raises NotReady or an engine's error where that did not work; then `undo` is due.
        """
        self._log.info("replacing", old_image=self._old["Config"]["Image"], new_image=self.plan.image)
        await self.stop()
        self.touched = True
        await self._surely(rename, self._engine, self.plan.old_id, old_name(self.name, self.plan.old_id))
        await self._surely(rename, self._engine, self.new_id, self.name)
        if self._stopped_at is None:
            return
        await self._surely(self._engine.start, self.new_id)
        self._log.info("started", downtime_seconds=round(time.monotonic() - self._stopped_at, 2))
        if self._must_be_ready():
            await self._surely(self._wait_until_ready)

    async def commit(self) -> None:
        """Remove the old container; its volumes stay."""
        removal = asyncio.ensure_future(self._surely(self._remove_old))
        try:
            await unbroken(removal)
        finally:
            if removal.cancelled():
                self._note_old("no time was left to remove it")
        self._log.info("replaced", old_id=self.plan.old_id[:12], new_id=self.new_id[:12])
        if self.plan.chooses_ports:
            await self._report_ports()

    def note(self, cause: Exception) -> None:
        """Log why the old container comes back."""
        self._log.warning(
            "the swap failed; bringing the old container back",
            error=str(cause) or repr(cause),
            exc_info=None if isinstance(cause, NotReady | EngineError) else cause,
        )

    async def retire(self) -> None:
        """Stop the new container of a dependent, before what it depends on goes; `undo` follows."""
        if self.touched and self.plan.follows:
            await self._undo.retire()

    async def undo(self, *, in_a_hurry: bool = False) -> None:
        """Bring the old container back after all; raises RollbackFailed. Safe to repeat."""
        if self.touched:
            await self._undo.run(in_a_hurry=in_a_hurry)

    def verdict(self, cause: Exception) -> LookoutError:
        """What or who was to blame, once the old container is back."""
        reason = f"{self.name}: {cause}"
        if self._undo.old_is_gone:
            return RolledBack(f"{reason}; the old container was removed by somebody else meanwhile")
        if self._surely.was_needed or self._stopped_at is None:
            return SwapRefused(reason, transient=True)
        return RolledBack(reason)

    async def _create(self, body: Json) -> str:
        signed = body | {"Labels": body["Labels"] | {BY: self._by}}
        try:
            return await unbroken(self._engine.create(self.plan.new_name, signed))
        except Conflict:
            await self._remove_leftover()
            return await unbroken(self._engine.create(self.plan.new_name, signed))

    async def _remove_leftover(self) -> None:
        """Remove what an interrupted swap of this very container has left under the temporary name.

        Raises SwapRefused if it may as well be another Lookout's, at work right now.
        """
        other = await self._engine.container(self.plan.new_name)
        if other["State"]["Running"] or not is_abandoned(other, self._old, by=self._by):
            raise SwapRefused(
                f"{self.name}: {self.plan.new_name} exists; is another Lookout at work on this engine? "
                "If not, remove it by hand",
                transient=True,
            )
        self._log.warning("removing what an interrupted swap has left over", leftover=self.plan.new_name)
        await self._engine.remove(other["Id"], volumes=True, force=True)

    async def _connect_networks(self) -> None:
        for network in self.plan.disconnect:
            await self._engine.detach(network, self.new_id)
        for network, endpoint in self.plan.connect:
            await self._engine.attach(network, self.new_id, endpoint)

    async def _carry_files(self) -> None:
        for path in self.plan.archives:
            await self._engine.copy_files(self.plan.old_id, self.new_id, path)

    async def _prove(self, body: Json) -> None:
        """The new container is what was planned, or nothing is stopped for it."""
        new = await self._engine.container(self.new_id)
        if new["Image"] != self.plan.image_id:
            raise SwapRefused(
                f"{self.name}: the tag moved to another image while it was deployed", transient=True
            )
        found = proof.compare(self.plan, body, new, await self._engine.networks())
        for remark in found.remarks:
            self._log.info("remark", remark=remark)
        if found.differences:
            raise SwapRefused(
                f"{self.name}: the copy would not be faithful; it differs in {'; '.join(found.differences)}",
                transient=False,
            )

    async def _stop_old(self) -> None:
        policy = self._old["HostConfig"].get("RestartPolicy") or {}
        revived = policy.get("Name") in REVIVED_BY_ENGINE
        if revived:
            with suppress(EngineError):  # one that crashes again and again may be between two runs
                await self._engine.set_restart_policy(self.plan.old_id, PARKED)
        self._undo.stop_is_open = True
        await self._engine.stop(self.plan.old_id, own_timeout=self._old["Config"].get("StopTimeout"))
        self._undo.stop_is_open = False
        old = await self._engine.container(self.plan.old_id)
        if old["State"]["Running"]:
            raise EngineError(f"stop {self.plan.old_id}", 200, "it still runs")
        if revived and old["HostConfig"]["RestartPolicy"]["Name"] != PARKED["Name"]:
            await self._engine.set_restart_policy(self.plan.old_id, PARKED)

    def _must_be_ready(self) -> bool:
        """A dependent that was no good before is not asked to be good now."""
        state = self._old["State"]
        # A crash loop may have been met in the middle of a run: then only the count tells it.
        has_crashed = state.get("Restarting") or self._old.get("RestartCount")
        was_well = not has_crashed and (state.get("Health") or {}).get("Status") != "unhealthy"
        return not self.plan.follows or was_well

    async def _wait_until_ready(self) -> None:
        try:
            await wait_until_ready(
                self._engine, self.new_id, monitor=self._monitor, deploy_time=self._deploy_time
            )
        except NotReady:
            if not (self.plan.follows and await self._has_done_its_work()):
                raise

    async def _has_done_its_work(self) -> bool:
        """Whether it has ended well, as a dependent may that does one job and is not to be restarted."""
        new = await self._engine.container(self.new_id)
        policy = (new["HostConfig"].get("RestartPolicy") or {}).get("Name")
        state = new["State"]
        return policy not in ENDLESS and state["Status"] == "exited" and state["ExitCode"] == 0

    async def _remove_old(self) -> None:
        try:
            await insist(self._engine.remove, self.plan.old_id)
        except NotFound:
            pass
        except EngineError as exc:
            self._note_old(str(exc))

    async def _report_ports(self) -> None:
        """Where the new container is published: nobody could know it from the request."""
        with suppress(EngineError, EngineUnavailable):
            new = await self._engine.container(self.new_id)
            ports = {
                port: [f"{binding['HostIp']}:{binding['HostPort']}" for binding in bindings]
                for port, bindings in (new["NetworkSettings"].get("Ports") or {}).items()
                if bindings
            }
            self._log.info("published", ports=ports)

    def _note_old(self, why: str) -> None:
        name = old_name(self.name, self.plan.old_id)
        self._log.error(
            "the old container is still there", error=why, next=f"remove it by hand: docker rm {name}"
        )


def stop_steps(plan: Plan) -> Iterator[str]:
    """What `Swap.stop` does, as text."""
    if not plan.runs:
        return
    policy = plan.container["HostConfig"].get("RestartPolicy") or {}
    if policy.get("Name") in REVIVED_BY_ENGINE:
        yield f"set the restart policy of {plan.name} to {PARKED['Name']}"
    yield f"stop {plan.name}"


def take_over_steps(plan: Plan) -> Iterator[str]:
    """What `Swap.replace` does after the stop, as text."""
    yield f"rename {plan.name} to {old_name(plan.name, plan.old_id)}"
    yield f"rename {plan.new_name} to {plan.name}"
    if plan.runs:
        yield f"start {plan.name}"
        yield f"wait until {plan.name} is ready, else undo all of this"


def is_abandoned(new: Json, old: Json, *, by: str) -> bool:
    """Whether nobody is at work with this new container of `old` any more.

    It was made by this very Lookout, which makes no second one meanwhile, or longer ago than any
    swap can take until it is ready.
    """
    labels = new["Config"].get("Labels") or {}
    created = datetime.datetime.fromisoformat(new["Created"][:19] + "+00:00")
    age = (datetime.datetime.now(datetime.UTC) - created).total_seconds()
    timeout = old["Config"].get("StopTimeout") or ENGINE_STOP_TIMEOUT
    if check := new["Config"].get("Healthcheck"):
        timeout += patience(check)
    return labels.get(REPLACES) == old["Id"] and (labels.get(BY) == by or age > timeout + ABANDONED_AFTER)


def _with_ids(body: Json, new_ids: Mapping[str, str]) -> Json:
    """The request with ids for the names of new containers, which those have only for a while.

    The engine keeps a link as it was asked for, and reads it again at its own restart.
    """
    host = dict(body["HostConfig"])
    for field in NAMESPACES:
        kind, colon, name = (host.get(field) or "").partition(":")
        if name in new_ids:
            host[field] = kind + colon + new_ids[name]
    for field in ("Links", "VolumesFrom"):
        entries = (entry.partition(":") for entry in host.get(field) or ())
        if known := [new_ids.get(name, name) + colon + rest for name, colon, rest in entries]:
            host[field] = known
    return body | {"HostConfig": host}
