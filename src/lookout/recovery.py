"""Swaps that were found half done: finished or undone, whatever has interrupted them.

The names and labels of the containers are all that is needed. A swap that somebody who is alive has
in hand is left to them: this Lookout's by the locks, another one's by the label that says whose it is.
"""

import asyncio
import datetime
import json
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import structlog

from lookout import names
from lookout.dependents import groups
from lookout.engine import CREATE, ENGINE_STOP_TIMEOUT, Engine
from lookout.errors import (
    EngineError,
    EngineUnavailable,
    Interrupted,
    NotFound,
    NotReady,
    RollbackFailed,
    Stuck,
    SwapRefused,
)
from lookout.identity import is_at_work
from lookout.locks import Locks
from lookout.model import ImageName, Json, Reference
from lookout.names import (
    done_name,
    final_name,
    is_done_name,
    is_leftover_name,
    listed_name,
    name_of,
    old_name,
    policy_of,
    reference_of,
)
from lookout.pair import Pair
from lookout.plan import lives_in_another
from lookout.ready import Monitor, health_patience
from lookout.rollout import Rollout
from lookout.steps import Goal, Life, Sight, Verdict, verdicts, walk
from lookout.swap import Swap

ABANDONED_AFTER = 120  # seconds on top of what a swap waits for, but for an engine that is away

#: The steps that each verdict leads to.
GOALS = {
    Verdict.ADOPT: (Goal.ADOPTED,),
    Verdict.COMMIT: (Goal.COMMITTED,),
    Verdict.FINISH: (Goal.REPLACED, Goal.SEALED, Goal.COMMITTED),
    Verdict.UNDO: (Goal.RESTORED, Goal.CLEARED),
}
_NO_MONITOR = Monitor(seconds=0, deploy_time=0)

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Found:
    """A swap that was found, and what is known of it."""

    pair: Pair
    monitor: Monitor
    by: str  # empty where nothing says
    deploy: str
    container: Json  # that carries the labels
    old: Json | None
    age: float  # seconds since it was made
    longest: float  # seconds that its swap takes at most, with what is asked of the new container
    is_undone: bool = False  # another container of its deploy has been brought back already

    @property
    def is_done(self) -> bool:
        """Whether the new one has proven itself, so that the old one is in nobody's way."""
        return self.old is not None and is_done_name(name_of(self.old))

    @property
    def image(self) -> ImageName | None:
        reference = Reference.parse(reference_of(self.container))
        return reference.name if reference else None


