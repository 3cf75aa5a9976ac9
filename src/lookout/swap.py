"""One container and its successor: what is seen of them, and the steps that are taken with them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from lookout.engine import Engine
from lookout.errors import EngineError, EngineUnavailable, NotFound, NotReady, RollbackFailed, Stuck
from lookout.model import Json
from lookout.names import is_leftover_name, name_of, new_name, old_name, standin_name
from lookout.patience import Patience
from lookout.plan import Plan
from lookout.ready import Monitor, has_crashed, wait_until_ready
from lookout.steps import Goal, Life, Named, Sight, Step, next_step
from lookout.unbroken import unbroken

INSIST_FOR = 10.0  # seconds in which a call that the engine refuses is tried again
INSIST_IN_A_HURRY = 1.0
INSIST_EVERY, LONGEST_PAUSE = 0.1, 2.0  # seconds between two of these, doubled each time, up to the second
TRIES = 4  # of a call that got no answer, while the engine answers others
MOST_STEPS = 200  # towards one goal: whoever works against us wins in the end
SETTLE = 1.0  # seconds that the old container must run again before a rollback counts
STOP_WITHIN = 10  # seconds that a container which is no good gets to stop, whatever its own timeout
GONE_WITHIN = 60.0  # seconds in which an engine removes a stopped container that was run with --rm

#: Refused on the way there, these are tried again: they have nothing to do with the image.
INSISTED = frozenset(Step) - {Step.START}
#: Refused on the way back, these are no reason to fail: the new one is removed by force in the end.
DISPENSABLE = {Step.STOP_NEW, Step.PUT_ASIDE}
WAY_BACK = (Goal.HALTED, Goal.RESTORED, Goal.CLEARED)

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Pair:
    """Which containers a swap is about, as it is known from its plan or read from labels."""

    name: str
    old_id: str  # of the container to go back to
    new_id: str  # empty where there is none
    served_id: str  # of the container that served: the old one, or the one that it stands in for
    policy: Json  # the old container's own restart policy
    serves: bool
    stop_timeout: int | None = None  # of the container that served, in seconds; None for the engine's own
    shares_namespace: bool = False  # of another container
    chooses_ports: bool = False  # whether the engine chooses some host port anew
    old_image: str = ""
    image: str = ""

    @property
    def stands_in(self) -> bool:
        return self.old_id != self.served_id

    @property
    def new_name(self) -> str:
        return new_name(self.name, self.served_id)

    @property
    def old_name(self) -> str:
        return old_name(self.name, self.served_id)

    @property
    def standin_name(self) -> str:
        return standin_name(self.name, self.served_id)


def mark_of(policy: Json) -> Json:
    """The restart policy that says that the stop may have begun: an engine that restarts starts neither.

    But it is `unless-stopped` where that can be told from the container's own, so that a machine that
    is restarted before the stop brings the container back.
    """
    return {"Name": "no" if policy.get("Name") == "unless-stopped" else "unless-stopped"}


def expected(plan: Plan) -> Sight:
    """What will be seen when the new container is made, and nothing is stopped yet."""
    served = Life.UP if plan.runs else Life.DOWN
    return Sight(
        old=Life.CREATED if plan.standin else served,
        old_named=Named.ASIDE if plan.standin else Named.OWN,
        new=Life.CREATED,
        new_named=Named.ASIDE,
        live=served if plan.standin else None,
        serves=plan.runs,
    )


class Swap:
    """Takes steps towards goals. Each looks at the engine first, so all of it is safe to repeat."""

    def __init__(self, engine: Engine, pair: Pair, monitor: Monitor) -> None:
        self.pair = pair
        self.name = pair.name
        self.shares_namespace = pair.shares_namespace
        self.in_a_hurry = False  # nothing is asked politely
        self.was_tried = False  # the new container was started, or that failed
        self.engine_was_away = False
        self.is_ended = False  # committed or undone, to the last step
        self._engine = engine
        self._monitor = monitor
        self._ready = False
        self._tail = ""
        self._stopped_at: float | None = None
        self._log = log.bind(container=pair.name)
        self._surely = Patience(self._log)

    async def replace(self) -> None:
        """Put the new container in the old one's place; the old one waits, stopped, for `commit`.

        Raises NotReady or an engine's error where that did not work; then `restore` is due.
        """
        self._log.info("replacing", old_image=self.pair.old_image, new_image=self.pair.image)
        if not self.pair.stands_in:
            return await self.to(Goal.REPLACED)
        async with self._engine.output(self.pair.new_id) as heard:  # its log goes with it
            try:
                return await self.to(Goal.REPLACED)
            finally:
                self._tail = heard()

    async def check_again(self) -> None:
        """See that the new container is still good, after others were replaced; raises NotReady."""
        if self.pair.serves:
            await self._surely(wait_until_ready, self._engine, self.pair.new_id, self._monitor.once_more())

    async def commit(self) -> None:
        """Remove the old container; one that the engine keeps is left for the next recovery."""
        try:
            await self.to(Goal.COMMITTED)
            self.is_ended = True
        except (Stuck, EngineError, EngineUnavailable) as exc:
            self._log.error(
                "the old container is still there",
                error=str(exc),
                next=f"remove it by hand: docker rm {self.pair.old_id[:12]}",
            )
        self._log.info("replaced", old_id=self.pair.old_id[:12], new_id=self.pair.new_id[:12])
        if self.pair.chooses_ports:
            await self._report_ports()

    async def note(self, cause: Exception) -> str:
        """Log why the old container comes back; returns the last lines of the new one's log."""
        self._log.warning(
            "the swap failed; bringing the old container back",
            error=str(cause) or repr(cause),
            exc_info=None if isinstance(cause, NotReady | EngineError | EngineUnavailable) else cause,
        )
        if self.was_tried and not self._tail:
            self._tail = await self._log_tail()
        return self._tail

    def note_end(self) -> None:
        """Log that no time is left, and what a person can do, if something was stopped."""
        if self._stopped_at is not None:
            self._log.critical(
                "ended in the middle of a swap",
                old_id=self.pair.old_id[:12],
                new_id=self.pair.new_id[:12],
                next="the next start of Lookout goes on with it; "
                f"to have the old one back at once: docker start {self.pair.old_id[:12]}",
            )

    async def halt(self) -> None:
        """Stop the new container, before what it depends on goes; what goes wrong is for `restore` to say."""
        with suppress(Stuck):
            await self.to(Goal.HALTED)

    async def restore(self) -> None:
        """Bring the old container back. Raises RollbackFailed, and keeps the new one, if it can't."""
        sight = await self.look()
        if sight.old is Life.GONE and not sight.stood_in:
            await self.to(Goal.ADOPTED)
            self.is_ended = True
            raise RollbackFailed(
                self.name,
                "the old container was removed by somebody else, so the new one stays",
                f"docker start {self.name}",
            )
        try:
            await self.to(Goal.RESTORED)
        except Stuck as exc:
            raise RollbackFailed(self.name, exc.message, await self._command()) from exc
        if next_step(Goal.RESTORED, sight):
            self._log.info("the old container runs again", log_tail_of_the_new=self._tail)

    async def clear(self) -> None:
        """Remove the new container, with its own fresh volumes; those that it shares have names, and stay."""
        try:
            await self.to(Goal.CLEARED)
            self.is_ended = True
        except Stuck as exc:
            self._log.error(
                "the new container is still there",
                error=exc.message,
                next=f"remove it by hand: docker rm -f -v {self.pair.new_id[:12]}",
            )

    async def to(self, goal: Goal) -> None:
        """Take steps until the goal is reached.

        No answer is believed: whether a step was taken is for the next look to say. Raises NotReady where
        the new container is no good, the engine's error where it refuses a step of the way there, and
        Stuck where it refused one of the way back and all others were taken.
        """
        refusals = _Refusals(back=goal in WAY_BACK, in_a_hurry=self.in_a_hurry)
        before: Step | None = None
        problem: EngineError | EngineUnavailable | None = None
        for _ in range(MOST_STEPS):
            step = next_step(goal, await self.look(), skipping=refusals.final)
            if step is None:
                break
            if step is before:
                await refusals.note(step, problem or EngineError(step.value, 200, "it is not done"))
                before = None
                continue
            refusals.forget(before)
            before, problem = step, await self._try(step)
        else:
            raise Stuck(self.name, f"{MOST_STEPS} steps have not led there: {goal}")
        if refusals.last and refusals.back and not refusals.final <= DISPENSABLE:
            raise Stuck(self.name, str(refusals.last))

    async def _try(self, step: Step) -> EngineError | EngineUnavailable | None:
        try:
            await self._take(step)
        except EngineUnavailable as exc:
            self.engine_was_away = True
            return exc
        except EngineError as exc:
            return exc
        return None

    async def look(self) -> Sight:
        """What is seen of it now; waits for an engine that is away."""
        try:
            return await self._surely(self._look)
        finally:
            self.engine_was_away = self.engine_was_away or self._surely.was_needed

    async def _log_tail(self) -> str:
        """The last lines say why the new container was no good, and go with it. Some drivers cannot be read."""
        try:
            return await self._engine.log_tail(self.pair.new_id)
        except (EngineError, EngineUnavailable) as exc:
            return f"(not to be had: {exc})"

    async def _report_ports(self) -> None:
        """Where the new container is published: nobody could know it from the request."""
        with suppress(EngineError, EngineUnavailable):
            new = await self._engine.container(self.pair.new_id)
            ports = {
                port: [f"{binding['HostIp']}:{binding['HostPort']}" for binding in bindings]
                for port, bindings in (new["NetworkSettings"].get("Ports") or {}).items()
                if bindings
            }
            self._log.info("published", ports=ports)

    async def _command(self) -> str:
        """What a person can do about it."""
        old = await self._surely(self._inspect, self.pair.old_id)
        if old and name_of(old) != self.name:
            return f"docker rename {name_of(old)} {self.name} && docker start {self.name}"
        return f"docker start {self.name}"

    # Look

    async def _look(self) -> Sight:
        old, new, live = await asyncio.gather(
            self._inspect(self.pair.old_id),
            self._inspect(self.pair.new_id),
            self._inspect(self.pair.served_id if self.pair.stands_in else ""),
        )
        taken = not old and bool(await self._inspect(self.pair.name))
        return Sight(
            old=_life(old),
            old_named=self._named(old, self.pair.old_name, self.pair.standin_name),
            new=_life(new),
            new_named=self._named(new, self.pair.new_name),
            # One that the engine is removing has not stopped before it is gone.
            live=(Life.UP if live else Life.GONE) if self.pair.stands_in else None,
            marked=self._is_marked(old),
            serves=self.pair.serves,
            ready=self._ready,
            name_taken=taken,
        )

    async def _inspect(self, key: str) -> Json | None:
        try:
            return await self._engine.container(key) if key else None
        except NotFound:
            return None

    def _named(self, container: Json | None, *aside: str) -> Named:
        name = name_of(container) if container else ""
        if name == self.pair.name:
            return Named.OWN
        return Named.ASIDE if name in aside or is_leftover_name(name) else Named.OTHER

    def _is_marked(self, old: Json | None) -> bool:
        if not old:
            return False
        if self.pair.stands_in:
            return name_of(old) == self.pair.old_name
        current = (old["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"
        own = self.pair.policy.get("Name") or "no"
        return bool(current == mark_of(self.pair.policy)["Name"] != own)

    # Act

    async def _take(self, step: Step) -> None:
        """Take a step. Only a wait can be cut short: what a cut call does to the engine is not seen at once."""
        steps: dict[Step, Callable[[], Awaitable[None]]] = {
            Step.MARK: self._mark,
            Step.STOP: self._stop,
            Step.SET_ASIDE: lambda: self._engine.rename(self.pair.old_id, self.pair.old_name),
            Step.NAME_NEW: lambda: self._engine.rename(self.pair.new_id, self.pair.name),
            Step.START: self._start,
            Step.WATCH: self._watch,
            Step.REMOVE_OLD: lambda: self._engine.remove(self.pair.old_id),
            Step.STOP_NEW: self._stop_new,
            Step.PUT_ASIDE: lambda: self._engine.rename(self.pair.new_id, self.pair.new_name),
            Step.NAME_OLD: lambda: self._engine.rename(self.pair.old_id, self.pair.name),
            Step.UNMARK: lambda: self._engine.set_restart_policy(self.pair.old_id, self.pair.policy),
            Step.START_OLD: self._start_old,
            # Its own fresh volumes go with it; those that it shares with the old one have names, and stay.
            Step.REMOVE_NEW: lambda: self._engine.remove(self.pair.new_id, volumes=True, force=True),
        }
        waits = step in (Step.STOP, Step.WATCH, Step.START_OLD)
        await (steps[step]() if waits else unbroken(steps[step]()))

    async def _mark(self) -> None:
        if self.pair.stands_in:
            await self._engine.rename(self.pair.old_id, self.pair.old_name)
        else:
            await self._engine.set_restart_policy(self.pair.old_id, mark_of(self.pair.policy))

    async def _stop(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        within = 0 if self.in_a_hurry else None
        for container in {self.pair.served_id, self.pair.old_id}:
            with suppress(NotFound):
                await self._engine.stop(container, own_timeout=self.pair.stop_timeout, within=within)
        if self.pair.stands_in:
            await self._wait_until_gone()

    async def _wait_until_gone(self) -> None:
        deadline = time.monotonic() + GONE_WITHIN
        while await self._inspect(self.pair.served_id):
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"remove {self.pair.served_id}", "it has stopped, and is still there")
            await asyncio.sleep(0.02)

    async def _start(self) -> None:
        self.was_tried = True
        await self._engine.start(self.pair.new_id)
        if self._stopped_at:
            self._log.info("started", downtime_seconds=round(time.monotonic() - self._stopped_at, 2))

    async def _watch(self) -> None:
        await wait_until_ready(self._engine, self.pair.new_id, self._monitor)
        self._ready = True

    async def _stop_new(self) -> None:
        await self._engine.stop(self.pair.new_id, within=0 if self.in_a_hurry else STOP_WITHIN)

    async def _start_old(self) -> None:
        """Start the old container, and see that it stays."""
        try:
            await unbroken(self._engine.start(self.pair.old_id))
        except NotFound:
            await self._join_networks_again()
            await unbroken(self._engine.start(self.pair.old_id))
        await asyncio.sleep(0 if self.in_a_hurry else SETTLE)
        old = await self._engine.container(self.pair.old_id)
        if not (old["State"]["Running"] or has_crashed(old)):
            raise EngineError(
                f"keep {self.name} running",
                0,
                f"it exited with code {old['State']['ExitCode']} right after its start",
            )

    async def _join_networks_again(self) -> None:
        """A network that was removed and made again has another id, by which a container knows it."""
        old = await self._engine.container(self.pair.old_id)
        networks = await self._engine.networks()
        for name, endpoint in (old["NetworkSettings"].get("Networks") or {}).items():
            if endpoint.get("NetworkID") not in networks and name in networks.values():
                kept = {key: endpoint.get(key) for key in ("IPAMConfig", "Aliases", "Links", "DriverOpts")}
                await self._engine.attach(name, self.pair.old_id, kept)


class _Refusals:
    """The steps that the engine refuses, and for how long it may."""

    def __init__(self, *, back: bool, in_a_hurry: bool) -> None:
        self.back = back
        self._insist_for = INSIST_IN_A_HURRY if in_a_hurry else INSIST_FOR
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

    async def note(self, step: Step, problem: EngineError | EngineUnavailable) -> None:
        """Wait before the next try, or give the step up; raises the problem if nothing goes without it."""
        tries = self._tries[step] = self._tries.get(step, 0) + 1
        since = self._since.setdefault(step, time.monotonic())
        if isinstance(problem, EngineUnavailable):
            has_patience = tries < TRIES
        else:
            has_patience = (self.back or step in INSISTED) and time.monotonic() - since < self._insist_for
        if has_patience:
            await asyncio.sleep(min(INSIST_EVERY * 2**tries, LONGEST_PAUSE))
        elif self.back or step is Step.MARK:
            self.final.add(step)
            self.last = problem
        else:
            raise problem


def _life(container: Json | None) -> Life:
    if container is None:
        return Life.GONE
    state = container["State"]
    if state.get("Restarting"):
        return Life.LOOPING
    if state.get("Running") or state.get("Paused"):
        return Life.UP
    return Life.CREATED if state.get("Status") == "created" else Life.DOWN
