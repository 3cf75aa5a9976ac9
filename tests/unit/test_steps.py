"""The decision of a swap: from any sight the next step, and after any crash the right end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import pytest

from lookout.recovery import GOALS
from lookout.steps import EFFECTS, Goal, Life, Named, Sight, Step, Verdict, next_step, table, verdicts, walk

PLAIN = Sight(Life.UP, Named.OWN, Life.CREATED, Named.ASIDE)
STOPPED = Sight(Life.DOWN, Named.OWN, Life.CREATED, Named.ASIDE, serves=False)
REMOVED_BY_STOP = Sight(Life.CREATED, Named.ASIDE, Life.CREATED, Named.ASIDE, live=Life.UP)
BEGINNINGS = pytest.mark.parametrize(
    "begun", [PLAIN, STOPPED, REMOVED_BY_STOP], ids=["runs", "does not run", "--rm"]
)
FORWARD = (Goal.STOPPED, Goal.REPLACED, Goal.SEALED, Goal.COMMITTED)
BACK = (Goal.RESTORED, Goal.CLEARED)


def cuts(goals: Sequence[Goal], sight: Sight) -> Iterator[Sight]:
    """What is seen before each step, and after the last. Whether it was watched is nowhere to be seen."""
    for goal in goals:
        while step := next_step(goal, sight):
            yield sight
            sight = EFFECTS[step](sight)
    yield sight


def but(sight: Sight, other: Mapping[str, object]) -> Sight:
    """The same with other values of these fields."""
    return replace(sight, **other)  # type: ignore[arg-type]


def after(goals: Sequence[Goal], sight: Sight) -> Sight:
    return [*cuts(goals, sight)][-1]


def recovered(sight: Sight) -> Sight:
    """As a process that has just started sees it, and ends it."""
    sight = replace(sight, ready=False)
    return after(GOALS[verdicts([sight])[0]], sight)


def runs_one(sight: Sight, *, serves: bool) -> bool:
    """Whether exactly one container is left, under the name, and running if it is to."""
    there: list[tuple[Life | None, Named]] = [
        (life, named)
        for life, named in ((sight.old, sight.old_named), (sight.new, sight.new_named))
        if life is not Life.GONE
    ]
    if sight.stood_in:
        there = [*there, (sight.live, Named.OWN)]
    lives = (Life.UP,) if serves else (Life.CREATED, Life.DOWN)
    return len(there) == 1 and there[0][0] in lives and there[0][1] is Named.OWN


def test_a_good_deploy_takes_these_steps() -> None:
    assert [*walk(FORWARD, PLAIN)] == [
        *(Step.MARK, Step.STOP, Step.SET_ASIDE, Step.NAME_NEW, Step.START, Step.WATCH),
        *(Step.SEAL, Step.REMOVE_OLD),
    ]
    assert [*walk(FORWARD, STOPPED)] == [*(Step.SET_ASIDE, Step.NAME_NEW, Step.SEAL, Step.REMOVE_OLD)]
    assert [*walk(FORWARD, REMOVED_BY_STOP)] == [
        *(Step.MARK, Step.STOP, Step.NAME_NEW, Step.START, Step.WATCH, Step.SEAL, Step.REMOVE_OLD)
    ]


@BEGINNINGS
def test_killed_at_any_step_of_a_deploy_one_container_serves_after_the_recovery(begun: Sight) -> None:
    for sight in cuts(FORWARD, begun):
        end = recovered(sight)
        assert runs_one(end, serves=begun.serves), f"{sight} -> {end}"
        assert not (end.marked and end.live is None and end.old is not Life.GONE), (
            "the policy is its own again"
        )


@BEGINNINGS
def test_killed_at_any_step_of_an_undo_the_old_container_serves_after_the_recovery(begun: Sight) -> None:
    for middle in cuts(FORWARD[:2], begun):
        for sight in cuts(BACK, middle):
            end = recovered(sight)
            assert runs_one(end, serves=begun.serves), f"{sight} -> {end}"


@BEGINNINGS
def test_killed_at_any_step_of_a_recovery_the_next_one_ends_the_same(begun: Sight) -> None:
    for sight in cuts(FORWARD, begun):
        for middle in cuts(GOALS[verdicts([sight])[0]], sight):
            assert runs_one(recovered(middle), serves=begun.serves), f"{sight} -> {middle}"


def test_an_engine_that_died_too_leaves_nothing_that_cannot_be_ended() -> None:
    """Then what ran is down, or was started again by the engine."""
    for sight in cuts(FORWARD, PLAIN):
        for old, new in product((Life.UP, Life.DOWN), (Life.UP, Life.LOOPING, Life.DOWN)):
            found = replace(
                sight,
                old=old if sight.old is Life.UP else sight.old,
                new=new if sight.new is Life.UP else sight.new,
            )
            end = recovered(found)
            committed = Life.GONE is sight.old or sight.old_named is Named.DONE
            assert runs_one(end, serves=True) or committed, f"{found} -> {end}"


def every_sight() -> Iterator[Sight]:
    lives, names, truths = tuple(Life), tuple(Named), (True, False)
    found = product(lives, names, lives, names, (None, Life.GONE, Life.UP), truths, truths, truths, truths)
    for old, old_named, new, new_named, live, marked, stopping, serves, taken in found:
        yield Sight(old, old_named, new, new_named, live, marked, stopping, serves, name_taken=taken)


def test_from_any_sight_every_goal_is_reached() -> None:
    for sight in every_sight():
        for goal in Goal:
            taken = [step for step, _ in zip(walk([goal], sight), range(20), strict=False)]
            assert len(taken) < len(Step), f"{goal} from {sight}: {taken}"


#: What each step is done to, by the field of a sight that tells of it.
DONE_TO = {
    "served": {Step.MARK},
    "old": {Step.SET_ASIDE, Step.SEAL, Step.REMOVE_OLD, Step.NAME_OLD, Step.UNMARK, Step.START_OLD},
    "new": {Step.NAME_NEW, Step.START, Step.STOP_NEW, Step.PUT_ASIDE, Step.REMOVE_NEW},
}


def test_a_step_is_taken_only_with_a_container_that_is_there() -> None:
    for sight in every_sight():
        for goal in Goal:
            if step := next_step(goal, sight):
                for field in (field for field, steps in DONE_TO.items() if step in steps):
                    assert getattr(sight, field) is not Life.GONE, f"{step} from {sight}"
                if step is Step.STOP:
                    assert {sight.old, sight.served} & {Life.UP, Life.LOOPING}, sight


def test_what_serves_is_not_even_touched_unless_both_the_new_one_and_what_can_come_back_are_there() -> None:
    for sight in every_sight():
        if Life.GONE in (sight.old, sight.new):
            for goal in (Goal.STOPPED, Goal.REPLACED):
                taken = {next_step(goal, sight, skipping=skipped) for skipped in ((), {Step.NAME_NEW})}
                assert not taken & {Step.MARK, Step.STOP, Step.SET_ASIDE}, f"{goal} from {sight}"


def test_no_goal_but_clearing_removes_a_container_that_runs() -> None:
    for sight in every_sight():
        for goal in Goal:
            step = next_step(goal, sight)
            if step is Step.REMOVE_OLD:
                assert sight.old in (Life.CREATED, Life.DOWN) or (goal is Goal.CLEARED and sight.stood_in)
            if step is Step.REMOVE_NEW:
                assert goal is Goal.CLEARED or sight.new is Life.CREATED, f"{goal} from {sight}"


def test_a_step_that_the_engine_refuses_or_ignores_leads_to_no_endless_to_and_fro() -> None:
    """As a restart policy that cannot be given back: the old container is stopped once, and started once."""
    for sight in every_sight():
        for goal in Goal:
            for ignored in {*walk([goal], sight)}:
                taken = [*without(ignored, goal, sight)]
                assert len(taken) < len(Step), f"{goal} from {sight}: {taken}"


def without(ignored: Step, goal: Goal, sight: Sight) -> Iterator[Step]:
    """The steps towards a goal where one of them is given up for want of effect."""
    skipping: set[Step] = set()
    for _ in Step:
        if step := next_step(goal, sight, skipping=skipping):
            yield step
            if step is ignored:
                skipping.add(step)
            else:
                sight = EFFECTS[step](sight)


def test_a_stop_that_has_begun_is_repeated_before_the_old_container_counts_as_running() -> None:
    assert [*walk(BACK, replace(PLAIN, marked=True, stopping=True))] == [
        *(Step.STOP, Step.UNMARK, Step.START_OLD, Step.REMOVE_NEW)
    ]
    assert [*walk(BACK, replace(PLAIN, marked=True))] == [Step.UNMARK, Step.REMOVE_NEW]
    assert [*walk(BACK, PLAIN)] == [Step.REMOVE_NEW]


@pytest.mark.parametrize("begun", [PLAIN, REMOVED_BY_STOP], ids=["runs", "--rm"])
def test_nothing_is_stopped_without_a_successor_and_a_way_back(begun: Sight) -> None:
    """As a prune takes them, which removes all that does not run."""
    for gone in ({"new": Life.GONE}, {"old": Life.GONE, "new": Life.GONE}):
        if begun.live is not None or "old" not in gone:
            assert Step.STOP not in [*walk(FORWARD[:2], replace(begun, **gone))]  # type: ignore[arg-type]


def test_a_new_container_that_serves_is_not_stopped_where_nothing_can_come_back() -> None:
    alone = Sight(Life.GONE, Named.OTHER, Life.UP, Named.OWN)
    assert not [*walk([Goal.HALTED, Goal.RESTORED], alone)]


def test_an_old_container_is_not_started_beside_a_stranger_who_has_its_name() -> None:
    found = Sight(Life.DOWN, Named.ASIDE, Life.GONE, Named.OTHER, marked=True, stopping=True, name_taken=True)
    assert [*walk(BACK, found)] == [Step.UNMARK]
    assert [*walk(BACK, replace(found, name_taken=False))] == [*(Step.NAME_OLD, Step.UNMARK, Step.START_OLD)]


def test_a_stand_in_takes_no_place_while_what_it_stands_in_for_exists() -> None:
    for named in (Named.ASIDE, Named.OTHER):
        sight = replace(REMOVED_BY_STOP, old_named=named, marked=named is Named.ASIDE)
        assert [*walk(BACK, sight)] == [Step.REMOVE_NEW, Step.REMOVE_OLD]


def test_the_mark_of_a_stand_in_is_its_name_and_goes_with_it() -> None:
    gone = replace(REMOVED_BY_STOP, live=Life.GONE, marked=True)
    assert Step.UNMARK not in [*walk(BACK, gone)]


def test_a_new_container_that_comes_too_late_is_removed_only_if_it_never_took_the_place() -> None:
    late = Sight(Life.GONE, Named.OTHER, Life.CREATED, Named.ASIDE, name_taken=True)
    assert [*walk([Goal.ADOPTED], late)] == [Step.REMOVE_NEW]
    assert [*walk([Goal.ADOPTED], replace(late, name_taken=False))] == [Step.NAME_NEW, Step.START]
    assert [*walk([Goal.ADOPTED], replace(late, new_named=Named.OTHER))] == []
    assert [*walk([Goal.ADOPTED], replace(late, new=Life.DOWN))] == []


TAKEN_OVER = replace(after([Goal.REPLACED], PLAIN), ready=False)
SEALED = after([Goal.SEALED], TAKEN_OVER)
ADOPTED = Sight(Life.GONE, Named.OTHER, Life.UP, Named.OWN)


def test_if_one_of_a_deploy_must_be_undone_all_are_but_for_those_committed() -> None:
    assert verdicts([TAKEN_OVER, TAKEN_OVER]) == [Verdict.FINISH, Verdict.FINISH]
    assert verdicts([TAKEN_OVER, PLAIN]) == [Verdict.UNDO, Verdict.UNDO]
    assert verdicts([ADOPTED, TAKEN_OVER]) == [Verdict.ADOPT, Verdict.FINISH]
    assert verdicts([ADOPTED, TAKEN_OVER, PLAIN]) == [Verdict.ADOPT, Verdict.UNDO, Verdict.UNDO]
    assert verdicts([SEALED, TAKEN_OVER]) == [Verdict.COMMIT, Verdict.COMMIT]


def test_what_has_taken_over_is_undone_where_another_one_of_its_deploy_is_back_already() -> None:
    assert verdicts([TAKEN_OVER], undoing=True) == [Verdict.UNDO]
    assert verdicts([TAKEN_OVER, PLAIN], undoing=True) == [Verdict.UNDO, Verdict.UNDO]
    assert verdicts([ADOPTED, TAKEN_OVER], undoing=True) == [Verdict.ADOPT, Verdict.UNDO]
    assert verdicts([ADOPTED], undoing=True) == [Verdict.ADOPT]
    assert verdicts([SEALED, TAKEN_OVER], undoing=True) == [Verdict.COMMIT, Verdict.COMMIT]


def test_a_new_container_is_watched_only_where_it_alone_has_taken_over() -> None:
    took_over = Sight(Life.DOWN, Named.ASIDE, Life.UP, Named.OWN)
    assert verdicts([took_over]) == [Verdict.FINISH]
    for other in (
        {"old": Life.UP},
        {"old": Life.LOOPING},
        {"new": Life.DOWN},
        {"new": Life.LOOPING},
        {"new_named": Named.ASIDE, "old_named": Named.OWN},
        {"new_named": Named.OTHER},
    ):
        assert verdicts([but(took_over, other)]) == [Verdict.UNDO], other


def test_a_new_container_that_is_not_to_run_has_taken_over_with_the_name() -> None:
    took_over = Sight(Life.DOWN, Named.ASIDE, Life.CREATED, Named.OWN, serves=False)
    assert verdicts([took_over]) == [Verdict.FINISH]
    for other in (
        {"serves": True},
        {"new": Life.DOWN},
        {"new": Life.GONE},
        {"new_named": Named.ASIDE},
        {"old_named": Named.OTHER},
    ):
        assert verdicts([but(took_over, other)]) == [Verdict.UNDO], other


def test_what_had_not_taken_over_when_another_was_committed_is_undone() -> None:
    sealed = Sight(Life.DOWN, Named.DONE, Life.UP, Named.OWN)
    took_over = Sight(Life.DOWN, Named.ASIDE, Life.DOWN, Named.OWN)
    assert verdicts([sealed, took_over]) == [Verdict.COMMIT, Verdict.COMMIT]
    for other in (
        {"old": Life.UP},
        {"old_named": Named.OTHER},
        {"new": Life.GONE},
        {"new_named": Named.ASIDE},
    ):
        assert verdicts([sealed, but(took_over, other)]) == [Verdict.COMMIT, Verdict.UNDO], other


@pytest.mark.parametrize("life", [Life.UP, Life.DOWN, Life.LOOPING])
def test_what_had_taken_over_when_another_was_committed_is_committed_too(life: Life) -> None:
    """All had been ready by then, whatever has become of it; and what it needs may be gone."""
    sealed = Sight(Life.DOWN, Named.DONE, Life.UP, Named.OWN)
    assert verdicts([sealed, Sight(Life.DOWN, Named.ASIDE, life, Named.OWN)]) == [
        *(Verdict.COMMIT, Verdict.COMMIT)
    ]


def test_after_the_commit_nothing_is_done_whatever_the_user_makes_of_the_new_container() -> None:
    for life, named in product((Life.UP, Life.DOWN, Life.LOOPING), (Named.OWN, Named.OTHER)):
        sight = Sight(Life.GONE, Named.OTHER, life, named)
        assert verdicts([sight]) == [Verdict.ADOPT]
        assert not [*walk(GOALS[Verdict.ADOPT], sight)]


def test_what_the_engine_refuses_is_skipped_and_the_rest_is_done() -> None:
    sight = Sight(Life.DOWN, Named.ASIDE, Life.UP, Named.OWN, marked=True)
    assert next_step(Goal.RESTORED, sight) is Step.STOP_NEW
    assert next_step(Goal.RESTORED, sight, skipping={Step.STOP_NEW}) is Step.PUT_ASIDE


def test_the_table_reads_like_this() -> None:
    assert table() == TABLE.strip()


TABLE = """
until the old one is stopped
  served there, old there, new there, marked no, serves yes: mark the old one: its stop may have begun
  served running or restarting, old there, new there: stop the old one
