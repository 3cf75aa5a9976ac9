"""When all is well and when it is not, on a clock that is driven by hand."""

import inspect
import time

import pytest

from lookout.model import ContainerReport, Outcome, Report
from lookout.vitals import DEPLOY_BOUNDS, FAILURES, Histogram, Vitals

LONGEST_POLL = 40.0


class Away(Exception):
    """A poll that failed."""


class Held:
    """Messages in flight, with a lease that is overdue or not."""

    in_flight = 1

    def __init__(self) -> None:
        self.reason = ""

    def overdue(self) -> str:
        return self.reason


class Watched:
    """Vitals, and the clock by which they go."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.vitals = Vitals(longest_poll=LONGEST_POLL, clock=lambda: self.now)

    def poll(self, *failures: str) -> None:
        """Poll once with each failure, or once with an answer."""
        for failure in failures:
            with pytest.raises(Away), self.vitals.polling():
                raise Away(failure)
        if not failures:
            with self.vitals.polling():
                pass

    def problem(self) -> str:
        return self.vitals.problem()


@pytest.fixture
def starting() -> Watched:
    return Watched()


@pytest.fixture
def well(starting: Watched) -> Watched:
    """One that has begun its work."""
    starting.vitals.engine_answered()
    starting.poll()
    assert not starting.problem()
    return starting


def test_it_starts_until_the_engine_and_the_queue_have_answered(starting: Watched) -> None:
    assert starting.problem() == "starting: the engine has not answered yet"
    starting.vitals.engine_answered()
    assert starting.problem() == "starting: no poll of the queue has been answered yet"
    with starting.vitals.polling():
        assert starting.problem().startswith("starting")
    assert starting.problem() == ""


def test_a_queue_that_answers_does_not_stand_for_an_engine_that_has_not(starting: Watched) -> None:
    starting.poll()
    assert starting.problem().startswith("starting: the engine")


def test_what_keeps_it_from_starting_is_told_once_it_is_known(starting: Watched) -> None:
    for _ in range(FAILURES):
        starting.vitals.engine_failed("no socket there")
    assert starting.problem() == "no socket there"


def test_an_engine_is_ill_after_three_failures_in_a_row_and_well_after_one_answer(well: Watched) -> None:
    for _ in range(2):
        for _ in range(FAILURES - 1):
            well.vitals.engine_failed("no answer in time")
            assert not well.problem()
        well.vitals.engine_answered()
    for _ in range(FAILURES):
        well.vitals.engine_failed("no answer in time")
    assert well.problem() == "no answer in time"
    well.vitals.engine_answered()
    assert not well.problem()


def test_the_queue_is_ill_after_three_failures_in_a_row_and_well_after_one_answer(well: Watched) -> None:
    for _ in range(2):
        well.poll("away", "away")
        assert not well.problem()
        well.poll()
    well.poll("away", "away", "still away")
    assert well.problem() == "cannot poll: still away"
    with well.vitals.polling():
        assert well.problem(), "it is only asked"
    assert not well.problem()
    assert well.vitals.poll_errors == 7


def test_a_poll_that_is_open_for_longer_than_it_can_be_is_an_illness(well: Watched) -> None:
    with well.vitals.polling():
        well.now += LONGEST_POLL
        assert not well.problem()
        well.now += 1
        assert well.problem() == "a poll of the queue has not been answered for 41 s"
    assert not well.problem()


def test_between_polls_there_may_be_any_time_for_all_slots_may_be_taken(well: Watched) -> None:
    well.now += 100_000
    assert not well.problem()


def test_a_poll_that_is_cancelled_is_neither_answered_nor_failed_nor_open(well: Watched) -> None:
    with pytest.raises(KeyboardInterrupt), well.vitals.polling():
        raise KeyboardInterrupt
    well.now += 100_000
    assert not well.problem()
    assert well.vitals.poll_errors == 0


def test_its_clock_is_one_that_nobody_can_set() -> None:
    assert inspect.signature(Vitals).parameters["clock"].default is time.monotonic


def test_leases_that_are_overdue_are_an_illness(well: Watched) -> None:
    well.vitals.held = held = Held()
    assert not well.problem()
    held.reason = "not\nrenewed"
    assert well.problem() == "not renewed"


def test_a_reason_is_one_short_line_without_a_password_of_an_address(well: Watched) -> None:
    well.poll(*["cannot reach\nhttps://me:hunter2@sqs.test/\r\n" + "x" * 1000] * FAILURES)
    assert "hunter2" not in well.problem()
    assert "https://…@sqs.test/" in well.problem()
    assert "\n" not in well.problem()
    assert "\r" not in well.problem()
    assert len(well.problem()) < 350


# Numbers


def test_every_outcome_is_counted_from_the_beginning() -> None:
    assert Vitals().messages == dict.fromkeys(Outcome, 0)


def test_each_try_counts_and_a_look_at_what_is_for_another_host_does_not(well: Watched) -> None:
    vitals = well.vitals
    vitals.ended(Report(Outcome.FAILED, transient=True), 2.0)
    vitals.ended(Report(Outcome.FAILED, transient=True), 3.0)
    vitals.ended(Report(Outcome.NOT_HERE))
    vitals.ended(Report(Outcome.NOT_HERE, retry_after=3.0))
    assert +vitals.messages == {Outcome.FAILED: 2, Outcome.NOT_HERE: 1}
    assert vitals.deploys.keys() == {Outcome.FAILED}
    assert vitals.deploys[Outcome.FAILED].sum == 5.0


def test_the_downtime_of_each_container_counts_that_has_one(well: Watched) -> None:
    each = (
        ContainerReport("a", Outcome.DEPLOYED, downtime=0.4),
        ContainerReport("b", Outcome.DEPLOYED, downtime=0.0),
        ContainerReport("c", Outcome.IGNORED),
    )
    well.vitals.ended(Report(Outcome.DEPLOYED, each=each), 5)
    assert sum(well.vitals.downtimes.counts) == 2
    assert well.vitals.downtimes.sum == 0.4


def test_a_histogram_counts_what_is_up_to_each_bound_and_what_is_beyond() -> None:
    histogram = Histogram((1, 10))
    for seconds in (0, 1, 1.1, 10, 11, 1e9):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 2]
    assert histogram.sum == 22.1 + 1e9 + 1


def test_it_does_not_grow_with_what_it_has_seen(well: Watched) -> None:
    def size() -> int:
        return len(well.vitals.messages) + sum(len(each.counts) for each in well.vitals.deploys.values())

    for outcome in Outcome:
        well.vitals.ended(Report(outcome), 1)
    before = size()
    for number in range(10_000):
        well.vitals.ended(Report(Outcome.DEPLOYED, f"reason {number}"), number)
    assert size() == before


def test_deploys_are_told_apart_from_less_than_a_second_up_to_the_longest_that_may_be_asked_for() -> None:
    assert DEPLOY_BOUNDS[0] < 1
    assert DEPLOY_BOUNDS[-1] == 28800
    assert list(DEPLOY_BOUNDS) == sorted(set(DEPLOY_BOUNDS))
