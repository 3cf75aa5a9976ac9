"""Steps that the engine refuses: how long each is tried again, and what goes on without it."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential

from lookout.errors import EngineError, EngineUnavailable
from lookout.steps import Step

INSIST_FOR = 10.0  # seconds in which a call that the engine refuses is tried again
INSIST_IN_A_HURRY = 1.0
INSIST_EVERY, LONGEST_PAUSE = 0.1, 2.0  # seconds between two of these, doubled each time, up to the second
#: Refused on the way there, all others are tried again: only this one is up to the image.
NOT_INSISTED = (Step.START,)
TRIES = 4  # of a call that got no answer, while the engine answers others

Value = TypeVar("Value")


async def insisting(look: Callable[[], Coroutine[Any, Any, Value]], *, in_a_hurry: bool) -> Value:
    """What a look gives that the engine may refuse for a moment; raises its error if it goes on."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(EngineError),
        stop=stop_after_delay(_insist_for(in_a_hurry)),
        wait=wait_exponential(multiplier=INSIST_EVERY, max=LONGEST_PAUSE),
        reraise=True,
    )
    return await retrying(look)


def _insist_for(in_a_hurry: bool) -> float:
    return INSIST_IN_A_HURRY if in_a_hurry else INSIST_FOR


class Refusals:
    """The steps that the engine refuses, and for how long it may."""

    def __init__(self, *, back: bool, in_a_hurry: bool, optional: Collection[Step]) -> None:
        self.back = back
        self._optional = optional
        self._insist_for = _insist_for(in_a_hurry)
        self.final: set[Step] = set()  # given up
        self.last: Exception | None = None
        self._since: dict[Step, float] = {}
        self._tries: dict[Step, int] = {}

    def forget(self, step: Step | None) -> None:
        """It was taken. On the way there, what was given up before may work by now."""
        if step is None:
            return
        self._since.pop(step, None)
        self._tries.pop(step, None)
        if not self.back:
            self.final.clear()

    async def note(self, step: Step, problem: EngineError | EngineUnavailable | None) -> None:
        """Wait before the next try, or give the step up; raises the problem if nothing goes without it.

        None is the problem of an engine that has said yes, and has not done it.
        """
        is_insisted = self.back or problem is None or step not in NOT_INSISTED
        problem = problem or EngineError(step.value, 200, "it is not done")
        tries = self._tries[step] = self._tries.get(step, 0) + 1
        since = self._since.setdefault(step, time.monotonic())
        if isinstance(problem, EngineUnavailable):
            has_patience = tries < TRIES
        else:
            has_patience = is_insisted and time.monotonic() - since < self._insist_for
        if has_patience:
            await asyncio.sleep(min(INSIST_EVERY * 2**tries, LONGEST_PAUSE))
        elif self.back or step in self._optional:
            self.final.add(step)
            self.last = problem
        else:
            raise problem
