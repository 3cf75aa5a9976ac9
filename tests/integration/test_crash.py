"""Whenever Lookout ends, killed or asked to, the next one finishes or undoes what it has begun."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.engine import PrivateEngine
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.crash_points import IS_SAMPLE, PARTS, Point, kills, points, states, taken
from tests.integration.crash_scenarios import (
    AUTO_REMOVE,
    CHILD,
    GOOD,
    REPLICAS_ROLLBACK,
    ROLLBACK,
    SCENARIOS,
    Scenario,
)
from tests.integration.crashes import Fault, Findings, Ground

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(600 if IS_SAMPLE else 3600)]

Note = Callable[[str, Findings, int], None]
Lay = Callable[[Scenario], Ground]

GRACE, NO_TIME = 8, 1  # seconds: the default of StopGraceSeconds, and its minimum
A_LITTLE = 4  # seconds for an interpreter to end on a busy machine


@pytest.fixture
def lay(engine: PrivateEngine, registry: Registry, sqs: LocalSqs, tmp_path: Path) -> Iterator[Lay]:
    """Make what the plays of a scenario share."""
    made: list[Ground] = []

    def make(scenario: Scenario) -> Ground:
        made.append(Ground(engine, registry, sqs, tmp_path, scenario))
        return made[-1]

    yield make
    for ground in made:
        ground.close()


def recorded(ground: Ground) -> list[Point]:
    """The points of a deploy in which nothing ends early, and which must end as it should."""
    with ground.play() as play:
        play.finish()
        assert play.complaints() == []
        return points(play.calls)


# Killed

#: How many points next to a step are drawn where not all are taken. Of a good deploy all states are.
DRAWN = {GOOD: 1000, ROLLBACK: 4, REPLICAS_ROLLBACK: 2, CHILD: 2}


@pytest.mark.parametrize("number", range(PARTS))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_killed_at_any_call_lookout_brings_all_in_order_when_it_is_back(
    lay: Lay, scenario: Scenario, number: int, note_points: Note
) -> None:
    ground = lay(scenario)
    every = recorded(ground)
    findings = Findings(ground)
    some = kills(every) if IS_SAMPLE and scenario == GOOD else every
    for point in taken(some, DRAWN.get(scenario, 1), number, PARTS):
        with ground.play() as play:
            fault = Fault(point)
            play.start(fault)
            if play.wait_until_met(fault):
                play.finish()
            findings.add(play, [fault], play.complaints())
    note_points(f"kill: {scenario}", findings, len(every))


#: The first kill, after which the next Lookout is killed at each of its calls until it polls.
FIRST_KILLS = {
    "stopped": (GOOD, Point("after", "POST /containers/<web>/stop")),
    "renamed": (GOOD, Point("after", "POST /containers/<web>/rename?name=web.lookout-old")),
    "started": (GOOD, Point("after", "POST /containers/<new>/start")),
    "going back": (ROLLBACK, Point("before", "POST /containers/<web>/start")),
    "given up": (ROLLBACK, Point("before", "DELETE /containers/<new>?v=1&force=1")),
    "one of two": (REPLICAS_ROLLBACK, Point("after", "POST /containers/<b>/stop")),
    "removing itself": (AUTO_REMOVE, Point("after", "POST /containers/<web>/stop")),
    "parent": (CHILD, Point("after", "POST /containers/<new>/start")),
}


@pytest.mark.parametrize("first", ("stopped", "given up") if IS_SAMPLE else FIRST_KILLS)
def test_killed_again_while_it_recovers_lookout_recovers_all_the_same(
    lay: Lay, first: str, note_points: Note
) -> None:
    scenario, point = FIRST_KILLS[first]
    ground = lay(scenario)
    every = _recorded_recovery(ground, point)
    findings = Findings(ground)
    for again in taken(every, 1):
        with ground.play() as play:
            faults = [Fault(point), Fault(again)]
            play.start(faults[0])
            if play.wait_until_met(faults[0]):
                play.start(faults[1])
                if play.wait_until_met(faults[1]):
                    play.finish()
            findings.add(play, faults, play.complaints())
    note_points(f"kill twice: {first}", findings, len(every))


def _recorded_recovery(ground: Ground, point: Point) -> list[Point]:
    """The points of the start after a kill, until it asks for messages."""
    with ground.play() as play:
        fault = Fault(point)
        play.start(fault)
        assert play.wait_until_met(fault), f"{point} did not occur"
        before = len(play.calls)
        play.start().wait_for("polling")
        return points(play.calls[before:])


# Asked to end

TERMS = [
    *((GRACE, scenario) for scenario in SCENARIOS),
    *((NO_TIME, scenario) for scenario in (GOOD, REPLICAS_ROLLBACK)),
]
SOME_TERMS = [(GRACE, ROLLBACK), (NO_TIME, GOOD)]


@pytest.mark.parametrize("number", range(PARTS))
@pytest.mark.parametrize(("grace", "scenario"), SOME_TERMS if IS_SAMPLE else TERMS, ids=str)
def test_asked_to_end_at_any_call_lookout_leaves_all_in_order_and_the_message_to_the_next(
    lay: Lay, grace: int, scenario: Scenario, number: int, note_points: Note
) -> None:
    ground = lay(scenario)
    every = states(recorded(ground))
    findings = Findings(ground)
    for point in taken(every, 1, number, PARTS):
        with ground.play() as play:
            fault = Fault(point, lambda lookout: lookout.signal(signal.SIGTERM), goes_on=True)
            lookout = play.start(fault, StopGraceSeconds=str(grace))
            complaints = []
            if play.wait_until_met(fault):
                if not play.has_ended(grace + A_LITTLE):
                    complaints.append(f"it has not ended within {grace} s and a little")
                    lookout.kill()
                elif code := lookout.exit_code():
                    complaints.append(f"its exit code is {code}")
                elif grace == GRACE:
                    complaints += play.judge.complaints_of_either()
                play.finish()
            findings.add(play, [fault], [*complaints, *play.complaints()])
    note_points(f"SIGTERM, grace {grace} s: {scenario}", findings, len(every))
