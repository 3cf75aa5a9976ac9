"""Whenever Lookout dies, the next one finishes or undoes what it has begun."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.engine import PrivateEngine
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.crash_points import EVERY, Point, part, points, sample
from tests.integration.crash_scenarios import SCENARIOS, Scenario
from tests.integration.crashes import Fault, Findings, Ground

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(3600 if EVERY else 300)]

Record = Callable[[str, object], None]
Lay = Callable[[Scenario], Ground]


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


def record(ground: Ground) -> list[str]:
    """The calls of a deploy in which nothing dies, which must end as it should."""
    with ground.play() as play:
        play.start()
        play.wait_until_settled()
        assert play.complaints() == []
        return play.calls


def killed_at(ground: Ground, point: Point, findings: Findings) -> None:
    """Kill Lookout at this point, start it again, and note what comes of it."""
    fault = Fault(point)
    with ground.play() as play:
        first = play.start(fault)
        play.wait(lambda: first.has_ended or (not fault.met.is_set() and play.is_settled()))
        if first.has_ended:
            play.start()
            play.wait_until_settled()
        findings.add(point, play, fault, play.complaints())


PARTS = 4 if EVERY else 1


@pytest.mark.parametrize("number", range(PARTS))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_lookout_is_killed_at_any_call(
    lay: Lay, scenario: Scenario, number: int, record_property: Record
) -> None:
    ground = lay(scenario)
    every = points(record(ground))
    chosen = part(every if EVERY else sample(every, at_random=3), number, PARTS)
    findings = Findings()
    for point in chosen:
        killed_at(ground, point, findings)
    record_property("crash points", [f"kill {scenario}", len(every), findings.tried, findings.missed])
    assert not findings.failures, "\n".join(["", *findings.failures])
