"""Gets an image onto the engine: once for whoever waits for it, again where a failure may pass."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from lookout.credentials import Access
from lookout.engine import Engine
from lookout.errors import AccessFailed, EngineError, EngineUnavailable, NotFound, PullFailed, PullFault
from lookout.faults import no_access, pull_failed
from lookout.keychain import Keychain
from lookout.model import DeployRequest, ImageRef, Json
from lookout.platforms import fits, platform_of_image
from lookout.progress import Layers, Progress, ProgressLog, Watch
from lookout.vitals import Vitals

TIMEOUT = 600.0  # seconds for a pull with all its tries, or the deploy time if that is longer
INACTIVITY = 60.0  # seconds in which nothing comes, after which a try is given up
LONGEST_WAIT = 30.0  # seconds between two tries, unless the registry asks for more
LEAST = 1.0  # seconds that a last try must have

log = structlog.stdlib.get_logger(__name__)


_Key = tuple[ImageRef, str | None, str]  # image, digest, platform


class Puller:
    """Pulls with the credentials of a keychain. One pull at a time for one and the same image."""

    def __init__(
        self,
        engine: Engine,
        keychain: Keychain,
        *,
        timeout: float | None = None,
        inactivity: float = INACTIVITY,
        longest_wait: float = LONGEST_WAIT,
        vitals: Vitals | None = None,
    ) -> None:
        """`timeout` is for a pull with all its tries; None takes TIMEOUT, or the deploy time if that is longer."""
        self._engine = engine
        self._keychain = keychain
        self._timeout = timeout
        self._inactivity = inactivity
        self._longest_wait = longest_wait
        self._vitals = vitals or Vitals()
        self._pulls: dict[_Key, _Pull] = {}

    async def pull(
        self, request: DeployRequest, *, deploy_time: float, platform: str = "", watch: Watch | None = None
    ) -> Json:
        """The inspected image, after it has been pulled for `platform`, such as linux/arm64/v8; empty: the host's.

        `watch` is called with the progress of it. Whoever asks for what is being pulled already waits for
        that; it goes on until the last who waits is cancelled. Raises PullFailed or EngineUnavailable.
        """
        key = (request.image, request.digest, platform)
        while (pull := self._pulls.get(key)) and pull.is_over:
            await self._end(key, pull)
        if pull is None:
            limit = self._timeout or max(TIMEOUT, deploy_time)
            pull = _Pull(request.image, lambda tell: self._try_until(request, platform, limit, tell))
            self._pulls[key] = pull
        try:
            return await pull.result(watch or _unwatched)
        finally:
            if pull.is_over:
                await self._end(key, pull)

    async def digest(self, image: ImageRef) -> str:
        """The digest that the registry has under this tag now, asked for as a pull would; nothing is pulled.

        Raises PullFailed, with the cause that a pull would have.
        """
        access = Access()
        try:
            access = await self._keychain.access(image.name.domain)
            return await self._engine.registry_digest(image, access.credentials)
        except AccessFailed as exc:
            raise no_access(image, exc) from exc
        except (EngineError, EngineUnavailable) as exc:
            raise pull_failed(image, exc.message, access) from exc

    async def _end(self, key: _Key, pull: "_Pull") -> None:
        """Give it up, if it goes on, and make way for another one when it has ended."""
        await pull.end()
        if self._pulls.get(key) is pull:
            del self._pulls[key]

    async def _try_until(self, request: DeployRequest, platform: str, limit: float, tell: Watch) -> Json:
        deadline, least = time.monotonic() + limit, min(LEAST, limit / 10)
        failures: list[BaseException] = []

        def note_retry(state: RetryCallState) -> None:
            if error := _error_of(state):
                failures.append(error)
            _note_retry(request.image, state)

        retrying = AsyncRetrying(
            retry=retry_if_exception(_passes_soon),
            stop=lambda state: deadline - time.monotonic() < max(least, _asked_pause(state)),
            wait=lambda state: self._pause(state, deadline - time.monotonic()),
            before_sleep=note_retry,
            reraise=True,
        )
        try:
            return await retrying(self._try, request, platform, deadline, tell)
        except _OutOfTime as exc:
            # What has gone wrong before says more than the end of the time.
            raise [exc, *failures][-1] from None

    async def _try(self, request: DeployRequest, platform: str, deadline: float, tell: Watch) -> Json:
        image, began, access = request.image, time.monotonic(), Access()
        try:
            async with asyncio.timeout(max(0.0, deadline - began)):
                access = await self._keychain.access(image.name.domain)
                digest = await self._stream(request, platform, access, tell)
                pulled = await self._take(request, platform, access)
        except TimeoutError:
            late = pull_failed(image, "it was not done in PullTimeoutSeconds", access)
            raise _OutOfTime(**vars(late)) from None
        except AccessFailed as exc:
            raise no_access(image, exc) from exc
        except PullFailed as exc:
            if exc.fault is PullFault.CREDENTIALS and access.credentials:
                access.credentials.forget()
            raise
        self._vitals.pulled(time.monotonic() - began)
        seconds = round(time.monotonic() - began, 1)
        log.info("pulled", image=str(image), digest=digest, credentials=access.source, seconds=seconds)
        return pulled

    async def _stream(self, request: DeployRequest, platform: str, access: Access, tell: Watch) -> str:
        """Follow a pull to its end; the digest that the engine says it has pulled."""
        layers, loop = Layers(), asyncio.get_running_loop()
        foreign = "" if fits(platform, await self._engine.platform()) else platform
        try:
            async with asyncio.timeout(self._inactivity) as silence:

                def note(line: Json) -> None:
                    if layers.read(line):
                        silence.reschedule(None if layers.is_unpacking else loop.time() + self._inactivity)
                        tell(layers.progress())

                await self._engine.pull(request.image, request.digest, access.credentials, note, foreign)
        except TimeoutError:
            if not silence.expired():
                raise
            said = f"nothing came for {self._inactivity:.0f} s"
            raise pull_failed(request.image, said, access) from None
        except EngineError as exc:
            raise pull_failed(request.image, exc.message, access) from exc
        return layers.digest

    async def _take(self, request: DeployRequest, platform: str, access: Access) -> Json:
        """The image that was pulled, held against what was asked for."""
        image = request.image
        try:
            if request.digest:
                await self._engine.tag(f"{image.name.canonical}@{request.digest}", image)
            pulled = await self._engine.image(image.canonical, platform)
        except NotFound as exc:
            raise pull_failed(image, "the pull has ended, and the image is not there", access) from exc
        known = [one.partition("@")[2] for one in pulled.get("RepoDigests") or ()]
        if request.digest and request.digest not in known:
            said = f"its digest is {', '.join(known)} and not {request.digest}"
            hint = "check ImageDigest: it must be that of the pushed image"
            raise PullFailed(
                str(image), PullFault.WRONG_DIGEST, said, access.source, hint, pulled=pulled["Id"]
            )
        if not fits(brought := platform_of_image(pulled), platform):
            said = f"it is for {brought}, and the container for {platform}"
            hint = "build the image for the platform that the container runs on"
            raise PullFailed(str(image), PullFault.PLATFORM, said, access.source, hint, pulled=pulled["Id"])
        return pulled

    def _pause(self, state: RetryCallState, left: float) -> float:
        """Seconds until the next try: more and more, so that `left` is used, and no less than is asked for."""
        growing = wait_random_exponential(min=min(1, self._longest_wait), max=self._longest_wait)
        return max(min(growing(state), left / 2), _asked_pause(state), 0.0)


class _Pull:
    """One pull, for all who wait for it."""

    def __init__(self, image: ImageRef, run: Callable[[Watch], Coroutine[Any, Any, Json]]) -> None:
        self._watches: list[Watch] = []
        self._log = ProgressLog(image)
        self._task = asyncio.create_task(run(self._tell), name="pull")
        self.is_over = False  # nobody waits for it any more

    async def result(self, watch: Watch) -> Json:
        self._watches.append(watch)
        try:
            return await asyncio.shield(self._task)
        finally:
            self._watches.remove(watch)
            self.is_over = not self._watches

    async def end(self) -> None:
        """Give it up, if it goes on, and wait for its end."""
        self._task.cancel()
        await asyncio.wait({self._task})

    def _tell(self, progress: Progress) -> None:
        self._log(progress)
        for watch in self._watches:
            watch(progress)


class _OutOfTime(PullFailed):
    """The time for all tries was over in the middle of one."""


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _asked_pause(state: RetryCallState) -> float:
    """Seconds that the registry has asked to wait for."""
    error = _error_of(state)
    return (error.retry_after or 0.0) if isinstance(error, PullFailed) else 0.0


def _unwatched(_: Progress) -> None:
    pass


def _passes_soon(error: BaseException) -> bool:
    return isinstance(error, EngineUnavailable) or (isinstance(error, PullFailed) and error.fault.passes_soon)


def _note_retry(image: ImageRef, state: RetryCallState) -> None:
    error, seconds = str(_error_of(state)), round(state.upcoming_sleep, 1)
    log.warning("trying to pull again", image=str(image), error=error, seconds=seconds)
