"""Whenever the engine ends, killed or stopped, Lookout waits for it and brings all in order."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.crash_points import IS_SAMPLE, PARTS, Point, points, states, taken
from tests.integration.crash_scenarios import OLD, ROLLBACK, Scenario, with_policy
from tests.integration.crashes import Bystander, Fault, Findings, Ground, Play

pytestmark = [
    pytest.mark.engine,
    pytest.mark.engine_ends,
    pytest.mark.queue,
    pytest.mark.timeout(600 if IS_SAMPLE else 3600),
]

Note = Callable[[str, Findings, int], None]

ENDS = {"killed": PrivateEngine.kill, "stopped": PrivateEngine.stop}
SCENARIOS = (*map(with_policy, ("no", "on-failure", "unless-stopped", "always")), ROLLBACK)
CASES = [(how, scenario) for how in ENDS for scenario in SCENARIOS]
SOME_CASES = [
    ("killed", with_policy("no")),
    ("killed", ROLLBACK),
    ("stopped", with_policy("unless-stopped")),
]
#: Lookout looks again after a pause that grows.
SETTLED_WITHIN = 60
FOUND_WITHIN = 10  # seconds


@pytest.mark.parametrize("number", range(PARTS))
@pytest.mark.parametrize(("how", "scenario"), SOME_CASES if IS_SAMPLE else CASES, ids=str)
def test_an_engine_that_ends_at_any_call_and_comes_back_delays_a_deploy_but_loses_nothing(
    engine: PrivateEngine,
    registry: Registry,
    sqs: LocalSqs,
    tmp_path: Path,
    how: str,
    scenario: Scenario,
    number: int,
    note_points: Note,
) -> None:
    ground = Ground(engine, registry, sqs, tmp_path, scenario)
    bystander = Bystander(ground, scenario.parts[0].restart)
    every = _recorded(ground)
    findings = Findings(ground)
    for point in taken(every, 1, number, PARTS):
        bystander.start()
        with ground.play() as play:
            fault = Fault(point, lambda _: ENDS[how](engine))
            play.start(fault)
            if play.wait_until_met(fault):
                engine.start()
            # What the engine does not start again is no business of Lookout's before it has found it running.
            if fault.swap_has_begun or bystander.runs() or _was_found(play):
                play.wait_until_settled(SETTLED_WITHIN)
                findings.add(play, [fault], play.complaints())
            else:
                findings.add(play, [fault], _complaints_of_what_is_down(play))
    note_points(f"engine {how}: {scenario}", findings, len(every))


def _recorded(ground: Ground) -> list[Point]:
    """The points of an undisturbed deploy."""
    with ground.play() as play:
        play.finish()
        assert play.complaints() == []
        return states(points(play.calls))


def _was_found(play: Play) -> bool:
    """Whether Lookout had found the container running before: then the message ends well all the same."""
    ((lookout,), ends) = play.lookouts, Outcome.DEPLOYED
    return bool(play.wait(lambda: lookout.logged(ends, message_id=play.message), FOUND_WITHIN))


def _complaints_of_what_is_down(play: Play) -> list[str]:
    """The message waits for a container that runs, and the old one is as the engine has left it."""
    ((lookout,), ends) = play.lookouts, Outcome.NOT_HERE
    seen = play.wait(lambda: lookout.logged(ends, message_id=play.message), SETTLED_WITHIN)
    complaints = [] if seen else [f"the message does not end {ends}"]
    return complaints + play.judge.complaints(OLD, down=True)
