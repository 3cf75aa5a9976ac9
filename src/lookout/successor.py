"""The new container of a swap: created beside the old one, and proven to be what was planned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from lookout import names, proof
from lookout.engine import Engine
from lookout.errors import Conflict, EngineError, EngineUnavailable, InProgress, NotFound, SwapRefused
from lookout.history import Replaced, to_label
from lookout.model import Json, Origin
from lookout.names import reference_of
from lookout.pair import Pair
from lookout.plan import NAMESPACES, Plan
from lookout.ready import Monitor
from lookout.unbroken import unbroken

BAD_REQUEST = 400  # a create that will be refused again

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Signature:
    """Whose deploy it is, on everything that is made for it."""

    by: str
    deploy: str
    origin: Origin | None = None
    replaced: Sequence[Replaced] | None = None  # images to note; None leaves what is noted


class Successor:
    """Makes the new container of a plan, and a stand-in for an old one that a stop removes."""

    def __init__(self, engine: Engine, plan: Plan, signature: Signature, monitor: Monitor) -> None:
        self._engine = engine
        self._plan = plan
        self._signature = signature
        self._monitor = monitor
        self._log = log.bind(container=plan.name)

    async def create(self, new_ids: Mapping[str, str]) -> Pair:
        """Create it and prove it; nothing is stopped, and what is left of a failure is for `discard`.

        `new_ids` are the ids of new containers that this one depends on, by their names. Raises
        InProgress where another swap of this container is under way, and SwapRefused where it could not
        be made, or is not what was planned.
        """
        try:
            old_id = await self._create_standin() or self._plan.old_id
            replaces = {names.REPLACES: old_id, names.OLD_IMAGE: reference_of(self._plan.container)}
            if old_id != self._plan.old_id:
                replaces[names.LIVE] = self._plan.old_id
            new_id = await self._create(self._plan, new_ids, replaces | self._target_labels())
        except InProgress:
            raise
        except (EngineError, EngineUnavailable) as exc:
            transient = isinstance(exc, EngineUnavailable) or exc.status != BAD_REQUEST
            raise SwapRefused(f"{self._plan.name}: {exc}", transient=transient) from exc
        return Pair(
            name=self._plan.name,
            old_id=old_id,
            new_id=new_id,
            served_id=self._plan.old_id,
            policy=self._plan.policy,
            serves=self._plan.runs,
            stop_timeout=self._plan.container["Config"].get("StopTimeout"),
            shares_namespace=self._plan.shares_namespace,
            chooses_ports=self._plan.chooses_ports,
            old_image=reference_of(self._plan.container),
            image=self._plan.image,
        )

    async def _create_standin(self) -> str:
        """The way back, made before the stop that removes the old container with all that was its own."""
        if not self._plan.standin:
            return ""
        return await self._create(self._plan.standin, {}, {names.ROLLBACK_FOR: self._plan.old_id})

    async def _create(self, plan: Plan, new_ids: Mapping[str, str], says: Mapping[str, str]) -> str:
        body = _with_ids(plan.body, new_ids)
        own = {label: value for label, value in body["Labels"].items() if label != names.REPLACES}
        signed = body | {"Labels": own | self._labels() | dict(says)}
        try:
            created = await unbroken(self._engine.create(plan.new_name, signed, plan.platform))
        except Conflict as exc:
            if plan.new_name not in exc.message:
                raise
            raise InProgress(
                plan.name,
                f"is being replaced: {plan.new_name} exists; is another Lookout at work on this engine? "
                "If not, remove that by hand",
            ) from exc
        for network in plan.disconnect:
            await self._engine.detach(network, created)
        for network, endpoint in plan.connect:
            await self._engine.attach(network, created, endpoint)
        for path in plan.archives:
            await self._engine.copy_files(plan.old_id, created, path)
        await self._prove(plan, signed, created)
        return created

    def _labels(self) -> dict[str, str]:
        return {
            names.BY: self._signature.by,
            names.DEPLOY: self._signature.deploy,
            names.SERVES: json.dumps(self._plan.runs),
            names.MONITOR: self._monitor.to_label(),
        }

    def _target_labels(self) -> dict[str, str]:
        """What recreates a dependent is no message for it, and no other image."""
        if self._plan.follows:
            return {}
        origin, replaced = self._signature.origin, self._signature.replaced
        labels = {} if replaced is None else {names.REPLACED_IMAGES: to_label(replaced)}
        if origin:
            labels |= {
                names.MESSAGE_ID: origin.message_id,
                names.SENT_TIMESTAMP: str(origin.sent_timestamp),
                # Empty of a standard queue: what the old container says there must not stay.
                names.MESSAGE_GROUP_ID: origin.group_id,
            }
        return labels

    async def _prove(self, plan: Plan, body: Json, created: str) -> None:
        """The new container is what was planned, or nothing is stopped for it."""
        new = await self._engine.container(created)
        if new["Image"] != plan.image_id:
            raise SwapRefused(
                f"{plan.name}: the tag moved to another image while it was deployed", transient=True
            )
        found = proof.compare(plan, body, new, await self._engine.networks())
        for remark in found.remarks:
            self._log.info("remark", remark=remark)
        if found.differences:
            raise SwapRefused(
                f"{plan.name}: the copy would not be faithful; it differs in {'; '.join(found.differences)}",
                transient=False,
            )


async def discard(engine: Engine, deploy: str) -> None:
    """Remove what was made for a deploy that has stopped nothing, also where a call for it was cut."""
    for container in await engine.containers(f"{names.DEPLOY}={deploy}", every=True):
        try:
            labels = (await engine.container(container))["Config"]["Labels"]
            await engine.remove(container, volumes=names.ROLLBACK_FOR not in labels, force=True)
        except NotFound:
            pass


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