until the new one serves in its place
  served there, old there, new there, marked no, serves yes: mark the old one: its stop may have begun
  served running or restarting, old there, new there: stop the old one
  old there, old_named its own, new there: rename the old one aside
  new there, new_named aside: give the name to the new one
  new created, serves yes: start the new one
  serves yes, ready no: wait until the new one is ready
until the old one does not come back
  old there, old_named its own or aside or another: rename the old one: it is done
until the old one is removed
  old running or restarting: stop the old one
  old there: remove the old one
until the new one is stopped
  new running or restarting, old there: stop the new one
until the old one serves again
  new running or restarting, old there: stop the new one
  served running or restarting, stopping yes: stop the old one
  new there, new_named its own, old there: rename the new one aside
  old there, old_named aside or another, stood_in no, name_taken no: give the old one its name back
  old there, marked yes, live none: give the old one its restart policy back
  old created or down, serves yes, stood_in no, name_taken no: start the old one
until nothing is left of the new one
  new there: remove the new one
  old there, stood_in yes: remove the old one
until the new one stays, for the old one is gone
  new created, new_named aside, name_taken yes: remove the new one
  new there, new_named aside, name_taken no: give the name to the new one
  new created, new_named its own, serves yes: start the new one
found after a crash
  stood_in yes: undo
  old gone: adopt
  old_named done: commit
  served gone or created or down, new running, new_named its own: finish
  old_named aside, new created, new_named its own, serves no: finish
  else: undo
of a deploy of which one is committed
  old created or down, old_named aside, stood_in no, new there, new_named its own: commit
of one to be undone
  all: undo
"""
