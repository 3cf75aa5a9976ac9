"""What the tests of deploys share: what to ask for, and how to copy a container without starting it."""

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lookout.cleaner import Cleaner
from lookout.deployer import Deployer
from lookout.engine import Engine
from lookout.errors import NotFound
from lookout.keychain import Keychain
from lookout.layers import Layer, candidates
from lookout.model import DeployRequest, ImageName, ImageRef, Json
from lookout.mounts import sources
from lookout.names import name_of
from lookout.plan import Plan
from lookout.planner import Planner
from lookout.puller import Puller
from lookout.ready import Monitor
from lookout.recreate import recreate
from lookout.successor import Signature, Successor, discard
from lookout.surroundings import Surroundings
from testbed.engine import PrivateEngine


def request_for(reference: str, **more: Any) -> DeployRequest:
    name, _, tag = reference.rpartition(":")
    return DeployRequest(ImageRef(ImageName.parse(name), tag), **more)


def new_deployer(
    engine: Engine,
    keychain: Keychain,
    *,
    pull_timeout: float = 60,
    inactivity: float = 60,
    keep: int | None = None,
    own_id: str | None = None,
    require_label: bool = False,
    **changes: Any,
) -> Deployer:
    """A deployer with waits that are short enough for a test; without `keep` it removes no image."""
    defaults: dict[str, Any] = {
        "deploy_time": 5,
        "monitor": 0.5,
        "own_id": own_id,
        "stopping": asyncio.Event(),
        "repair_every": 0.5,
        "cleaner": None if keep is None else Cleaner(engine, keep=keep),
    }
    puller = Puller(engine, keychain, timeout=pull_timeout, inactivity=inactivity, longest_wait=0.2)
    planner = Planner(engine, own_id=own_id, require_label=require_label)
    return Deployer(engine, planner, puller, **(defaults | changes))


def leftovers(engine: PrivateEngine) -> list[str]:
    """Names of containers that an unfinished swap has left."""
    return [container["Names"][0][1:] for container in engine.listed(name="lookout-(new|old|done|rb)")]


def serving(engine: PrivateEngine, name: str) -> str:
    """The id of the running container of this name; empty where none is, as between two steps of a swap."""
    return "".join(container["Id"] for container in engine.listed(name=f"^/{name}$", status="running"))


async def layer_of(engine: Engine, container: Json) -> Layer:
    changes = await engine.changes(container["Id"])
    stats = {path: await engine.stat(container["Id"], path) for path in candidates(container, changes)}
    return Layer(changes, {path: stat for path, stat in stats.items() if stat})


@dataclass(frozen=True)
class Clone:
    """A container that was made, but not started, as a copy of another one."""

    id: str
    inspect: Json  # of the copy, in the API version that Lookout uses
    plan: Plan
    request: Json  # the create request that made it
    remarks: tuple[str, ...]
    name: str  # its temporary name


async def clone(
    engine: Engine, container: str, reference: str, *, successors: Mapping[str, str] | None = None
) -> Clone:
    """Copy `container` onto the image `reference`, which the engine has, exactly as a deploy would.

    `successors` are containers that were replaced meanwhile: old id to new id.
    """
    old, new_image = await engine.container(container), await engine.image(reference)
    others = [await engine.container(other) for other in await engine.containers(every=True)]
    around = Surroundings(
        host_name=(await engine.info())["Name"],
        platform=await engine.platform(),
        containers={other["Id"]: name_of(other) for other in others},
        networks=frozenset(await engine.networks()),
        mounts={other["Id"]: sources(other) for other in others},
        successors=successors or {},
    )
    plan = recreate(
        old,
        await engine.image(old["Image"]),
        new_image,
        reference,
        await engine.api(),
        around,
        await layer_of(engine, old),
    )
    with suppress(NotFound):
        await engine.remove(plan.new_name, volumes=True, force=True)
    signature, monitor = Signature(by="a test", deploy=uuid.uuid4().hex), Monitor(seconds=0, deploy_time=1)
    try:
        pair = await Successor(engine, plan, signature, monitor).create({})
    except BaseException:
        await discard(engine, signature.deploy)
        raise
    inspected = await engine.container(pair.new_id)
    return Clone(pair.new_id, inspected, plan, plan.body, plan.remarks, plan.new_name)


def mistold(copy: Clone, old: Json) -> Json:
    """Where the plan said one thing of what comes from the new image, and the engine made another."""
    before, after = _flat(old), _flat(copy.inspect)
    fields = before.keys() | after.keys()
    made = {key: (before.get(key), after.get(key)) for key in fields if before.get(key) != after.get(key)}
    told = {c.field: (c.old, c.new) for c in copy.plan.changes if not c.field.startswith("Volumes ")}
    return {key: (told.get(key), made.get(key)) for key in told.keys() ^ made.keys()} | {
        key: (told[key], made[key]) for key in told.keys() & made.keys() if told[key] != made[key]
    }


def _flat(container: Json) -> Json:
    """The fields of Config in which an image has a say, by the names that a plan has for them."""
    config = container["Config"]
    found = {
        key: config.get(key) or None for key in ("User", "WorkingDir", "StopSignal", "Entrypoint", "Cmd")
    }
    for entry in config.get("Env") or []:
        key, equals, value = entry.partition("=")
        found[f"Env {key}"] = value if equals else None
    for key, value in (config.get("Labels") or {}).items():
        if not key.startswith("lookout.swap."):
            found[f"Labels {key}"] = value
    for field in ("ExposedPorts", "Healthcheck"):
        found |= {f"{field} {key}": value for key, value in (config.get(field) or {}).items()}
    return found
