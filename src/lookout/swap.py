"""One container and its successor: what is seen of them, and the steps that are taken with them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from lookout.engine import Engine
from lookout.errors import EngineError, EngineUnavailable, NotFound, NotReady, RollbackFailed, Stuck
from lookout.model import ContainerReport, Json, Outcome, Phase
from lookout.names import name_of, policy_of
from lookout.pair import Pair, life_of, mark_of, named
from lookout.patience import Patience
from lookout.ready import Monitor, has_crashed, has_ended_well, wait_until_ready
from lookout.refusals import Refusals, insisting
from lookout.steps import Goal, Life, Named, Sight, Step, next_step
from lookout.unbroken import unbroken

MOST_STEPS = 200  # towards one goal: whoever works against us wins in the end
SETTLE = 1.0  # seconds that the old container must run again before a rollback counts
STOP_IN_A_HURRY = 2  # seconds that the old container gets then
STOP_WITHIN = 10  # seconds that a container which is no good gets to stop, whatever its own timeout
GONE_WITHIN = 60.0  # seconds in which an engine removes a stopped container that was run with --rm
LONGEST_SAYING = 200  # characters of what a health check says
LOOK_EVERY = 0.5  # seconds in which that shows, also if its event came before it was listened for

#: Refused on the way back, these are no reason to fail: the new one is removed by force in the end.
DISPENSABLE = {Step.STOP_NEW, Step.PUT_ASIDE}
#: What a person is told of a step.
PHASES = {
    Step.STOP: Phase.STOPPING,
    Step.START: Phase.STARTING,
    Step.WATCH: Phase.MONITORING,
    Step.STOP_NEW: Phase.ROLLING_BACK,
    Step.START_OLD: Phase.ROLLING_BACK,
}
WAY_BACK = (Goal.HALTED, Goal.RESTORED, Goal.CLEARED)

log = structlog.stdlib.get_logger(__name__)


class Swap:
    """Takes steps towards goals. Each looks at the engine first, so all of it is safe to repeat."""

    def __init__(
        self,
        engine: Engine,
        pair: Pair,
        monitor: Monitor,
        *,
        found: bool = False,
        watch: Callable[[ContainerReport], None] | None = None,
    ) -> None:
        """It was `found` half done, where it was not this very object that has taken the first steps.

        `watch` is told of each step that a person may want to see.
        """
        self.pair = pair
        self._tell = watch
        self._found = found
        self._serves_again = False
        self.name = pair.name
        self.shares_namespace = pair.shares_namespace
        self.in_a_hurry = False  # nothing is asked politely
        self.was_tried = False  # the new container was started, or that failed
        self.is_ended = False  # committed or undone, to the last step
        self._engine = engine
        self._monitor = monitor
        self._ready = False
        self._is_to_run = False
        self._tail = ""
        self._outcome: Outcome | None = None
        self._stopped_at: float | None = None
        self._down_since: float | None = None  # while neither serves, as far as is known
        self._started_at = 0.0  # the new one
        self._downtime: float | None = None  # seconds, of all times that are over
        self._said = ""  # the tail of the new one, where it was to blame
        self._is_stop_over = False
        self._has_ended_well = False  # the old one, after it was started again: it does one job
        self._refused_start: EngineError | None = None
        self._log = log.bind(container=pair.name)
        self._surely = Patience(self._log)

    @property
    def engine_was_away(self) -> bool:
        """Whether the engine was away since the new container was tried."""
        return self._surely.was_needed

    @property
    def report(self) -> ContainerReport:
        """What has become of the container; what was never stopped is unchanged."""
        touched = ContainerReport(
            self.name,
            self._outcome or Outcome.UNCHANGED,
            old_image=self.pair.old_image,
            new_image=self.pair.image,
            downtime=self._downtime,
            log_tail=self._said,
        )
        return touched if self._outcome else replace(touched, new_image="")

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
        self._ready, self._monitor = False, self._monitor.once_more()
        await self.to(Goal.REPLACED)

    async def seal(self) -> None:
        """Note on the old container that it does not come back: the first step of a commit."""
        with suppress(Stuck, EngineError, EngineUnavailable):  # then its removal says the same
            await self.to(Goal.SEALED)

    async def commit(self) -> None:
        """Remove the old container, and see that the new one runs on."""
        self._outcome = Outcome.DEPLOYED
        await self._remove_old()
        await self._surely(self._start_if_its_engine_died)
        self._show(Phase.REPLACED)
        self._log.info("replaced", old_id=self.pair.old_id[:12], new_id=self.pair.new_id[:12])
        if self.pair.chooses_ports:
            await self._report_ports()

    async def _remove_old(self) -> None:
        """One that the engine keeps is left for the next recovery."""
        try:
            await self.to(Goal.COMMITTED)
            self.is_ended = True
        except (Stuck, EngineError, EngineUnavailable) as exc:
            self._log.error(
                "the old container is still there",
                error=str(exc),
                next=f"remove it by hand: docker rm {self.pair.old_id[:12]}",
            )

    async def _start_if_its_engine_died(self) -> None:
        """It was ready, and with its engine it went down in the middle of the commit, if its policy is so."""
        new = await self._engine.find(self.pair.new_id) if self.engine_was_away and self._is_to_run else None
        if new and life_of(new) is Life.DOWN and name_of(new) == self.name:
            self._log.warning("it ran until its engine died; starting it again")
            try:
                await self._engine.start(self.pair.new_id)
            except EngineError as exc:
                command = f"docker start {self.name}"
                self._log.error("down since its engine died", error=str(exc), next=command)

    async def note(self, cause: Exception) -> str:
        """Log why the old container comes back; returns the last lines of the new one's log.

        What its health check said last is one of them, and not part of the reason: it may be a secret.
        """
        if self.was_tried and not self._tail:
            self._tail = await self._log_tail()
        if isinstance(cause, NotReady) and (said := " ".join(cause.check_output.split())[:LONGEST_SAYING]):
            self._tail = f"{self._tail}\nhealth check: {said}".strip()
        self._log.warning(
            "the swap failed; bringing the old container back",
            error=str(cause) or repr(cause),
            log_tail_of_the_new=self._tail,
            exc_info=None if isinstance(cause, NotReady | EngineError | EngineUnavailable) else cause,
        )
        self._said = self._tail
        return self._tail

    def note_end(self) -> None:
        """Log that no time is left, and what a person can do, if something was stopped, or may have been before."""
        if (self._found or self._stopped_at is not None) and not self._serves_again:
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
        try:
            sight = await self.look()
            if sight.old is Life.GONE and not sight.stood_in:
                await self._adopt()
            await self.to(Goal.RESTORED)
        except (Stuck, EngineError) as exc:
            self._outcome = Outcome.ROLLBACK_FAILED
            why = exc.message if isinstance(exc, Stuck) else str(exc)
            raise RollbackFailed(self.name, why, await self._command()) from exc
        self._serves_again = True
        if self._stopped_at is not None or self.was_tried:
            self._outcome = Outcome.ROLLED_BACK
        if next_step(Goal.RESTORED, sight):
            self._log.info("the old container runs again")

    async def _adopt(self) -> None:
        """Keep the new one, for there is nothing to go back to."""
        with suppress(Stuck, EngineError, EngineUnavailable):
            await self.to(Goal.ADOPTED)
        self.is_ended = True
        self._outcome = Outcome.ROLLBACK_FAILED
        raise RollbackFailed(
            self.name,
            "the old container was removed by somebody else, so the new one stays",
            f"docker start {self.name}",
        )

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
        the new container is no good, the engine's error where it refuses a step of the way there, or any
        look, and Stuck where it refused a step of the way back and all others were taken, or all looks.
        """
        refusals = Refusals(
            back=goal in WAY_BACK,
            in_a_hurry=self.in_a_hurry,
            # Its mark is all that tells of the stop of one that the stop removes.
            optional=() if self.pair.stands_in else (Step.MARK,),
        )
        before: Step | None = None
        problem: EngineError | EngineUnavailable | None = None
        for _ in range(MOST_STEPS):
            step = next_step(goal, await self._look_for(refusals), skipping=refusals.final)
            if step is None:
                break
            if step is before:
                await refusals.note(step, problem)
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
            self._surely.was_needed = True
            return exc
        except EngineError as exc:
            return exc
        return None

    async def look(self) -> Sight:
        """What is seen of it now; waits for an engine that is away. Raises EngineError if it goes on refusing."""
        return await self._surely(insisting, self._look, in_a_hurry=self.in_a_hurry)

    async def _look_for(self, refusals: Refusals) -> Sight:
        try:
            return await self.look()
        except EngineError as exc:
            if refusals.back:
                raise Stuck(self.name, str(exc)) from exc
            raise

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
        old: Json | None = None
        with suppress(EngineError):
            old = await self._surely(self._engine.find, self.pair.old_id)
        if old and name_of(old) != self.name:
            return f"docker rename {name_of(old)} {self.name} && docker start {self.name}"
        if old and life_of(old) is Life.UP and self._is_marked(old):
            return f"docker update --restart={_as_option(self.pair.policy)} {self.name}"
        return f"docker start {self.name}"

    # Look

    async def _look(self) -> Sight:
        old, new, live = await asyncio.gather(
            self._find(self.pair.old_id),
            self._find(self.pair.new_id),
            self._find(self.pair.served_id if self.pair.stands_in else ""),
        )
        marked = self._is_marked(old)
        self._note_end_of_stop(live if self.pair.stands_in else old)
        names = (named(old, self.pair), named(new, self.pair))
        return Sight(
            old=life_of(old),
            old_named=names[0],
            new=life_of(new),
            new_named=names[1],
            # One that the engine is removing has not stopped before it is gone.
            live=(Life.UP if live else Life.GONE) if self.pair.stands_in else None,
            marked=marked,
            stopping=not self._is_stop_over and (self._stopped_at is not None or (self._found and marked)),
            serves=self.pair.serves and not self._has_ended_well,
            ready=self._ready,
            name_taken=await self._is_taken()
            if self._may_be_taken(old) and Named.OWN not in names
            else False,
        )

    def _may_be_taken(self, old: Json | None) -> bool:
        """Whether it matters that a stranger has the name. A swap of our own brings the old one back all the same."""
        return self._found or old is None

    async def _is_taken(self) -> bool:
        holder = await self._engine.find(self.pair.name)
        return holder is not None and holder["Id"] != self.pair.served_id

    async def _find(self, key: str) -> Json | None:
        return await self._engine.find(key) if key else None

    def _note_end_of_stop(self, served: Json | None) -> None:
        """What is down once, stays so as far as that stop goes."""
        if life_of(served) not in (Life.UP, Life.LOOPING):
            self._is_stop_over = True

    def _is_marked(self, old: Json | None) -> bool:
        if not old:
            return False
        if self.pair.stands_in:
            return name_of(old) == self.pair.old_name
        mark = mark_of(self.pair.policy)["Name"]
        return bool(policy_of(old)["Name"] == mark != self.pair.policy["Name"])

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
            Step.SEAL: lambda: self._engine.rename(self.pair.old_id, self.pair.done_name),
            Step.REMOVE_OLD: lambda: self._engine.remove(self.pair.old_id),
            Step.STOP_NEW: self._stop_new,
            Step.PUT_ASIDE: lambda: self._engine.rename(self.pair.new_id, self.pair.new_name),
            Step.NAME_OLD: lambda: self._engine.rename(self.pair.old_id, self.pair.name),
            Step.UNMARK: lambda: self._engine.set_restart_policy(self.pair.old_id, self.pair.policy),
            Step.START_OLD: self._start_old,
            # Its own fresh volumes go with it; those that it shares with the old one have names, and stay.
            Step.REMOVE_NEW: lambda: self._engine.remove(self.pair.new_id, volumes=True, force=True),
        }
        if step in PHASES:
            self._show(PHASES[step])
        waits = step in (Step.STOP, Step.WATCH, Step.START_OLD)
        await (steps[step]() if waits else unbroken(steps[step]()))

    def _goes_down(self) -> None:
        if self._down_since is None and self.pair.serves:
            self._down_since = time.monotonic()

    def _comes_up(self, at: float) -> None:
        """Something has served since then."""
        if self._down_since is not None:
            self._downtime = (self._downtime or 0.0) + max(0.0, at - self._down_since)
            self._down_since = None

    def _show(self, phase: Phase) -> None:
        if self._tell:
            outcome = self._outcome if phase is Phase.REPLACED else None
            self._tell(
                replace(self.report, outcome=outcome, phase=phase, new_image=self.pair.image, log_tail="")
            )

    async def _mark(self) -> None:
        if self.pair.stands_in:
            await self._engine.rename(self.pair.old_id, self.pair.old_name)
        else:
            await self._engine.set_restart_policy(self.pair.old_id, mark_of(self.pair.policy))

    async def _stop(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        self._goes_down()
        self._is_stop_over = False
        within = STOP_IN_A_HURRY if self.in_a_hurry else None
        for container in dict.fromkeys((self.pair.served_id, self.pair.old_id)):
            with suppress(NotFound):
                await self._engine.stop(container, own_timeout=self.pair.stop_timeout, within=within)
        if self.pair.stands_in:
            await self._wait_until_gone()

    async def _wait_until_gone(self) -> None:
        deadline = time.monotonic() + GONE_WITHIN
        async with self._engine.changes_of_state(self.pair.served_id) as changed:
            while await self._engine.find(self.pair.served_id):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise EngineUnavailable(
                        f"stop {self.pair.served_id}", "it was run with --rm, has stopped, and is still there"
                    )
                await changed(min(LOOK_EVERY, left))

    async def _start(self) -> None:
        self.was_tried = True
        self._surely.was_needed = False  # whatever was before, from here on the new one is tried
        try:
            await self._engine.start(self.pair.new_id)
        except EngineError as exc:
            self._refused_start = exc
            raise
        self._started_at = time.monotonic()
        if self._stopped_at:
            self._log.info("started", downtime_seconds=round(self._started_at - self._stopped_at, 2))

    async def _watch(self) -> None:
        try:
            self._is_to_run = await wait_until_ready(self._engine, self.pair.new_id, self._monitor)
        except NotReady:
            self._goes_down()
            # With --rm, one that could not be started is gone.
            if self._refused_start and not await self._engine.find(self.pair.new_id):
                raise NotReady(str(self._refused_start)) from self._refused_start
            raise
        self._ready = True
        self._comes_up(self._started_at)

    async def _stop_new(self) -> None:
        self._goes_down()
        await self._engine.stop(self.pair.new_id, within=0 if self.in_a_hurry else STOP_WITHIN)

    async def _start_old(self) -> None:
        """Start the old container, and see that it stays."""
        try:
            await unbroken(self._engine.start(self.pair.old_id))
        except NotFound:
            await self._join_networks_again()
            await unbroken(self._engine.start(self.pair.old_id))
        self._comes_up(time.monotonic())
        await asyncio.sleep(0 if self.in_a_hurry else SETTLE)
        old = await self._engine.container(self.pair.old_id)
        self._has_ended_well = has_ended_well(old)
        if not (old["State"]["Running"] or has_crashed(old) or self._has_ended_well):
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


def _as_option(policy: Json) -> str:
    """A restart policy as `docker run` takes it."""
    count = policy.get("MaximumRetryCount")
    return f"{policy['Name']}:{count}" if count else str(policy["Name"])