class Recovery:
    """Ends what is found half done on the engine."""

    def __init__(self, engine: Engine, locks: Locks, *, by: str, parallelism: int) -> None:
        self._engine = engine
        self._locks = locks
        self._by = by
        self._parallelism = parallelism

    async def run(self) -> bool:
        """Finish or undo every swap that nobody has in hand; whether none is left.

        Of the old containers of one service each is found only when a newer one is gone. Raises the
        engine's errors only where it could not be looked into.
        """
        met: set[str] = set()
        while True:
            found = await self._find()
            ids = {one.container["Id"] for deploy in found for one in deploy}
            if ids <= met:
                return True
            met |= ids
            # Unlike a group of tasks this hands on every cancellation, and waits for all: a second one ends
            # an undo in a hurry.
            if any(await asyncio.gather(*map(self._attempt, found), return_exceptions=True)):
                return False

    async def clear_way(self, image: ImageName, containers: set[str]) -> set[str]:
        """End what is half done with these containers, or with others of this image.

        Returns those that another deploy of this Lookout has in hand: whoever waits for their locks must
        look again. Raises SwapRefused where it did not work, or another Lookout has it in hand.
        """
        in_hand: set[str] = set()
        for deploy in await self._find():
            involved = {found.pair.name for found in deploy}
            if not (involved & containers or any(found.image == image for found in deploy)):
                continue
            if not self._locks.are_free(involved):
                in_hand |= involved
                continue
            listed = ", ".join(sorted(involved))
            if other := await self._other(deploy):
                raise SwapRefused(
                    f"another Lookout ({other}) is replacing {listed} right now", transient=True
                )
            problem = await self._attempt(deploy)
            if problem and not all(found.is_done for found in deploy):
                raise SwapRefused(
                    f"an interrupted swap of {listed} could not be ended yet: {problem}", transient=True
                )
        return in_hand

    async def _attempt(self, deploy: Sequence[Found]) -> str:
        """End the swaps of one deploy; what keeps them from being ended, empty if they are."""
        involved = sorted({found.pair.name for found in deploy})
        if not self._locks.are_free(involved):
            return "a deploy has it in hand"
        try:
            if other := await self._other(deploy):
                log.info("a swap of another Lookout is left to it", containers=involved, by=other)
                return f"another Lookout ({other}) has it in hand"
            async with self._locks.held(involved):
                return await self._end(deploy)
        except Interrupted:
            return "Lookout is stopping"
        except (RollbackFailed, Stuck, EngineError, EngineUnavailable) as exc:
            log.error("an interrupted swap could not be ended yet", containers=involved, error=str(exc))
            return str(exc)
        except Exception as exc:
            log.exception("an interrupted swap could not be ended; please report it", containers=involved)
            return repr(exc)

    async def _other(self, deploy: Sequence[Found]) -> str:
        """Who else has it in hand; empty if nobody has."""
        for found in deploy:
            if not found.by or found.by == self._by:
                continue
            at_work = await is_at_work(self._engine, found.by, own=self._by)
            # All new containers of a deploy are made before the first swap.
            longest = CREATE * (len(deploy) - 1) + sum(one.longest for one in deploy)
            is_abandoned = found.age > ABANDONED_AFTER + longest
            if at_work or (at_work is None and not is_abandoned):
                return found.by
        return ""

    async def _end(self, deploy: Sequence[Found]) -> str:
        """Finish or undo them; returns what is left to be done."""
        swaps = [Swap(self._engine, found.pair, found.monitor, found=True) for found in deploy]
        sights = await asyncio.gather(*(swap.look() for swap in swaps))
        decided = verdicts(sights, undoing=any(found.is_undone for found in deploy))
        for swap, sight, verdict in zip(swaps, sights, decided, strict=True):
            if any(walk(GOALS[verdict], sight)):
                log.warning("a swap was interrupted", container=swap.name, verdict=verdict.value)
        rest: list[Swap] = []
        for swap, verdict in zip(swaps, decided, strict=True):
            if verdict is Verdict.ADOPT:
                await self._adopt(swap)
            elif verdict is Verdict.COMMIT:
                await swap.to(Goal.COMMITTED)
            else:
                rest.append(swap)
        if rest:
            rollout = Rollout(self._grouped(rest, deploy), parallelism=self._parallelism)
            try:
                await (rollout.finish() if Verdict.FINISH in decided else rollout.undo_surely())
            except NotReady as exc:
                log.warning("what had taken over was no good; the old containers serve again", error=str(exc))
            if not rollout.is_ended:
                return "not every container could be removed"
        return _left_to_strangers(swaps, sights)

    async def _adopt(self, swap: Swap) -> None:
        """There is nothing to go back to; a new container that cannot start must not hold up its successor."""
        try:
            await swap.to(Goal.ADOPTED)
        except (Stuck, EngineError, EngineUnavailable) as exc:
            log.error(
                "the new container cannot be started, and the old one was removed",
                container=swap.name,
                error=str(exc),
                next=f"docker start {swap.name}",
            )

    def _grouped(self, swaps: Sequence[Swap], deploy: Sequence[Found]) -> list[list[Swap]]:
        """In the order in which they depend on each other."""
        by_id = {swap.pair.old_id: swap for swap in swaps}
        olds = [found.old for found in deploy if found.old and found.pair.old_id in by_id]
        grouped = [[by_id.pop(old["Id"]) for old in group] for group in groups(olds, olds)]
        return [*grouped, *([swap] for swap in by_id.values())]

    # Find

    async def _find(self) -> list[list[Found]]:
        """The swaps that may be half done, by deploy."""
        listed = await self._engine.listed()
        everyone = {container["Id"] for container in listed}
        replaced = {_labels(container).get(names.REPLACES) for container in listed}
        undone = {_labels(one).get(names.DEPLOY) for one in listed if _is_back(one)}
        found: dict[str, list[Found]] = defaultdict(list)
        for container in listed:
            may_be = _may_be_half_done(container, everyone) and container["Id"] not in replaced
            if may_be and (one := await self._read(container["Id"])):
                found[one.deploy].append(replace(one, is_undone=one.deploy in undone))
        return [deploy for deploy in found.values() if _makes_sense(deploy)]

    async def _read(self, container_id: str) -> Found | None:
        """What the labels of a new container say, or of a stand-in, or the name of an old one."""
        try:
            container = await self._engine.container(container_id)
            pair = _pair(container)
            old = await self._engine.find(pair.old_id) if pair.old_id else None
            served = await self._engine.find(pair.served_id) if pair.stands_in else old
            labels = _labels(container["Config"])
            monitor = Monitor.from_label(labels[names.MONITOR]) if names.MONITOR in labels else _NO_MONITOR
            return Found(
                pair=replace(
                    pair,
                    stop_timeout=served["Config"].get("StopTimeout") if served else None,
                    shares_namespace=lives_in_another(old) if old else False,
                ),
                monitor=monitor,
                by=labels.get(names.BY, ""),
                deploy=labels.get(names.DEPLOY, container_id),
                container=container,
                old=old,
                age=_age(container),
                longest=_longest(container, served, monitor),
            )
        except NotFound:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            log.warning(
                "what its labels say of a swap makes no sense; left alone",
                container=container_id[:12],
                error=str(exc) or repr(exc),
            )
            return None


