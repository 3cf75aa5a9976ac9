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

from lookout.engine import Credentials, Engine
from lookout.errors import (
    CopyRefused,
    EngineError,
    EngineUnavailable,
    Interrupted,
    NotFound,
    PullFailed,
    PullFault,
    RollbackFailed,
    RolledBack,
    SwapRefused,
)
from lookout.model import DeployRequest, ImageName, Json, Outcome, Report
from lookout.recreate import Surroundings, recreate
from lookout.swap import Swap
from lookout.targets import Target, created_from_id, dependents, match, name_of
from lookout.unbroken import unless

ENGINE_PATIENCE = 60.0  # seconds that a deploy waits for an engine that is away before it fails
PULL_TRIES = {PullFault.TRANSIENT: 4, PullFault.NOT_FOUND: 2}  # the others would fail again
PULL_TIMEOUT = 600.0  # seconds for one pull, or the deploy time if that is longer
LONGEST_PULL_WAIT = 10.0  # seconds between two tries
REPAIR_EVERY = 30.0  # seconds between two tries to bring an old container back

log = structlog.stdlib.get_logger(__name__)


class Deployer:
    """Deploys one request at a time per container; different containers do not wait for another."""

    def __init__(
        self,
        engine: Engine,
        *,
        deploy_time: float,
        monitor: float,
        credentials: Credentials | None,
        own_id: str | None,
        stopping: asyncio.Event,
        engine_patience: float = ENGINE_PATIENCE,
        longest_pull_wait: float = LONGEST_PULL_WAIT,
        repair_every: float = REPAIR_EVERY,
    ) -> None:
        self._engine = engine
        self._deploy_time = deploy_time
        self._monitor = monitor
        self._credentials = credentials
        self._own_id = own_id
        self._stopping = stopping
        self._engine_patience = engine_patience
        self._longest_pull_wait = longest_pull_wait
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
            transient = exc.fault in (PullFault.TRANSIENT, PullFault.CREDENTIALS)
            return Report(Outcome.FAILED, str(exc), transient=transient)
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
        if not targets:
            return Report(Outcome.NOT_HERE, "no running container of this image")
        left_alone = [f"{t.name} {t.left_alone}" for t in targets if t.left_alone]
        if any(t.id == self._own_id for t in targets) or len(left_alone) == len(targets):
            return Report(Outcome.IGNORED, "; ".join(left_alone))
        for text in left_alone:
            log.info("container left alone", reason=text)
        image = await unless(self._stopping, self._pull(request))
        return await self._replace_all(request, targets, image)

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

    # Pull

    async def _pull(self, request: DeployRequest) -> Json:
        """Pull once for all containers; what may pass by itself is tried again."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((PullFailed, EngineUnavailable)),
            stop=_enough_pulls,
            wait=wait_random_exponential(min=min(1, self._longest_pull_wait), max=self._longest_pull_wait),
            before_sleep=_note_retry,
            reraise=True,
        )
        return await retrying(self._pull_once, request)

    async def _pull_once(self, request: DeployRequest) -> Json:
        image = request.image
        limit = max(PULL_TIMEOUT, request.deploy_time or self._deploy_time)
        try:
            async with asyncio.timeout(limit):
                await self._engine.pull(image, request.digest, self._credentials, _PullLog())
        except TimeoutError:
            raise EngineUnavailable(f"pull {image}", f"not done after {limit:.0f} s") from None
        if request.digest:
            await self._engine.tag(f"{image.name.canonical}@{request.digest}", image)
        return await self._engine.image(f"{image.name.canonical}:{image.tag}")

    # Replace

    async def _replace_all(self, request: DeployRequest, targets: list[Target], image: Json) -> Report:
        names = sorted(t.name for t in targets if not t.left_alone)
        async with self._locked(names):
            current = await self._find(request.image.name)
            stale = [
                t
                for t in current
                if t.name in names and not t.left_alone and not t.runs(request.image, image["Id"])
            ]
            if not stale:
                return Report(Outcome.UNCHANGED, "every container runs this image already")
            swaps = await self._prepare(request, stale, image)
            return await self._swap_all(swaps)

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
        around = Surroundings(
            host_name=(await self._engine.info())["Name"],
            containers=await self._engine.names(),
            networks=frozenset(await self._engine.networks()),
        )
        others = await asyncio.gather(*map(self._look_at, await self._engine.containers(every=True)))
        neighbours = [container for container in others if container]
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
            monitor=self._monitor,
            deploy_time=request.deploy_time or self._deploy_time,
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
        except RollbackFailed:
            self._repair(swap)
            await self._undo_all(replaced)
            raise
        except (SwapRefused, RolledBack):
            await self._undo_all(replaced)
            raise
        except asyncio.CancelledError:
            await self._commit_all(replaced)
            raise
        await self._commit_all(replaced)
        if len(replaced) < len(swaps):
            raise Interrupted
        return Report(Outcome.DEPLOYED, containers=tuple(swap.name for swap in replaced))

    async def _commit_all(self, replaced: list[Swap]) -> None:
        for swap in replaced:
            await swap.commit()

    async def _undo_all(self, replaced: list[Swap]) -> None:
        for swap in reversed(replaced):
            try:
                await swap.undo()
            except RollbackFailed as exc:
                log.critical("rollback failed", container=swap.name, error=str(exc))
                self._repair(swap)

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


class _PullLog:
    """Pull progress at debug level: a line whenever a layer enters another state."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def __call__(self, step: Json) -> None:
        layer, status = str(step.get("id", "")), str(step.get("status", ""))
        if self._seen.get(layer) != status:
            self._seen[layer] = status
            log.debug("pulling", layer=layer, status=status, **(step.get("progressDetail") or {}))


def _enough_pulls(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    fault = error.fault if isinstance(error, PullFailed) else PullFault.TRANSIENT
    return state.attempt_number >= PULL_TRIES.get(fault, 1)


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("trying again", error=str(error), seconds=round(state.upcoming_sleep, 1))
