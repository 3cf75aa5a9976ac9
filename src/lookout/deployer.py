"""The recipe of a deploy: find the containers, pull the image, plan, replace each or none."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from lookout.cleaner import Before, Cleaner
from lookout.course import Course
from lookout.engine import Engine
from lookout.errors import (
    CopyRefused,
    EngineError,
    EngineUnavailable,
    InProgress,
    Interrupted,
    NotFound,
    PullFailed,
    RollbackFailed,
    RolledBack,
    SwapRefused,
)
from lookout.history import Replaced, history, noted
from lookout.identity import identity
from lookout.locks import Locks
from lookout.model import ContainerReport, DeployRequest, ImageRef, Json, Origin, Outcome, Phase, Report
from lookout.names import OLD_IMAGE, name_of, reference_of
from lookout.plan import DeployPlan, Plan
from lookout.planner import Planner, is_stopped
from lookout.puller import Puller
from lookout.ready import Monitor, has_crashed
from lookout.recovery import Recovery
from lookout.rollout import Rollout
from lookout.successor import Signature, Successor, discard
from lookout.swap import Swap
from lookout.targets import Target, overtaken
from lookout.unbroken import ended, unbroken, unless

ENGINE_PATIENCE = 60.0  # seconds that a deploy waits for an engine that is away before it fails
REPAIR_EVERY = 30.0  # seconds between two tries to end what was found half done
RECOVERY_PATIENCE = 60.0  # seconds in which what was found half done holds up the first poll

log = structlog.stdlib.get_logger(__name__)


class Deployer:
    """Deploys one request at a time per container; different containers do not wait for another."""

    def __init__(
        self,
        engine: Engine,
        planner: Planner,
        puller: Puller,
        *,
        deploy_time: float,
        monitor: float,
        own_id: str | None,
        stopping: asyncio.Event,
        parallelism: int = 1,
        cleaner: Cleaner | None = None,
        engine_patience: float = ENGINE_PATIENCE,
        repair_every: float = REPAIR_EVERY,
    ) -> None:
        """So many independent containers of a deploy are replaced at a time as `parallelism` says; 0: all.

        Without a `cleaner` old images stay.
        """
        self._engine = engine
        self._puller = puller
        self._deploy_time = deploy_time
        self._monitor = monitor
        self._identity = identity(own_id)
        self._planner = planner
        self._stopping = stopping
        self._parallelism = parallelism
        self._cleaner = cleaner
        self._engine_patience = engine_patience
        self._repair_every = repair_every
        self._locks = Locks(stopping)
        self._recovery = Recovery(engine, self._locks, by=self._identity, parallelism=parallelism)
        self._recovering: asyncio.Task[None] | None = None
        self._repairing: asyncio.Task[None] | None = None
        self._unended = asyncio.Event()  # something may be half done
        self._is_closed = False
        #: What there was before the first pull for the message that asked last, while that has not ended.
        self._before: dict[ImageRef, tuple[Origin | None, Before | None]] = {}

    async def recover(self) -> None:
        """End what a Lookout before this one has left half done.

        What that takes longer for, or what cannot be ended now, goes on in the background.
        """
        await self._end_repair(within=None)
        self._recovering = asyncio.create_task(self._recover(), name="recovery")
        self._repairing = asyncio.create_task(self._keep_repairing(self._recovering), name="repair")
        await asyncio.wait({self._recovering}, timeout=RECOVERY_PATIENCE)

    async def _recover(self) -> None:
        """One attempt at all that is half done."""
        self._unended.clear()
        try:
            if not await self._recovery.run():
                self._unended.set()
        except (EngineError, EngineUnavailable) as exc:
            log.warning("cannot look for interrupted swaps", error=str(exc))
            self._unended.set()
        except Exception:
            log.exception("cannot look for interrupted swaps; please report it")
            self._unended.set()

    async def deploy(self, request: DeployRequest, course: Course | None = None) -> Report:
        """Bring every running container of the image to the requested tag, or leave all as they were.

        How far it is can be read from its `course`. Raises Interrupted where Lookout was asked to stop
        before this deploy touched a container.
        """
        found = _Found(course or Course())
        report = await self._attempt(request, found)
        with suppress(Interrupted):  # how it ended must be told all the same
            if report.outcome is not Outcome.DEPLOYED:
                await self._revive(found)
            await unless(self._stopping, self._tidy(request.image, report, found))
        return replace(report, each=found.reports(request, report))

    async def _attempt(self, request: DeployRequest, found: "_Found") -> Report:
        try:
            return await self._deploy(request, found)
        except PullFailed as exc:
            found.pulled = exc.pulled
            return Report(Outcome.FAILED, str(exc), transient=exc.fault.may_pass)
        except (EngineUnavailable, EngineError) as exc:
            return Report(Outcome.FAILED, str(exc), transient=True)
        except CopyRefused as exc:
            return Report(Outcome.FAILED, str(exc))
        except SwapRefused as exc:
            return Report(Outcome.FAILED, str(exc), transient=exc.transient)
        except RolledBack as exc:
            return Report(Outcome.ROLLED_BACK, str(exc))
        except RollbackFailed as exc:
            return Report(Outcome.ROLLBACK_FAILED, str(exc))

    async def _deploy(self, request: DeployRequest, found: "_Found") -> Report:
        targets = await self._targets(request)
        found.targets = [target for target in targets if not target.left_alone]
        found.seen = targets
        found.engine_started = await self._engine.started()
        if report := self._planner.idle(targets) or overtaken(targets, request, time.time()):
            return report
        platform = await self._planner.platform(targets)
        await self._note_images(request)
        found.course.enter(Phase.PULLING)
        pull = self._puller.pull(
            request, platform=platform, deploy_time=self._time(request), watch=found.course.pulling
        )
        image = await unless(self._stopping, pull)
        found.pulled = image["Id"]
        return await self._replace_all(request, image, {target.name for target in targets}, found)

    def _time(self, request: DeployRequest) -> float:
        return request.deploy_time or self._deploy_time

    # Find

    async def _targets(self, request: DeployRequest) -> list[Target]:
        """The containers of the image, as soon as the engine answers and nothing is half done with them."""
        name = request.image.name
        targets: list[Target] = await unless(self._stopping, self._patiently()(self._planner.find, name))
        in_hand = await self._recovery.clear_way(name, {target.name for target in targets})
        async with self._locks.held(in_hand):  # what depends on others is down while those are replaced
            return await self._planner.find(name)

    def _patiently(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            stop=stop_after_delay(self._engine_patience),
            wait=wait_random_exponential(min=0.2, max=5),
            before_sleep=_note_retry,
            reraise=True,
        )

    # Replace

    async def _replace_all(
        self, request: DeployRequest, image: Json, names: set[str], found: "_Found"
    ) -> Report:
        """Look again under the locks: during the pull, containers may have come, gone or been replaced.

        `names` are those of the containers found before.
        """
        has_cleared = False
        while True:
            try:
                async with self._locks.held(names):
                    found.seen = targets = await self._planner.find(request.image.name)
                    if report := self._planner.idle(targets):
                        return report
                    plan = await self._planner.plan(targets, request.image, image)
                    if plan.names <= names:
                        return overtaken(targets, request, time.time()) or await self._carry_out(
                            plan, request, history(targets, plan.stale, time.time()), found
                        )
            except InProgress as exc:
                if has_cleared and exc.container in names:
                    raise SwapRefused(str(exc), transient=True) from exc
                has_cleared = True
                names.add(exc.container)  # in hand of another deploy of ours: its end is waited for
                await self._recovery.clear_way(request.image.name, names)  # of a Lookout before this one
            else:
                names |= plan.names

    async def _carry_out(
        self, plan: DeployPlan, request: DeployRequest, replaced: list[Replaced], found: "_Found"
    ) -> Report:
        for name, reason in plan.left_alone:
            log.info("container left alone", container=name, reason=reason)
        if not plan.groups:
            return Report(Outcome.UNCHANGED, "every container runs this image already")
        for one in plan.plans:
            for remark in one.remarks:
                log.info("remark", container=one.name, remark=remark)
        known = await self._cleaner.known(replaced) if self._cleaner else None
        signature = Signature(self._identity, uuid.uuid4().hex, request.origin, known)
        found.course.enter(Phase.CREATING, map(_waiting, plan.plans))
        groups = await self._prepare(plan, request, signature, found.course)
        if self._stopping.is_set():
            await self._discard(signature.deploy)
            raise Interrupted
        rollout = Rollout(groups, parallelism=self._parallelism)
        found.plan, found.rollout = plan, rollout
        found.course.enter(Phase.REPLACING)
        try:
            await rollout.run()
        finally:
            if not rollout.is_ended:
                self._repair()
        return Report(Outcome.DEPLOYED)

    async def _prepare(
        self, plan: DeployPlan, request: DeployRequest, signature: Signature, course: Course
    ) -> list[list[Swap]]:
        """Make every new container before the first old one is stopped: what is refused costs nothing."""
        try:
            return [await self._prepare_group(group, request, signature, course) for group in plan.groups]
        except BaseException:
            await unbroken(self._discard(signature.deploy))
            raise

    async def _discard(self, deploy: str) -> None:
        try:
            await discard(self._engine, deploy)
        except (EngineError, EngineUnavailable) as exc:
            log.warning("the new containers could not be removed yet", error=str(exc))
            self._repair()

    async def _prepare_group(
        self, group: Sequence[Plan], request: DeployRequest, signature: Signature, course: Course
    ) -> list[Swap]:
        swaps: list[Swap] = []
        new_ids: dict[str, str] = {}
        for plan in group:
            monitor = self._monitor_of(plan, request)
            pair = await Successor(self._engine, plan, signature, monitor).create(new_ids)
            new_ids[plan.new_name] = pair.new_id
            swaps.append(Swap(self._engine, pair, monitor, watch=course.note))
        return swaps

    def _monitor_of(self, plan: Plan, request: DeployRequest) -> Monitor:
        """What is asked of a new container: of a dependent that was no good before, nothing."""
        state = plan.container["State"]
        was_bad = has_crashed(plan.container) or (state.get("Health") or {}).get("Status") == "unhealthy"
        return Monitor(
            seconds=self._monitor if plan.monitor_seconds is None else plan.monitor_seconds,
            deploy_time=self._time(request),
            may_end=bool(plan.follows),
            may_fail=bool(plan.follows) and was_bad,
        )

    # Tidy

    async def _note_images(self, request: DeployRequest) -> None:
        """What there is before the first pull for a message."""
        known = self._before.get(request.image)
        if self._cleaner and (known is None or known[0] != request.origin):
            self._before[request.image] = (request.origin, await self._cleaner.before(request.image))

    async def _tidy(self, image: ImageRef, report: Report, found: "_Found") -> None:
        """See to the images; what cannot be removed is a warning, whatever the deploy was."""
        if self._cleaner is None:
            return
        if report.transient and found.pulled:
            return  # what has come, comes in handy
        found.course.enter(Phase.CLEANING)
        _, before = self._before.pop(image, (None, None))
        try:
            if report.outcome in (Outcome.DEPLOYED, Outcome.UNCHANGED):
                # Also what a Lookout before this one has not come to.
                await self._cleaner.clean(image.name, noted(await self._planner.find(image.name)))
            elif report.outcome is not Outcome.ROLLBACK_FAILED and found.pulled and before:
                await self._cleaner.take_back(image, found.pulled, before)
        except (EngineError, EngineUnavailable) as exc:
            log.warning("images could not be tidied up", image=str(image), error=str(exc))
        except Exception:
            log.exception("images could not be tidied up; please report it", image=str(image))

    # Repair

    def _repair(self) -> None:
        """Go on with what is half done, besides the deploys that follow."""
        self._unended.set()
        if self._repairing is None and not self._is_closed:
            self._repairing = asyncio.create_task(self._keep_repairing(), name="repair")

    async def _keep_repairing(self, first: asyncio.Task[None] | None = None) -> None:
        if first:
            await asyncio.wait({first})
        while True:
            await self._unended.wait()
            await asyncio.sleep(self._repair_every)
            await self._recover()

    async def _revive(self, found: "_Found") -> None:
        """Start what ran until its engine died in the middle of this deploy, whatever its restart policy."""
        try:
            started = await self._patiently()(self._engine.started) if found.targets else ""
        except (EngineError, EngineUnavailable):
            return
        if started == found.engine_started:
            return
        for target in found.targets:
            try:
                async with self._locks.held([target.name]):
                    await self._patiently()(self._start_if_it_died, target, _moment(started))
            except NotFound:
                continue
            except (EngineError, EngineUnavailable) as exc:
                command = f"docker start {target.name}"
                log.error("down since its engine died", container=target.name, error=str(exc), next=command)

    async def _start_if_it_died(self, target: Target, engine_started: datetime) -> None:
        """Unless somebody has stopped it since the engine was started, or it has ended by itself."""
        container = await self._engine.container(target.id)
        is_down = name_of(container) == target.name and is_stopped(container)
        if is_down and _moment(container["State"]["FinishedAt"]) < engine_started:
            log.warning("it ran until its engine died; starting it again", container=target.name)
            await self._engine.start(target.id)

    async def close(self, *, within: float | None = None) -> None:
        """End what still goes on beside the deploys; in a hurry after so many seconds."""
        self._is_closed = True
        await self._end_repair(within=within)

    async def _end_repair(self, *, within: float | None) -> None:
        for task in (self._repairing, self._recovering):
            if task:
                await ended(task, within=within)


@dataclass
class _Found:
    """What a deploy has found and done so far."""

    course: Course
    targets: list[Target] = field(default_factory=list)  # that it may replace, when it began
    seen: list[Target] = field(default_factory=list)  # all of the image, at the last look
    plan: DeployPlan | None = None
    rollout: Rollout | None = None
    engine_started: str = ""
    pulled: str = ""  # id of the image

    def reports(self, request: DeployRequest, report: Report) -> tuple[ContainerReport, ...]:
        """What has become of each container: of those of the image first, then of those that had to follow."""
        touched = {one.name: one for one in (self.rollout.reports if self.rollout else ())}
        # Those of the image first, then those that had to follow them.
        plans = sorted(self.plan.plans if self.plan else (), key=lambda plan: bool(plan.follows))
        in_order = [touched[plan.name] for plan in plans if plan.name in touched]
        names = {one.name for one in in_order}
        left = [_untouched(target, request, report) for target in self.seen if target.name not in names]
        return (*in_order, *left)


def _waiting(plan: Plan) -> ContainerReport:
    return ContainerReport(plan.name, None, Phase.WAITING, reference_of(plan.container), plan.image)


def _untouched(target: Target, request: DeployRequest, report: Report) -> ContainerReport:
    """A container that this deploy has left as it was."""
    reference = reference_of(target.container)
    if target.left_alone:
        return ContainerReport(target.name, Outcome.IGNORED, old_image=reference, reason=target.left_alone)
    if report.ended_before and target.origin == request.origin:
        labels = target.container["Config"]["Labels"]
        return ContainerReport(
            target.name, report.ended_before, old_image=labels.get(OLD_IMAGE, ""), new_image=reference
        )
    return ContainerReport(target.name, Outcome.UNCHANGED, old_image=reference)


def _moment(text: str) -> datetime:
    """A moment as the engine writes it, with nanoseconds."""
    return datetime.fromisoformat(text)


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("trying again", error=str(error), seconds=round(state.upcoming_sleep, 1))
