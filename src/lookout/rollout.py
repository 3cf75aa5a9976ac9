"""All swaps of a deploy: every container runs the new image in the end, or none does.

After a crash the same is done with what is found: finished if all have taken over, else undone.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from lookout.errors import (
    EngineError,
    EngineUnavailable,
    NotReady,
    RollbackFailed,
    RolledBack,
    Stuck,
    SwapRefused,
)
from lookout.model import ContainerReport
from lookout.names import done_name, old_name, standin_name
from lookout.pair import expected, mark_of
from lookout.plan import Group, Plan
from lookout.steps import EFFECTS, Goal, Sight, Step, walk
from lookout.swap import Swap
from lookout.unbroken import unbroken


class Rollout:
    """Takes the swaps of a deploy to their goals.

    Containers that depend on each other are one group. Within it each is replaced after those that it
    depends on; those that share a namespace of another are stopped before it, while their network
    still works. So many groups are replaced at a time as `parallelism` says, all if it is 0.
    """

    def __init__(self, groups: Sequence[Sequence[Swap]], *, parallelism: int) -> None:
        self._groups = groups
        self._swaps = [*chain.from_iterable(groups)]
        self._parallelism = parallelism or max(1, len(groups))
        self._failures: list[tuple[Swap, Exception]] = []

    @property
    def reports(self) -> Iterator[ContainerReport]:
        """What has become of each container."""
        return (swap.report for swap in self._swaps)

    @property
    def is_ended(self) -> bool:
        """Whether nothing is left for a recovery."""
        return all(swap.is_ended for swap in self._swaps)

    async def run(self) -> None:
        """Replace all, and remove the old containers when every new one is ready.

        Raises RolledBack where an image was no good, SwapRefused where it was the engine, and
        RollbackFailed where an old container does not run again. Cancelled, it undoes all in a hurry
        and lets the cancellation pass.
        """
        try:
            try:
                await self._replace_all()
            except Exception as cause:
                raise await self._bring_back() from cause
        except asyncio.CancelledError:
            await self._undo_in_a_hurry()
            raise
        await unbroken(self.commit())

    async def finish(self) -> None:
        """Watch what has taken over before a crash, then remove the old ones; or bring all back.

        Raises NotReady if it did, and RollbackFailed if that did not work.
        """
        try:
            await _all_or_first_failure(swap.to(Goal.REPLACED) for swap in self._swaps)
        except (NotReady, Stuck, EngineError, EngineUnavailable) as exc:
            await self.undo_surely()
            raise NotReady(str(exc)) from exc
        await self.commit()

    async def undo_surely(self) -> None:
        """As `undo`; cancelled, it begins again in a hurry and lets the cancellation pass."""
        try:
            await self.undo()
        except asyncio.CancelledError:
            await self._undo_in_a_hurry()
            raise

    async def undo(self) -> None:
        """Bring every old container back; raises RollbackFailed after all have been tried.

        What depends on others stops before them, and comes back after them; as many groups at a time as
        are replaced at a time, but all in a hurry. Nothing new is removed before all that is old serves:
        it would be forgotten that the others must come back too.
        """
        in_a_hurry = any(swap.in_a_hurry for swap in self._swaps)
        slots = asyncio.Semaphore(len(self._groups) if in_a_hurry else self._parallelism)
        # The last first: what is down is there.
        restoring = (self._restore(group, slots) for group in reversed(self._groups))
        problems: list[RollbackFailed] = []
        for result in await asyncio.gather(*restoring, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            problems += result
        if problems:
            raise RollbackFailed.joined(problems)
        for swap in self._swaps:
            await swap.clear()

    async def commit(self) -> None:
        """Remove the old containers; their volumes stay.

        Once it is noted on one of them that it does not come back, none does, whatever happens.
        """
        for swap in self._swaps:
            await swap.seal()
        await asyncio.gather(*(swap.commit() for swap in self._swaps))

    async def _replace_all(self) -> None:
        slots = asyncio.Semaphore(self._parallelism)
        await _all_or_first_failure(self._replace_in_turn(group, slots) for group in self._groups)
        if len(self._swaps) > 1:
            await _all_or_first_failure(self._blaming(swap, swap.check_again()) for swap in self._swaps)

    async def _replace_in_turn(self, group: Sequence[Swap], slots: asyncio.Semaphore) -> None:
        async with slots:
            for swap in reversed(group):
                if swap.shares_namespace:
                    await self._blaming(swap, swap.to(Goal.STOPPED))
            for swap in group:
                await self._blaming(swap, swap.replace())

    async def _blaming(self, swap: Swap, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except Exception as exc:
            self._failures.append((swap, exc))
            raise

    async def _restore(self, group: Sequence[Swap], slots: asyncio.Semaphore) -> list[RollbackFailed]:
        """Bring the old containers of a group back; returns why some could not be."""
        problems: list[RollbackFailed] = []
        async with slots:
            for swap in reversed(group):
                await swap.halt()
            for swap in group:
                try:
                    await swap.restore()
                except RollbackFailed as exc:
                    problems.append(exc)
        return problems

    async def _bring_back(self) -> Exception:
        """Undo all, and say why and who was to blame."""
        failed, cause = self._failures[0]
        tail = await failed.note(cause)
        engine_was_away = any(swap.engine_was_away for swap in self._swaps)
        try:
            await self.undo()
        except RollbackFailed as exc:
            exc.log_tail = tail
            return exc
        reason = f"{failed.name}: {cause}"
        if engine_was_away or not failed.was_tried:
            return SwapRefused(reason, transient=True, log_tail=tail)
        return RolledBack(reason, tail)

    async def _undo_in_a_hurry(self) -> None:
        for swap in self._swaps:
            swap.in_a_hurry = True
        try:
            await self.undo()
        except RollbackFailed:
            self._note_end()  # and let the cancellation pass, so that the message goes back
        except asyncio.CancelledError:
            self._note_end()
            raise

    def _note_end(self) -> None:
        for swap in self._swaps:
            swap.note_end()


async def _all_or_first_failure(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Take all of them side by side; the first that fails cuts the others short."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for step in steps:
                tasks.create_task(step)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def schedule(groups: Sequence[Group]) -> Iterator[str]:
    """What `Rollout` does if all goes well, one call of the engine or one wait a line."""
    for plan in chain.from_iterable(groups):
        yield from _creation(plan.standin) if plan.standin else ()
        yield from _creation(plan)
    ended: dict[str, Sight] = {}
    for group in groups:
        sights = {plan.name: expected(plan) for plan in group}
        for plan in reversed(group):
            if plan.shares_namespace:
                yield from _walk(plan, sights, Goal.STOPPED)
        for plan in group:
            yield from _walk(plan, sights, Goal.REPLACED)
        ended |= sights
    plans = [*chain.from_iterable(groups)]
    if len(plans) > 1:
        yield from (f"see that {plan.name} is ready still" for plan in plans if plan.runs)
    for goal in (Goal.SEALED, Goal.COMMITTED):
        for plan in plans:
            yield from _walk(plan, ended, goal)


def _creation(plan: Plan) -> Iterator[str]:
    yield f"create {plan.new_name} from {plan.image}"
    yield from (f"disconnect {plan.new_name} from network {name}" for name in plan.disconnect)
    yield from (f"connect {plan.new_name} to network {name}" for name, _ in plan.connect)
    yield from (f"copy {path} from {plan.name} to {plan.new_name}" for path in plan.archives)
    yield f"inspect {plan.new_name}, and hold it against this plan"


def _walk(plan: Plan, sights: dict[str, Sight], goal: Goal) -> Iterator[str]:
    """The steps of the table, with the names that a person can look for."""
    aside, done = old_name(plan.name, plan.old_id), done_name(plan.name, plan.old_id)
    words = {
        Step.MARK: f"rename {standin_name(plan.name, plan.old_id)} to {aside}"
        if plan.standin
        else f"set the restart policy of {plan.name} to {mark_of(plan.policy)['Name']}",
        Step.STOP: f"stop {plan.name}",
        Step.SET_ASIDE: f"rename {plan.name} to {aside}",
        Step.NAME_NEW: f"rename {plan.new_name} to {plan.name}",
        Step.START: f"start {plan.name}",
        Step.WATCH: f"wait until {plan.name} is ready, else undo all of this",
        Step.SEAL: f"rename {aside} to {done}",
        Step.REMOVE_OLD: f"remove {done}",
    }
    for step in walk([goal], sights[plan.name]):
        sights[plan.name] = EFFECTS[step](sights[plan.name])
        yield words[step]
