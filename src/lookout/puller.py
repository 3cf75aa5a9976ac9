"""Gets an image onto the engine: once for all its containers, again where a failure may pass."""

import asyncio

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from lookout.engine import Credentials, Engine
from lookout.errors import EngineUnavailable, PullFailed, PullFault
from lookout.model import DeployRequest, Json

TRIES = {PullFault.TRANSIENT: 4, PullFault.NOT_FOUND: 2}  # the others would only fail again
TIMEOUT = 600.0  # seconds for one pull, or the deploy time if that is longer
LONGEST_WAIT = 10.0  # seconds between two tries

log = structlog.stdlib.get_logger(__name__)


class Puller:
    """Pulls with the credentials of the settings."""

    def __init__(
        self, engine: Engine, credentials: Credentials | None, *, longest_wait: float = LONGEST_WAIT
    ) -> None:
        self._engine = engine
        self._credentials = credentials
        self._longest_wait = longest_wait

    async def pull(self, request: DeployRequest, *, deploy_time: float) -> Json:
        """The inspected image, after it has been pulled; raises PullFailed or EngineUnavailable."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((PullFailed, EngineUnavailable)),
            stop=_enough,
            wait=wait_random_exponential(min=min(1, self._longest_wait), max=self._longest_wait),
            before_sleep=_note_retry,
            reraise=True,
        )
        return await retrying(self._pull_once, request, max(TIMEOUT, deploy_time))

    async def _pull_once(self, request: DeployRequest, limit: float) -> Json:
        image = request.image
        try:
            async with asyncio.timeout(limit):
                await self._engine.pull(image, request.digest, self._credentials, _Progress())
        except TimeoutError:
            raise EngineUnavailable(f"pull {image}", f"not done after {limit:.0f} s") from None
        if request.digest:
            await self._engine.tag(f"{image.name.canonical}@{request.digest}", image)
        return await self._engine.image(f"{image.name.canonical}:{image.tag}")


class _Progress:
    """Pull progress at debug level: a line whenever a layer enters another state."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def __call__(self, step: Json) -> None:
        layer, status = str(step.get("id", "")), str(step.get("status", ""))
        if self._seen.get(layer) != status:
            self._seen[layer] = status
            log.debug("pulling", layer=layer, status=status, **(step.get("progressDetail") or {}))


def _enough(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    fault = error.fault if isinstance(error, PullFailed) else PullFault.TRANSIENT
    return state.attempt_number >= TRIES.get(fault, 1)


def _note_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("trying to pull again", error=str(error), seconds=round(state.upcoming_sleep, 1))
