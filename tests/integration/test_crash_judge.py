"""The judge of crashes itself: it finds fault with what is wrong, and only with that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.engine import PrivateEngine
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.crash_judge import DELETED, complaints_of_message
from tests.integration.crash_points import Lines, Point, part, points, sample, steps
from tests.integration.crash_scenarios import CHILD, GOOD, NEW, OLD, ROLLBACK, Scenario
from tests.integration.crashes import Fault, Findings, Ground, Play
from tests.integration.deploys import leftovers

pytestmark = [pytest.mark.engine, pytest.mark.queue]


@pytest.fixture
def play(engine: PrivateEngine, registry: Registry, sqs: LocalSqs, tmp_path: Path) -> Iterator[Play]:
    """A play in which all is as it must be from the start: the old container is to run in the end."""
    ground = Ground(engine, registry, sqs, tmp_path, ROLLBACK)
    with ground.play() as play:
        yield play
    ground.close()


@pytest.fixture
def name(play: Play) -> str:
    """The name of its container."""
    return f"{play.ground.prefix}web"


# The engine

#: A docker command that makes something wrong, and words of what the judge must say then.
WRONG = {
    "a second container": ("run -d --name={name}-2 --label={label} {tool}", "web-2 is left over"),
    "a leftover": (
        "create --name={name}.lookout-new.0123456789ab {tool}",
        "web.lookout-new.0123456789ab is left",
    ),
    "another name": ("rename {name} {name}-x", "web is missing"),
    "stopped": ("stop {name}", "it is exited"),
    "another policy": ("update --restart=unless-stopped {name}", "restart policy is"),
    "a lost file": ("exec {name} rm /data/file", "/data/file is lost"),
    "an empty anonymous volume": ("exec {name} rm /anonymous/file", "/anonymous/file is lost"),
    "a stray volume": ("volume create {name}-stray", "web-stray is left over"),
    "no network": ("network disconnect {network} {name}", "addresses"),
    "another application": ("exec {name} cp /etc/passwd /www/index.html", "answers rather than '1'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_judge_finds_what_is_wrong_with_containers(
    play: Play, engine: PrivateEngine, name: str, what: str
) -> None:
    assert play.judge.complaints() == []
    command, words = WRONG[what]
    ground = play.ground
    engine.docker(
        *command.format(name=name, label=play.label, tool=ground.tool, network=ground.network).split()
    )
    found = play.judge.complaints()
    assert any(words in complaint for complaint in found), found


def test_the_judge_knows_a_container_that_was_made_anew(play: Play, engine: PrivateEngine, name: str) -> None:
    engine.docker("rm", "--force", "--volumes", name)
    play.set_up_part(ROLLBACK.parts[0])
    found = " ".join(play.judge.complaints())
    for words in ("it is another container", "volumes is", " is gone"):
        assert words in found


def test_the_judge_wants_the_right_image_and_may_allow_either(play: Play, engine: PrivateEngine) -> None:
    assert any("rather than" in complaint for complaint in play.judge.complaints(NEW))
    assert "it is the old container" in " ".join(play.judge.complaints(NEW))
    assert play.judge.complaints_of_either() == []
    assert play.judge.complaints(OLD, down=True)


def test_the_judge_finds_a_child_without_network(
    engine: PrivateEngine, registry: Registry, sqs: LocalSqs, tmp_path: Path
) -> None:
    ground = Ground(engine, registry, sqs, tmp_path, CHILD)
    with ground.play() as play:
        assert play.judge.complaints(OLD) == []
        engine.docker("restart", f"{ground.prefix}web")
        assert any("eth0" in complaint for complaint in play.judge.complaints(OLD))
    ground.close()


# The message


def ended(*outcomes: str, next_step: str = DELETED) -> list[dict[str, str]]:
    return [{"message_id": "m", "outcome": outcome, "next": next_step} for outcome in outcomes]


@pytest.mark.parametrize(
    ("scenario", "runs", "is_right"),
    [
        (ROLLBACK, [[], ended("rolled_back")], True),
        (ROLLBACK, [ended("rolled_back"), []], True),
        (ROLLBACK, [ended("failed", next_step="tried again in 1 s"), ended("rolled_back")], True),
        (ROLLBACK, [[], []], False),
        (ROLLBACK, [[], ended("deployed")], False),
        (ROLLBACK, [[], ended("unchanged")], False),
        (ROLLBACK, [[], ended("failed")], False),
        (ROLLBACK, [[], ended("rolled_back", "rolled_back")], False),
        (ROLLBACK, [ended("rolled_back"), ended("rolled_back")], False),
        (ROLLBACK, [ended("rolled_back"), ended("unchanged")], False),
        (GOOD, [[], ended("deployed")], True),
        (GOOD, [[], ended("unchanged")], True),
        # Settled, but not deleted before the end came.
        (GOOD, [ended("deployed"), ended("unchanged")], True),
        (GOOD, [[], ended("deployed", "unchanged")], False),
        (GOOD, [ended("unchanged"), ended("deployed")], False),
        (GOOD, [ended("deployed"), ended("deployed")], False),
        (GOOD, [[], ended("rolled_back")], False),
    ],
)
def test_the_judge_counts_how_often_a_message_ends(
    scenario: Scenario, runs: list[list[dict[str, str]]], is_right: bool
) -> None:
    assert (complaints_of_message(scenario, (0, 0), "m", runs) == []) is is_right


def test_the_judge_sees_a_message_that_waits_or_is_held(sqs: LocalSqs, queue_url: str) -> None:
    def complaints() -> list[str]:
        return complaints_of_message(ROLLBACK, sqs.count(queue_url), "m", [ended("rolled_back")])

    assert complaints() == []
    sqs.send(queue_url, "x")
    assert "(1, 0)" in " ".join(complaints())
    sqs.receive(queue_url)
    assert "(0, 1)" in " ".join(complaints())


# The points


CREATE = "POST /containers/create?name=web.lookout-new"


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
def test_a_fault_happens_at_its_very_point(play: Play, engine: PrivateEngine, when: str, made: int) -> None:
    fault = Fault(Point("before" if when == "before" else "after", CREATE))
    lookout = play.start(fault)
    assert play.wait_until_met(fault)
    assert lookout.has_ended
    assert len(leftovers(engine)) == made
    assert play.calls[-1] == CREATE
    assert fault.swap_has_begun is bool(made)


def test_a_point_that_does_not_occur_is_no_success(play: Play) -> None:
    step, look = (Fault(Point("before", line, 99)) for line in (CREATE, "GET /info"))
    for fault in (step, look):
        findings = Findings(play.ground)
        findings.add(play, [fault], [])
        assert findings.missed == [str(fault.point)]
        assert bool(findings.failures) is (fault is step)
    findings = Findings(play.ground)
    findings.add(play, [Fault(Point("before", "GET /info"))], [])
    assert "did not occur" in findings.report()


def test_lines_are_the_same_in_every_run_and_points_in_the_same_part() -> None:
    old, new = "a" * 64, "b" * 64
    lines = Lines({old: "web"}, {"lookout-test-1-": ""})
    assert [
        lines(f"POST /v1.41/containers/{old}/rename?name=lookout-test-1-web.lookout-old.{old[:12]}"),
        lines(f"GET /v1.41/containers/{new}/json"),
        lines(
            "GET /v1.41/containers/json?filters=%7B%22label%22%3A+%5B%22lookout.swap.by%3Dhost%3A1%3A2%22%5D%7D"
        ),
    ] == [
        "POST /containers/<web>/rename?name=web.lookout-old",
        "GET /containers/<new>/json",
        'GET /containers/json?filters={"label": ["lookout.swap.by=<me>"]}',
    ]
    every = points(["GET /info", "POST /containers/<web>/stop", "GET /info"])
    assert [str(point) for point in every[2:5]] == [
        "before POST /containers/<web>/stop",
        "after POST /containers/<web>/stop",
        "before GET /info (no. 2)",
    ]
    assert sorted(map(str, part(every, 0, 2) + part(every, 1, 2))) == sorted(map(str, every))
    assert steps(every) == every[2:4]
    assert sample(every, 2) == sample(reversed(every), 2)
