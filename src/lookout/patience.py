"""Half a swap is no place to give up because the engine is away for a while."""

import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from structlog.stdlib import BoundLogger
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from lookout.errors import EngineUnavailable

LONGEST_WAIT = 2.0  # seconds between two tries: a service may be down meanwhile
LOG_EVERY = 30.0  # seconds between two lines that say so

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")


class Patience:
    """Repeats a step for as long as the engine is away; the step must be safe to repeat."""

    def __init__(self, log: BoundLogger) -> None:
        self._log = log
        self.was_needed = False
        self._noted = -LOG_EVERY

    async def __call__(
        self,
        step: Callable[Arguments, Coroutine[Any, Any, Value]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Value:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            wait=wait_random_exponential(min=0.2, max=LONGEST_WAIT),
            before_sleep=self._note_absence,
        )
        return await retrying(step, *args, **kwargs)

    def _note_absence(self, state: RetryCallState) -> None:
        self.was_needed = True
        if time.monotonic() - self._noted < LOG_EVERY:
            return
        self._noted = time.monotonic()
        error = state.outcome.exception() if state.outcome else None
        self._log.warning(
            "the engine is away in the middle of a swap; going on when it is back",
            error=str(error),
        )
