"""The recipe of a deploy: find the containers, pull the image, replace each or none."""

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
    NotFound,
    PullFailed,
    RollbackFailed,
    RolledBack,
    SwapRefused,
)
from lookout.model import DeployRequest, ImageName, Json, Outcome, Report
from lookout.puller import Puller
from lookout.recreate import Surroundings, recreate
from lookout.swap import Swap
from lookout.targets import Target, created_from_id, dependents, identity, match, name_of
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
        stopping: asyncio.Event,
        engine_patience: float = ENGINE_PATIENCE,
        repair_every: float = REPAIR_EVERY,
    ) -> None:
        self._engine = engine
        self._puller = puller
        self._deploy_time = deploy_time
        self._monitor = monitor
        self._own_id = own_id
        self._identity = identity(own_id)
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
        if report := self._nothing_to_replace(targets):
            return report
        image = await unless(self._stopping, self._puller.pull(request, deploy_time=self._time(request)))
        return await self._replace_all(request, image)

    def _nothing_to_replace(self, targets: list[Target]) -> Report | None:
        if not targets:
            return Report(Outcome.NOT_HERE, "no running container of this image")
        left_alone = [target for target in targets if target.left_alone]
        if len(left_alone) == len(targets) or any(target.id == self._own_id for target in targets):
            reasons = (f"{target.name} {target.left_alone}" for target in left_alone)
            return Report(Outcome.IGNORED, "; ".join(reasons))
        return None

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
        return await retrying(self._find, request.image.name)

    async def _find(self, name: ImageName) -> list[Target]:
        inspected = await asyncio.gather(*map(self._look_at, await self._engine.containers()))
        found = await asyncio.gather(*(self._match(c, name) for c in inspected if c))
        return sorted((target for target in found if target), key=lambda target: target.name)

    async def _look_at(self, container: str) -> Json | None:
        try:
            return await self._engine.container(container)
        except NotFound:
            return None  # gone since it was listed

    async def _match(self, container: Json, name: ImageName) -> Target | None:
        image = None
        if created_from_id(container):
            try:
                image = await self._engine.image(container["Image"])
            except NotFound:
                log.info("container left alone", container=name_of(container), reason="its image is gone")
                return None
        return match(container, image, name, self._own_id)

    # Replace

    async def _replace_all(self, request: DeployRequest, image: Json) -> Report:
        """Look again under the locks: during the pull, containers may have come, gone or been replaced."""
        names: set[str] = set()
        while True:
            async with self._locked(sorted(names)):
                targets = await self._find(request.image.name)
                if report := self._nothing_to_replace(targets):
                    return report
                found = {target.name for target in targets if not target.left_alone}
                if found <= names:
                    return await self._replace(request, targets, image)
            names |= found

    async def _replace(self, request: DeployRequest, targets: list[Target], image: Json) -> Report:
        for target in targets:
            if target.left_alone:
                log.info("container left alone", container=target.name, reason=target.left_alone)
        stale = [t for t in targets if not t.left_alone and not t.runs(request.image, image["Id"])]
        if not stale:
            return Report(Outcome.UNCHANGED, "every container runs this image already")
        return await self._swap_all(await self._prepare(request, stale, image))

    @asynccontextmanager
    async def _locked(self, names: list[str]) -> AsyncIterator[None]:
        """The locks of these containers, taken in sorted order so that no two deploys wait in a ring."""
        async with AsyncExitStack() as stack:
            for name in names:
                lock = self._locks.setdefault(name, asyncio.Lock())
                await unless(self._stopping, lock.acquire())
                stack.callback(lock.release)
            yield

    async def _prepare(self, request: DeployRequest, stale: list[Target], image: Json) -> list[Swap]:
        """Plan every copy before the first container is touched: what is refused costs nothing."""
        others = await asyncio.gather(*map(self._look_at, await self._engine.containers(every=True)))
        neighbours = [container for container in others if container]
        around = Surroundings(
            host_name=(await self._engine.info())["Name"],
            containers=frozenset(word for c in neighbours for word in (c["Id"], name_of(c))),
            networks=frozenset(await self._engine.networks()),
        )
        return [await self._plan(request, target, image, around, neighbours) for target in stale]

    async def _plan(
        self,
        request: DeployRequest,
        target: Target,
        image: Json,
        around: Surroundings,
        others: list[Json],
    ) -> Swap:
        if target.container["HostConfig"].get("AutoRemove"):
            raise CopyRefused(f"{target.name} was started with --rm: to stop it would delete it for good")
        if children := dependents(target.container, others):
            raise CopyRefused(f"{target.name} is needed by {', '.join(children)}, which would lose it")
        try:
            old_image = await self._engine.image(target.container["Image"])
        except NotFound:
            raise CopyRefused(
                f"the image that {target.name} was created from is gone, and with it the knowledge "
                "of which settings are its own; create the container anew by hand"
            ) from None
        copy = recreate(
            target.container,
            old_image,
            image,
            target.spell(request.image),
            await self._engine.api(),
            around,
            await self._engine.changes(target.id),
        )
        for remark in copy.remarks:
            log.info("remark", container=target.name, remark=remark)
        return Swap(
            self._engine,
            target.container,
            copy,
            image["Id"],
            by=self._identity,
            monitor=self._monitor,
            deploy_time=self._time(request),
        )

    async def _swap_all(self, swaps: list[Swap]) -> Report:
        """All or none: the first that fails brings back those that this deploy replaced already."""
        replaced: list[Swap] = []
        try:
            for swap in swaps:
                if self._stopping.is_set():
                    break
                await swap.replace()
                replaced.append(swap)
        except asyncio.CancelledError:
            # No time is left: what has proven itself stays, unless this deploy had failed already.
            await (self._undo_all(replaced) if swap.failed else self._commit_all(replaced))
            raise
        except Exception as exc:
            if isinstance(exc, RollbackFailed):
                self._repair(swap)
            await self._undo_all(replaced)
            raise
        await self._commit_all(replaced)
        if len(replaced) < len(swaps):
            raise Interrupted
        return Report(Outcome.DEPLOYED, containers=tuple(swap.name for swap in replaced))

    async def _commit_all(self, replaced: list[Swap]) -> None:
        await asyncio.gather(*(swap.commit() for swap in replaced))

    async def _undo_all(self, replaced: list[Swap]) -> None:
        """Raises the last RollbackFailed, after all of them have been tried."""
        failed: RollbackFailed | None = None
        for swap in reversed(replaced):
            try:
                await swap.undo()
            except RollbackFailed as exc:
                self._repair(swap)
                failed = exc
        if failed:
            raise failed

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
                    if await self._look_at(swap.old_id) is None:
                        log.error(
                            "the old container is gone; nothing left to bring back", container=swap.name
                        )
                        return
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


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("trying again", error=str(error), seconds=round(state.upcoming_sleep, 1))