def _labels(container: Json) -> dict[str, str]:
    return container.get("Labels") or {}


def _may_be_half_done(listed: Json, everyone: Collection[str]) -> bool:
    """Whether a container, as the engine lists it, is worth a closer look."""
    labels = _labels(listed)
    name = listed_name(listed)
    if {labels.get(names.REPLACES), labels.get(names.LIVE)} & {*everyone}:
        return True
    if names.REPLACES in labels or names.ROLLBACK_FOR in labels:
        never_ran = listed["State"] == "created" and labels.get(names.SERVES) == "true"
        return never_ran or is_leftover_name(name)
    return _is_old(name, listed["Id"])


def _is_back(listed: Json) -> bool:
    """Whether it is a stand-in that has taken the place of what was run with --rm."""
    return names.ROLLBACK_FOR in _labels(listed) and not is_leftover_name(listed_name(listed))


def _left_to_strangers(swaps: Sequence[Swap], sights: Sequence[Sight]) -> str:
    """Say where a stranger has the name of an old one; what is left to be done if that one runs."""
    left = []
    for swap, sight in zip(swaps, sights, strict=True):
        if sight.name_taken and sight.old is not Life.GONE:
            log.warning(
                "another container has its name by now; the old one is kept under another",
                container=swap.name,
                old_id=swap.pair.old_id[:12],
                next=f"remove either {swap.name} or {swap.pair.old_id[:12]}",
            )
            if sight.old in (Life.UP, Life.LOOPING):
                left.append(f"another container has the name {swap.name}")
    return "; ".join(left)


def _is_old(name: str, container_id: str) -> bool:
    """Whether the name says that the container is an old one, whatever it was in an earlier swap."""
    return name in (old_name(final_name(name), container_id), done_name(final_name(name), container_id))


def _makes_sense(deploy: Sequence[Found]) -> bool:
    """Labels that another tool has copied make two containers the successor of one."""
    if (
        len({found.pair.old_id for found in deploy})
        == len({found.pair.name for found in deploy})
        == len(deploy)
    ):
        return True
    log.warning(
        "several containers say that they replace the same one; left alone",
        containers=sorted(name_of(found.container) for found in deploy),
    )
    return False


def _pair(container: Json) -> Pair:
    labels, own = _labels(container["Config"]), str(container["Id"])
    if labels.get(names.MODE, names.STOP_FIRST) != names.STOP_FIRST:
        raise ValueError(f"the mode {labels[names.MODE]} is not known to this version of Lookout")
    policy = policy_of(container)
    if _is_old(name_of(container), own):
        return Pair(final_name(name_of(container)), own, "", own, _unparked(container, policy), serves=True)
    is_new = names.REPLACES in labels
    old_id = labels[names.REPLACES] if is_new else own
    return Pair(
        name=labels.get(names.NAME) or final_name(name_of(container)),
        old_id=old_id,
        new_id=own if is_new else "",
        served_id=labels.get(names.LIVE if is_new else names.ROLLBACK_FOR) or old_id,
        policy=dict(json.loads(labels[names.RESTART])) if names.RESTART in labels else policy,
        serves=labels.get(names.SERVES) != "false",
    )


def _unparked(container: Json, policy: Json) -> Json:
    """The policy of an old container whose new one is gone, and with it the label that tells.

    Only `unless-stopped` is parked as `no`.
    """
    if policy.get("Name") == "no":
        return {"Name": "unless-stopped"}
    if policy.get("Name") == "unless-stopped":
        log.warning(
            "its restart policy is not known any more; see to it with `docker update --restart`",
            container=name_of(container),
        )
    return policy


def _age(container: Json) -> float:
    created = datetime.datetime.fromisoformat(container["Created"][:19] + "+00:00")
    return (datetime.datetime.now(datetime.UTC) - created).total_seconds()


def _longest(container: Json, served: Json | None, monitor: Monitor) -> float:
    """From its creation until it is ready, by what its stop, health check and monitor take at most."""
    timeout = served["Config"].get("StopTimeout") if served else None
    timeout = ENGINE_STOP_TIMEOUT if timeout is None else timeout
    if timeout < 0:
        return math.inf
    check = container["Config"].get("Healthcheck")
    watched = max(health_patience(check) if check else 0, monitor.deploy_time)
    return float(timeout + watched + monitor.seconds)
