"""Looks at the engine and plans a deploy: the daemon carries the plan out, `lookout plan` prints it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from lookout.dependents import depends_on, groups, needed_to_start
from lookout.engine import Engine
from lookout.errors import CopyRefused, InProgress, NotFound
from lookout.layers import Layer, candidates
from lookout.model import ImageName, ImageRef, Json, Outcome, Reference, Report
from lookout.mounts import sources
from lookout.names import (
    REPLACES,
    final_name,
    is_done_name,
    is_leftover_name,
    listed_name,
    name_of,
    policy_of,
    reference_of,
    standin_name,
)
from lookout.plan import DeployPlan, Group, Plan
from lookout.platforms import fits, platform_of_container, platform_of_engine, platform_of_image
from lookout.ready import own_monitor_seconds
from lookout.recreate import recreate
from lookout.surroundings import Surroundings
from lookout.targets import (
    Target,
    created_from_id,
    match,
    repositories,
    switch,
    why_left_alone,
    why_not_managed,
)

#: Of a container: `false` refuses a deploy for which containers that depend on it would be recreated.
RECREATE_DEPENDENTS = "lookout.recreate-dependents"

REMOVED_BY_STOP = (
    "it was run with --rm, so its stop removes it: a stand-in on the old image is made before, which has its "
    "settings and volumes, but not the files of its own layer"
)

NAMELESS = "was created from an image that has no name here, so that no message can mean it"

#: States of containers that the engine is getting rid of.
BEYOND_HELP = ("dead", "removing")

log = structlog.stdlib.get_logger(__name__)


class Planner:
    """Reads, and changes nothing."""

    def __init__(self, engine: Engine, *, own_id: str | None, require_label: bool) -> None:
        self._engine = engine
        self._own_id = own_id
        self._require_label = require_label

    async def find(self, name: ImageName) -> list[Target]:
        """The containers of this image that run, restart or are paused, by name."""
        await self._engine.negotiate()
        inspected = await self._inspect(await self._engine.containers())
        found = await asyncio.gather(*(self._match(container, name) for container in inspected))
        return sorted((target for target in found if target), key=lambda target: target.name)

    async def everything(self) -> list[Target]:
        """Every container that runs, restarts or is paused, as a message for its image would find it, by name."""
        await self._engine.negotiate()
        inspected = await self._inspect(await self._engine.containers())
        found = await asyncio.gather(*map(self._target, inspected))
        return sorted(found, key=lambda target: target.name)

    def idle(self, targets: Sequence[Target]) -> Report | None:
        """How a message for these ends at once; None if there is something to look into."""
        if not targets:
            return Report(Outcome.NOT_HERE, "no running container of this image")
        left_alone = [target for target in targets if target.left_alone]
        if len(left_alone) == len(targets) or any(target.id == self._own_id for target in targets):
            reasons = (f"{target.name} {target.left_alone}" for target in left_alone)
            return Report(Outcome.IGNORED, "; ".join(reasons))
        return None

    async def registries(self) -> set[str]:
        """Those that containers come from which Lookout may replace, and which serve or may serve again.

        One that is stopped and has no restart policy does not count: it has done what it was for.
        """
        inspected = await self._inspect([one["Id"] for one in await self._engine.listed()])
        serving = [one for one in inspected if _may_serve(one)]
        managed = [one for one in serving if not why_not_managed(one, self._own_id, self._require_label)]
        names = await asyncio.gather(*map(self._names, managed))
        return {name.domain.lower() for found in names for name in found}

    async def platform(self, targets: Sequence[Target]) -> str:
        """The platform that these containers are for, such as linux/arm64; empty where nothing tells.

        Raises CopyRefused where they are for several: one pull brings one.
        """
        managed = [target.container for target in targets if not target.left_alone]
        told = zip(await asyncio.gather(*map(self._platform, managed)), managed, strict=True)
        platforms = {platform: name_of(container) for platform, container in told if platform}
        first, *others = platforms or [""]
        if not all(fits(other, first) for other in others):
            listed = ", ".join(f"{name} is for {platform}" for platform, name in platforms.items())
            raise CopyRefused(f"containers of one image are for several platforms: {listed}")
        return first

    async def plan(self, targets: Sequence[Target], image: ImageRef, inspected: Json | None) -> DeployPlan:
        """How these are brought to `image`, with all that depends on them.

        `inspected` is that image, or None where the engine does not have it yet: then the plan leaves out
        what comes from it. Raises CopyRefused where one of them cannot be replaced faithfully, and
        InProgress where a swap of one of them has not ended: then none may be replaced.
        """
        managed = [target for target in targets if not target.left_alone]
        await self._check_in_progress([target.container for target in managed])
        stale = {t.id: t for t in managed if not (inspected and t.runs(image, inspected["Id"]))}
        everyone = await self._inspect(await self._engine.containers(every=True)) if stale else []
        around = await self._surroundings(everyone)
        followers = [container for container in everyone if not self._is_past_help(container)]
        grouped = groups([target.container for target in stale.values()], followers)
        await self._check_in_progress([container for group in grouped for container in group])
        planned = [await self._group(group, stale, image, inspected, around) for group in grouped]
        return DeployPlan(
            image=image,
            groups=tuple(self._with_those_left_behind(group, everyone) for group in planned),
            unchanged=tuple(target.name for target in managed if target.id not in stale),
            left_alone=tuple((target.name, target.left_alone) for target in targets if target.left_alone),
        )

    async def _inspect(self, containers: Sequence[str]) -> list[Json]:
        found = await asyncio.gather(*map(self._look_at, containers))
        return [container for container in found if container]

    async def _look_at(self, container: str) -> Json | None:
        try:
            return await self._engine.container(container)
        except NotFound:
            return None  # gone since it was listed

    async def _target(self, container: Json) -> Target:
        names = await self._names(container)
        found = await self._match(container, min(names, key=str)) if names else None
        nameless = why_left_alone(container, self._own_id, self._require_label) or NAMELESS
        return found or Target(container, None, nameless)

    async def _match(self, container: Json, name: ImageName) -> Target | None:
        image = None
        if created_from_id(container):
            try:
                image = await self._engine.image(container["Image"])
            except NotFound:
                log.info("container left alone", container=name_of(container), reason="its image is gone")
                return None
        return match(container, image, name, self._own_id, require_label=self._require_label)

    async def _names(self, container: Json) -> set[ImageName]:
        """The repositories that a container may come from."""
        if not created_from_id(container):
            reference = Reference.parse(reference_of(container))
            return {reference.name} if reference else set()
        try:
            return repositories(await self._engine.image(container["Image"]))
        except NotFound:
            return set()

    async def _platform(self, container: Json) -> str:
        if platform := platform_of_container(container):
            return platform
        try:
            return platform_of_image(await self._engine.image(container["Image"]))
        except NotFound:
            return ""

    async def _surroundings(self, everyone: Sequence[Json]) -> Surroundings:
        info = await self._engine.info()
        return Surroundings(
            host_name=info["Name"],
            platform=platform_of_engine(info),
            containers={container["Id"]: name_of(container) for container in everyone},
            networks=frozenset(await self._engine.networks()),
            mounts={container["Id"]: sources(container) for container in everyone},
            running=frozenset(container["Id"] for container in everyone if container["State"].get("Running")),
        )

    def _left_alone(self, container: Json) -> str:
        if why := why_left_alone(container, self._own_id, self._require_label):
            return why
        stays = is_stopped(container) and container["HostConfig"].get("AutoRemove")
        return "was made with --rm and does not run" if stays else ""

    def _is_past_help(self, container: Json) -> bool:
        """Whether it cannot follow what it depends on. One that is stopped loses nothing right now."""
        if container["State"].get("Status") in BEYOND_HELP:
            return True
        return is_stopped(container) and bool(self._left_alone(container))

    def _with_those_left_behind(self, group: Group, everyone: Sequence[Json]) -> Group:
        """The same with a remark for each stopped dependent that cannot be started again afterwards."""
        first, *others = group
        behind = tuple(
            f"{name_of(container)} depends on it, is stopped, and stays behind: it {self._left_alone(container)}"
            for container in everyone
            if self._is_past_help(container)
            and self._left_alone(container)
            and any(depends_on(container, plan.container) for plan in group)
        )
        return (replace(first, remarks=(*first.remarks, *behind)), *others)

    async def _group(
        self,
        group: Sequence[Json],
        stale: dict[str, Target],
        image: ImageRef,
        inspected: Json | None,
        around: Surroundings,
    ) -> Group:
        for container in group:
            self._check(container, [other for other in group if depends_on(other, container)])
        plans: list[Plan] = []
        behind: list[str] = []
        for container in group:
            known = around.followed_by({plan.old_id: plan.new_name for plan in plans})
            if target := stale.get(container["Id"]):
                plans.append(await self._plan(container, target.spell(image), inspected, known))
                continue
            try:
                plan = await self._plan(container, *await self._own_image(container), known)
            except CopyRefused as exc:
                if not is_stopped(container):
                    raise
                # No reason to refuse a deploy; but it will not start again.
                behind.append(f"{name_of(container)} depends on it, is stopped, and stays behind: {exc}")
                continue
            follows = tuple(name_of(other) for other in group if depends_on(container, other))
            plans.append(replace(plan, follows=follows))
        self._check_start(plans, around)
        return (replace(plans[0], remarks=(*plans[0].remarks, *behind)), *plans[1:])

    def _check_start(self, plans: Sequence[Plan], around: Surroundings) -> None:
        """What runs on although another one has stopped could not be started again, neither copy nor old one."""
        will_run = {plan.old_id for plan in plans if plan.runs} | around.running
        for plan in plans:
            for reference in needed_to_start(plan.container) if plan.runs else ():
                needed = around.find(reference)
                if needed and needed not in will_run:
                    raise CopyRefused(
                        f"{plan.name} needs {around.containers[needed]} to start, which does not run; start that first"
                    )

    async def _check_in_progress(self, containers: Sequence[Json]) -> None:
        """A new container counts for nothing until the old one is done."""
        listed = await self._engine.listed() if containers else []
        replaced = {one["Id"] for one in listed if not is_done_name(listed_name(one))}
        for container in containers:
            if (container["Config"].get("Labels") or {}).get(REPLACES) in replaced:
                raise InProgress(
                    final_name(name_of(container)),
                    "is being replaced right now; is another Lookout at work on this engine?",
                )

    def _check(self, container: Json, dependents: Sequence[Json]) -> None:
        if reason := self._left_alone(container):
            raise CopyRefused(f"{name_of(container)} would have to be replaced, but it {reason}")
        labels = container["Config"].get("Labels") or {}
        if dependents and RECREATE_DEPENDENTS in labels and not switch(labels[RECREATE_DEPENDENTS]):
            needed_by = ", ".join(map(name_of, dependents))
            raise CopyRefused(
                f"{name_of(container)} is needed by {needed_by}, and its label {RECREATE_DEPENDENTS} "
                "forbids to recreate what depends on it"
            )
        if dependents and container["HostConfig"].get("AutoRemove"):
            raise CopyRefused(
                f"{name_of(container)} was run with --rm, and could not be brought back for "
                f"{', '.join(map(name_of, dependents))}, which needs it; run it without --rm"
            )

    async def _own_image(self, container: Json) -> tuple[str, Json]:
        """What a dependent is created from again: its own image, by its id where its tag means another."""
        reference = reference_of(container)
        own = await self._old_image(container)
        try:
            current = await self._engine.image(reference)
        except NotFound:
            return container["Image"], own
        return (reference if current["Id"] == own["Id"] else container["Image"]), own

    async def _old_image(self, container: Json) -> Json:
        try:
            return await self._engine.image(container["Image"], platform_of_container(container))
        except NotFound:
            raise CopyRefused(
                f"the image that {name_of(container)} was created from is gone, and with it the knowledge "
                "of which settings are its own; create the container anew by hand"
            ) from None

    async def _plan(self, container: Json, reference: str, image: Json | None, around: Surroundings) -> Plan:
        old_image = await self._old_image(container)
        api, layer = await self._engine.api(), await self._layer(container)
        plan = recreate(container, old_image, image or old_image, reference, api, around, layer)
        if container["HostConfig"].get("AutoRemove"):
            before = replace(around, successors={})  # it comes back to what the old one depended on
            same = recreate(container, old_image, old_image, container["Image"], api, before, layer)
            standin = replace(same, new_name=standin_name(plan.name, plan.old_id))
            plan = replace(plan, standin=standin, remarks=(*plan.remarks, REMOVED_BY_STOP))
        plan = replace(plan, monitor_seconds=own_monitor_seconds(container))
        return plan if image else replace(plan, image_id="")

    async def _layer(self, container: Json) -> Layer:
        changes = await self._engine.changes(container["Id"])
        paths = candidates(container, changes)
        stats = await asyncio.gather(*(self._engine.stat(container["Id"], path) for path in paths))
        return Layer(changes, {path: stat for path, stat in zip(paths, stats, strict=True) if stat})


def _may_serve(container: Json) -> bool:
    """Whether it runs, or is to run again as far as can be told."""
    is_kept = policy_of(container)["Name"] != "no" or is_leftover_name(name_of(container))
    return is_kept or not is_stopped(container)


def is_stopped(container: Json) -> bool:
    """Whether it does not run, and does not try to."""
    state = container["State"]
    return not (state.get("Running") or state.get("Restarting") or state.get("Paused"))
