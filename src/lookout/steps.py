"""The next step of a swap, decided from what is seen of it: one table, for a deploy and for its recovery.

The engine is the journal: the states, names and labels of the containers say where a swap stands, so
nothing that Lookout remembers can be lost, or disagree with them. A deploy takes the next step until
there is none; after a crash the same table says how to go on.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar


class Life(StrEnum):
    """The state of a container, as far as its next step differs."""

    GONE = "gone"
    CREATED = "created"  # was never started; engines leave it alone, whatever its restart policy
    DOWN = "down"
    LOOPING = "restarting"
    UP = "running"


class Named(StrEnum):
    """Which name a container has."""

    OWN = "its own"
    ASIDE = "aside"  # a temporary one of this swap
    DONE = "done"  # the last one of an old container, whose successor has proven itself
    OTHER = "another"  # one that somebody gave it meanwhile


class Step(StrEnum):
    """One call of the engine, or one wait."""

    MARK = "mark the old one: its stop may have begun"
    STOP = "stop the old one"
    SET_ASIDE = "rename the old one aside"
    NAME_NEW = "give the name to the new one"
    START = "start the new one"
    WATCH = "wait until the new one is ready"
    SEAL = "rename the old one: it is done"
    REMOVE_OLD = "remove the old one"
    STOP_NEW = "stop the new one"
    PUT_ASIDE = "rename the new one aside"
    NAME_OLD = "give the old one its name back"
    UNMARK = "give the old one its restart policy back"
    START_OLD = "start the old one"
    REMOVE_NEW = "remove the new one"


class Goal(StrEnum):
    """What steps lead to. A good deploy is STOPPED, REPLACED, SEALED, COMMITTED; a bad one RESTORED, CLEARED."""

    STOPPED = "the old one is stopped"
    REPLACED = "the new one serves in its place"
    SEALED = "the old one does not come back"
    COMMITTED = "the old one is removed"
    HALTED = "the new one is stopped"
    RESTORED = "the old one serves again"
    CLEARED = "nothing is left of the new one"
    ADOPTED = "the new one stays, for the old one is gone"


@dataclass(frozen=True)
class Sight:
    """What is seen of a swap.

    The old container is the one that comes back if the new one is no good. Of a container that the
    engine removes when it stops (`--rm`), that is a stand-in made before; then `live` is the container
    that served, and is to be stopped.
    """

    old: Life
    old_named: Named
    new: Life
    new_named: Named
    live: Life | None = None
    marked: bool = False  # it was noted that the stop of what served begins
    stopping: bool = False  # its stop may have been asked for, and is not over
    serves: bool = True  # what is replaced ran before, so what is there in the end must run
    ready: bool = False  # the new one has been watched for long enough
    name_taken: bool = False  # a stranger has the name; looked for only where neither may have it

    @property
    def served(self) -> Life:
        """The container that is stopped for the new one."""
        return self.old if self.live is None else self.live

    @property
    def stood_in(self) -> bool:
        """Whether the old one only stands in for another that still exists."""
        return self.live not in (None, Life.GONE)


_MOVES = (Life.UP, Life.LOOPING)
_RESTS = (Life.CREATED, Life.DOWN)
_THERE = (*_RESTS, *_MOVES)


Then = TypeVar("Then")


@dataclass(frozen=True)
class Rule(Generic[Then]):
    """What follows in the sights in which each of these fields has one of these values."""

    then: Then
    when: Mapping[str, tuple[object, ...]]

    def fits(self, sight: Sight) -> bool:
        return all(getattr(sight, field) in values for field, values in self.when.items())

    def __str__(self) -> str:
        conditions = (f"{field} {_words(values)}" for field, values in self.when.items())
        return f"{', '.join(conditions)}: {self.then}"


def _words(values: tuple[object, ...]) -> str:
    if values == _THERE:
        return "there"
    words = {None: "none", True: "yes", False: "no"}
    return " or ".join(str(value) if isinstance(value, StrEnum) else words[value] for value in values)  # type: ignore[index]


def _rule(then: Then, **when: object) -> Rule[Then]:
    return Rule(
        then, {field: value if isinstance(value, tuple) else (value,) for field, value in when.items()}
    )


# Nothing is stopped without a successor that is there, and a way back.
_STOP = (
    _rule(Step.MARK, served=_THERE, old=_THERE, new=_THERE, marked=False, serves=True),
    _rule(Step.STOP, served=_MOVES, old=_THERE, new=_THERE),
)

#: The first rule that fits gives the next step; if none does, the goal is reached.
TABLE: Mapping[Goal, tuple[Rule[Step], ...]] = {
    Goal.STOPPED: _STOP,
    Goal.REPLACED: (
        *_STOP,
        _rule(Step.SET_ASIDE, old=_THERE, old_named=Named.OWN, new=_THERE),
        _rule(Step.NAME_NEW, new=_THERE, new_named=Named.ASIDE),
        _rule(Step.START, new=Life.CREATED, serves=True),
        _rule(Step.WATCH, serves=True, ready=False),
    ),
    Goal.SEALED: (_rule(Step.SEAL, old=_THERE, old_named=(Named.OWN, Named.ASIDE, Named.OTHER)),),
    Goal.COMMITTED: (
        _rule(Step.STOP, old=_MOVES),
        _rule(Step.REMOVE_OLD, old=_THERE),
    ),
    Goal.HALTED: (_rule(Step.STOP_NEW, new=_MOVES, old=_THERE),),
    Goal.RESTORED: (
        _rule(Step.STOP_NEW, new=_MOVES, old=_THERE),
        # A stop that has begun cannot be taken back: what seems to run would exit a moment later.
        _rule(Step.STOP, served=_MOVES, stopping=True),
        _rule(Step.PUT_ASIDE, new=_THERE, new_named=Named.OWN, old=_THERE),
        _rule(
            Step.NAME_OLD,
            old=_THERE,
            old_named=(Named.ASIDE, Named.OTHER),
            stood_in=False,
            name_taken=False,
        ),
        _rule(Step.UNMARK, old=_THERE, marked=True, live=None),
        _rule(Step.START_OLD, old=_RESTS, serves=True, stood_in=False, name_taken=False),
    ),
    Goal.CLEARED: (
        _rule(Step.REMOVE_NEW, new=_THERE),
        _rule(Step.REMOVE_OLD, old=_THERE, stood_in=True),
    ),
    Goal.ADOPTED: (
        _rule(Step.REMOVE_NEW, new=Life.CREATED, new_named=Named.ASIDE, name_taken=True),
        _rule(Step.NAME_NEW, new=_THERE, new_named=Named.ASIDE, name_taken=False),
        _rule(Step.START, new=Life.CREATED, new_named=Named.OWN, serves=True),
    ),
}


def next_step(goal: Goal, sight: Sight, *, skipping: Collection[Step] = ()) -> Step | None:
    """The step that leads from here to the goal; None if it is reached, but for the steps skipped."""
    return next((rule.then for rule in TABLE[goal] if rule.then not in skipping and rule.fits(sight)), None)


class Verdict(StrEnum):
    """How to end a swap that was found half done."""

    ADOPT = "adopt"  # the old container is gone: it was committed
    COMMIT = "commit"  # it has proven itself, or others of its deploy have
    FINISH = "finish"  # the new one has taken over: watch it, then commit
    UNDO = "undo"


#: Of a swap that was found after a crash; the first rule that fits. If none does, it is undone.
RECOVERY: tuple[Rule[Verdict], ...] = (
    _rule(Verdict.UNDO, stood_in=True),
    _rule(Verdict.ADOPT, old=Life.GONE),
    _rule(Verdict.COMMIT, old_named=Named.DONE),
    _rule(Verdict.FINISH, served=(Life.GONE, *_RESTS), new=Life.UP, new_named=Named.OWN),
    _rule(Verdict.FINISH, old_named=Named.ASIDE, new=Life.CREATED, new_named=Named.OWN, serves=False),
)


_TOOK_OVER = _rule(
    Verdict.COMMIT, old=_RESTS, old_named=Named.ASIDE, stood_in=False, new=_THERE, new_named=Named.OWN
)


def verdicts(sights: Sequence[Sight], *, undoing: bool = False) -> list[Verdict]:
    """How to end each swap of one deploy: all are committed in the end, or all undone, as has begun."""
    found = [_verdict(sight) for sight in sights]
    if Verdict.COMMIT in found:
        return [
            Verdict.COMMIT if _TOOK_OVER.fits(sight) else verdict
            for sight, verdict in zip(sights, found, strict=True)
        ]
    if undoing or Verdict.UNDO in found:
        return [Verdict.UNDO if verdict is Verdict.FINISH else verdict for verdict in found]
    return found


def _verdict(sight: Sight) -> Verdict:
    return next((rule.then for rule in RECOVERY if rule.fits(sight)), Verdict.UNDO)


#: What each step makes of a sight, if the engine does as it is told.
EFFECTS: Mapping[Step, Callable[[Sight], Sight]] = {
    Step.MARK: lambda sight: replace(sight, marked=True, stopping=True),
    Step.STOP: lambda sight: replace(
        sight,
        old=Life.DOWN if sight.old in _MOVES else sight.old,
        live=None if sight.live is None else Life.GONE,
        stopping=False,
    ),
    Step.SEAL: lambda sight: replace(sight, old_named=Named.DONE),
    Step.SET_ASIDE: lambda sight: replace(sight, old_named=Named.ASIDE),
    Step.NAME_NEW: lambda sight: replace(sight, new_named=Named.OWN),
    Step.START: lambda sight: replace(sight, new=Life.UP),
    Step.WATCH: lambda sight: replace(sight, ready=True),
    Step.REMOVE_OLD: lambda sight: replace(sight, old=Life.GONE),
    Step.STOP_NEW: lambda sight: replace(sight, new=Life.DOWN),
    Step.PUT_ASIDE: lambda sight: replace(sight, new_named=Named.ASIDE),
    Step.NAME_OLD: lambda sight: replace(sight, old_named=Named.OWN),
    Step.UNMARK: lambda sight: replace(sight, marked=False, stopping=False),
    Step.START_OLD: lambda sight: replace(sight, old=Life.UP),
    Step.REMOVE_NEW: lambda sight: replace(sight, new=Life.GONE),
}


def walk(goals: Iterable[Goal], sight: Sight) -> Iterator[Step]:
    """All steps from here through these goals, if the engine does as it is told."""
    for goal in goals:
        while step := next_step(goal, sight):
            yield step
            sight = EFFECTS[step](sight)


def table() -> str:
    """The whole decision as text, to be held against what is written about it."""
    lines: list[str] = []
    for goal, rules in TABLE.items():
        lines += [f"until {goal}", *(f"  {rule}" for rule in rules)]
    lines += ["found after a crash", *(f"  {rule}" for rule in RECOVERY), "  else: undo"]
    return "\n".join(
        [
            *lines,
            "of a deploy of which one is committed",
            f"  {_TOOK_OVER}",
            "of one to be undone",
            "  all: undo",
        ]
    )
