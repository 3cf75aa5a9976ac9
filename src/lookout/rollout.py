"""All containers of a deploy, group by group: all of them run the new image in the end, or none does."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from lookout.errors import RollbackFailed
from lookout.names import old_name
from lookout.plan import Group
from lookout.swap import Swap, stop_steps, take_over_steps


class Rollout:
    """Prepares every swap before the first container is stopped, then takes one group after the other.

    Within a group each container is replaced after those that it depends on. Those that share a
    namespace of another are stopped before it, while their network still works.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Swap]],
        *,
        stopping: asyncio.Event,
        repair: Callable[[Swap], None],
    ) -> None:
        self._groups = groups
        self._stopping = stopping
        self._repair = repair
        self._done: list[Swap] = []
        self._current: list[Swap] = []
        self._in_hand: Swap

    async def run(self) -> list[Swap]:
        """Replace them and return those that were replaced: fewer than all only if `stopping` was set.

        Raises SwapRefused where nothing was stopped, or the engine and not the image was to blame,
        RolledBack where an image was no good, and RollbackFailed where an old container does not run
        again; `repair` is called with each of those. Cancelled, it undoes the group in hand and lets
        the cancellation pass; groups that have proven themselves stay.
        """
        await self._prepare()
        try:
            await self._replace_all()
        except asyncio.CancelledError:
            try:
                await self._undo(in_a_hurry=True)
            finally:
                await self._commit()
            raise
        finally:
            await self._discard_untouched()
        await self._commit()
        return self._done

    async def _prepare(self) -> None:
        """What is refused costs nothing: at this point every old container still runs."""
        try:
            for group in self._groups:
                new_ids: dict[str, str] = {}
                for swap in group:
                    await swap.prepare(new_ids)
                    new_ids[swap.plan.new_name] = swap.new_id
        except BaseException:
            await self._discard_untouched()
            raise

    async def _replace_all(self) -> None:
        for group in self._groups:
            if self._stopping.is_set():
                return
            self._current = [*group]
            try:
                await self._replace(group)
            except Exception as cause:
                failed = self._in_hand
                failed.note(cause)
                self._current, self._done = self._current + self._done, []
                await self._undo()
                raise failed.verdict(cause) from cause
            self._done += group
            self._current = []

    async def _replace(self, group: Sequence[Swap]) -> None:
        for self._in_hand in reversed(group):
            if self._in_hand.plan.shares_namespace:
                await self._in_hand.stop()
        for self._in_hand in group:
            await self._in_hand.replace()

    async def _undo(self, *, in_a_hurry: bool = False) -> None:
        """Bring back all that is not done; raises the first RollbackFailed after all have been tried.

        What depends on others goes before them and comes back after them.
        """
        if not in_a_hurry:
            for swap in reversed(self._current):
                await swap.retire()
        problems: list[RollbackFailed] = []
        for swap in self._current:
            try:
                await swap.undo(in_a_hurry=in_a_hurry)
            except RollbackFailed as exc:
                self._repair(swap)
                problems.append(exc)
        if problems:
            raise problems[0]

    async def _commit(self) -> None:
        await asyncio.gather(*(swap.commit() for swap in self._done))

    async def _discard_untouched(self) -> None:
        for swap in chain.from_iterable(self._groups):
            await swap.discard()


def steps(groups: Sequence[Group]) -> Iterator[str]:
    """What `Rollout` does if all goes well, one call of the engine or one wait a line."""
    for plan in chain.from_iterable(groups):
        yield f"create {plan.new_name} from {plan.image}"
        yield from (f"disconnect {plan.new_name} from network {name}" for name in plan.disconnect)
        yield from (f"connect {plan.new_name} to network {name}" for name, _ in plan.connect)
        yield from (f"copy {path} from {plan.name} to {plan.new_name}" for path in plan.archives)
        yield f"inspect {plan.new_name}, and hold it against this plan"
    for group in groups:
        yield from _group_steps(group)
    yield from (f"remove {old_name(plan.name, plan.old_id)}" for plan in chain.from_iterable(groups))


def _group_steps(group: Group) -> Iterator[str]:
    early = [plan for plan in reversed(group) if plan.shares_namespace]
    for plan in early:
        yield from stop_steps(plan)
    for plan in group:
        if plan not in early:
            yield from stop_steps(plan)
        yield from take_over_steps(plan)
