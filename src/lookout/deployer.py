"""The recipe of a deploy: find the containers, pull the image, plan, replace each or none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

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
    CopyRefused,
    EngineError,
    EngineUnavailable,
    Interrupted,
    PullFailed,
    RollbackFailed,
    RolledBack,
    SwapRefused,
)
from lookout.model import DeployRequest, Json, Outcome, Report
from lookout.plan import DeployPlan, Plan
from lookout.planner import Planner
from lookout.puller import Puller
from lookout.rollout import Rollout
from lookout.swap import Swap
from lookout.targets import Target, identity
from lookout.unbroken import unless

ENGINE_PATIENCE = 60.0  # seconds that a deploy waits for an engine that is away before it fails
REPAIR_EVERY = 30.0  # seconds between two tries to bring an old container back

log = structlog.stdlib.get_logger(__name__)


class Deployer:
    """Deploys one request at a time per container; different containers do not wait for another."""

    def __init__(
        self,
        engine: Engine,
        puller: Puller,
        *,
        deploy_time: float,
        monitor: float,
        own_id: str | None,
        require_label: bool,
        stopping: asyncio.Event,
        engine_patience: float = ENGINE_PATIENCE,
        repair_every: float = REPAIR_EVERY,
    ) -> None:
        self._engine = engine
        self._puller = puller
        self._deploy_time = deploy_time
        self._monitor = monitor
        self._identity = identity(own_id)
        self._planner = Planner(engine, own_id=own_id, require_label=require_label, by=self._identity)
        self._stopping = stopping
        self._engine_patience = engine_patience
        self._repair_every = repair_every
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._repairs: set[asyncio.Task[None]] = set()

    async def deploy(self, request: DeployRequest) -> Report:
        """Bring every running container of the image to the requested tag, or leave all as they were.

        Raises Interrupted where Lookout was asked to stop before this deploy touched a container.
        """
        try:
            return await self._deploy(request)
        except PullFailed as exc:
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

    async def _deploy(self, request: DeployRequest) -> Report:
        targets = await unless(self._stopping, self._engine_back(request))
        if report := self._planner.idle(targets):
            return report
        image = await unless(self._stopping, self._puller.pull(request, deploy_time=self._time(request)))
        return await self._replace_all(request, image)

    def _time(self, request: DeployRequest) -> float:
        return request.deploy_time or self._deploy_time

    # Find

    async def _engine_back(self, request: DeployRequest) -> list[Target]:
        """The targets, as soon as the engine answers."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            stop=stop_after_delay(self._engine_patience),
            wait=wait_random_exponential(min=0.2, max=5),
            before_sleep=_note_retry,
            reraise=True,
        )
        return await retrying(self._planner.find, request.image.name)

    # Replace

    async def _replace_all(self, request: DeployRequest, image: Json) -> Report:
        """Look again under the locks: during the pull, containers may have come, gone or been replaced."""
        names: set[str] = set()
        while True:
            async with self._locked(sorted(names)):
                targets = await self._planner.find(request.image.name)
                if report := self._planner.idle(targets):
                    return report
                plan = await self._planner.plan(targets, request.image, image)
                if plan.names <= names:
                    return await self._carry_out(plan, request)
            names |= plan.names

    @asynccontextmanager
    async def _locked(self, names: list[str]) -> AsyncIterator[None]:
        """The locks of these containers, taken in sorted order so that no two deploys wait in a ring."""
        async with AsyncExitStack() as stack:
            for name in names:
                lock = self._locks.setdefault(name, asyncio.Lock())
                await unless(self._stopping, lock.acquire())
                stack.callback(lock.release)
            yield

    async def _carry_out(self, plan: DeployPlan, request: DeployRequest) -> Report:
        for name, reason in plan.left_alone:
            log.info("container left alone", container=name, reason=reason)
        if not plan.groups:
            return Report(Outcome.UNCHANGED, "every container runs this image already")
        for one in plan.plans:
            for remark in one.remarks:
                log.info("remark", container=one.name, remark=remark)
        rollout = Rollout(
            [[self._swap(one, request) for one in group] for group in plan.groups],
            stopping=self._stopping,
            repair=self._repair,
        )
        replaced = await rollout.run()
        if len(replaced) < len(plan.names):
            raise Interrupted
        return Report(Outcome.DEPLOYED, containers=_names(replaced))

    def _swap(self, plan: Plan, request: DeployRequest) -> Swap:
        return Swap(
            self._engine,
            plan,
            by=self._identity,
            monitor=self._monitor,
            deploy_time=self._time(request),
        )

    # Repair

    def _repair(self, swap: Swap) -> None:
        """Go on trying to bring the old container back, besides the deploys that follow."""
        task = asyncio.create_task(self._keep_undoing(swap), name=f"repair {swap.name}")
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)

    async def _keep_undoing(self, swap: Swap) -> None:
        while True:
            await asyncio.sleep(self._repair_every)
            try:
                async with self._locked([swap.name]):
                    await swap.undo()
            except EngineUnavailable as exc:
                log.warning("the engine is away", container=swap.name, error=str(exc))
            except RollbackFailed as exc:
                log.error(
                    "still not back",
                    error=str(exc),
                    next=f"tried again in {self._repair_every:.0f} s",
                )
            else:
                return

    async def close(self) -> None:
        """End what still goes on beside the deploys."""
        for task in self._repairs:
            task.cancel()
        await asyncio.gather(*self._repairs, return_exceptions=True)


def _names(replaced: list[Swap]) -> tuple[str, ...]:
    """Those of the image first, then those that had to follow them."""
    return tuple(swap.name for swap in sorted(replaced, key=lambda swap: bool(swap.plan.follows)))


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("trying again", error=str(error), seconds=round(state.upcoming_sleep, 1))
