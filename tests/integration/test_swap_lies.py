"""An engine whose answers are lost, late or wrong: whatever it said, what it has in the end is right."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest
from structlog.typing import EventDict

from lookout.engine_api import EngineApi
from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy, When
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.queues import said, until
from tests.integration.swaps import DEAF, SLOW_TO_STOP, always, assert_back, impatient
from tests.integration.watching import Watch, exists, state

pytestmark = pytest.mark.engine

Lie = Callable[[FaultProxy], None]

CREATE, STOP, START = r"POST .*/containers/create", r"POST .*/stop", r"POST .*/start"
UPDATE, RENAME, REMOVE = r"POST .*/update", r"POST .*/rename", r"DELETE .*/containers/"
LOOK, LISTEN = r"GET .*/containers/[^/]*/json", r"GET .*/events"


def cut(pattern: str, nth: int = 1, when: When = "after") -> Lie:
    return lambda line: line.cut(pattern, nth=nth, when=when)


def answer(status: int, pattern: str, nth: int = 1, when: When = "before") -> Lie:
    return lambda line: line.answer(pattern, status, nth=nth, when=when)


def hang(pattern: str, nth: int = 1, when: When = "before") -> Lie:
    return lambda line: line.hang(pattern, nth=nth, when=when)


def after(pattern: str, lie: Lie) -> Lie:
    """The lie is told after a request of this pattern has come."""
    return lambda line: line.meet(pattern, lambda: lie(line))


FORWARD: dict[str, Sequence[Lie]] = {
    "create": (cut(CREATE), answer(500, CREATE, when="after")),
    "stop": (answer(500, UPDATE, when="after"), cut(STOP), answer(304, STOP)),
    "rename and start": (
        *(answer(500, RENAME, 1, "after"), cut(RENAME, 2), answer(404, RENAME, 2)),
        *(answer(304, START), answer(500, START, when="after")),
    ),
    "look and removal": (
        *(after(START, answer(404, LOOK)), cut(REMOVE), answer(409, REMOVE), answer(404, REMOVE)),
    ),
}

BACKWARD: dict[str, Sequence[Lie]] = {
    "stop and renames": (
        after(START, answer(500, STOP)),
        answer(500, RENAME, 3, "after"),
        answer(409, RENAME, 4, "after"),
    ),
    "policy and start": (cut(UPDATE, 2), answer(304, START, 2), answer(500, START, 2, "after")),
    "removal": (answer(409, REMOVE), answer(404, REMOVE)),
    "looks": (
        after(START, after(STOP, answer(500, LOOK))),
        after(START, after(RENAME, answer(500, LOOK))),
        after(START, after(UPDATE, answer(500, LOOK))),
        after(START, after(START, answer(500, LOOK))),
        after(START, after(REMOVE, answer(500, LOOK))),
    ),
}


@pytest.mark.parametrize("step", FORWARD)
async def test_whatever_the_engine_says_of_a_step_the_container_is_replaced_unless_none_was_stopped_yet(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    step: str,
) -> None:
    images = [app_image("1"), app_image("2")]
    name, deployer = make_container(images[0], "api", "--restart=always"), make_deployer(monitor=0.2)
    for number, lie in enumerate(FORWARD[step]):
        old = inspect(name)
        wanted = next(image for image in images if image != old["Config"]["Image"])
        lie(line)
        report = await deployer.deploy(request_for(wanted))
        await deployer.recover()
        told = f"{step}, lie {number}: {report}"
        assert line.is_spent, told
        assert not leftovers(engine), told
        new = inspect(name)
        if step == "create":
            assert (report.outcome, report.transient) == (Outcome.FAILED, True), told
            assert new["State"] == old["State"], told
        else:
            assert report.outcome is Outcome.DEPLOYED, told
            assert new["Config"]["Image"] == wanted, told
            assert new["State"]["Running"], told
            assert new["HostConfig"]["RestartPolicy"] == old["HostConfig"]["RestartPolicy"], told
            assert not exists(engine, old["Id"]), told


@pytest.mark.parametrize("step", BACKWARD)
async def test_whatever_the_engine_says_of_a_step_of_the_way_back_the_old_container_is_as_it_was(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    step: str,
) -> None:
    name = make_container(app_image("1"), "api", "--restart=always")
    old, bad, deployer = inspect(name), app_image("2", changes=['CMD ["false"]']), make_deployer()
    for number, lie in enumerate(BACKWARD[step]):
        lie(line)
        report = await deployer.deploy(request_for(bad))
        await deployer.recover()
        told = f"{step}, lie {number}: {report}"
        assert line.is_spent, told
        assert report.outcome is Outcome.ROLLED_BACK, told
        assert not leftovers(engine), told
        assert_back(old, inspect(name))


async def test_a_look_that_is_refused_while_the_new_container_is_watched_is_no_reason_to_bring_the_old_one_back(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    line: FaultProxy,
) -> None:
    """It says nothing of the image."""
    images = [app_image("1"), app_image("2")]
    name, deployer = make_container(images[0], "api"), make_deployer(monitor=0.2)
    for number, lie in enumerate(
        (
            after(LISTEN, answer(500, LOOK)),
            after(LISTEN, cut(LOOK)),
            answer(500, LISTEN),
            cut(LISTEN),
            cut(LISTEN, when="before"),
        )
    ):
        wanted = images[(number + 1) % 2]
        lie(line)
        report = await deployer.deploy(request_for(wanted))
        assert line.is_spent
        assert report.outcome is Outcome.DEPLOYED, f"lie {number}: {report}"
        assert inspect(name)["Config"]["Image"] == wanted


@pytest.mark.parametrize("flag", ["--restart=always", "--rm"])
async def test_an_engine_that_tells_no_events_at_all_is_looked_at_every_moment_instead(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    line: FaultProxy,
    logs: list[EventDict],
    flag: str,
) -> None:
    """As behind a proxy that lets no endless answer through."""
    name, deployer = make_container(app_image("1"), "api", flag), make_deployer()
    for tag, lie, how in (("2", line.answer, (502,)), ("3", line.cut, ())):
        wanted = app_image(tag)
        logs.clear()
        with always(lie, LISTEN, *how):
            report = await deployer.deploy(request_for(wanted))
        assert report.outcome is Outcome.DEPLOYED, report
        assert inspect(name)["Config"]["Image"] == wanted
        assert said(logs, "the engine tells no events")


# Answers that come late, or never


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> float:
    """No call of the engine is waited for longer than this, beyond a container's own stop timeout."""
    for constant in ("CREATE", "START", "STOP_MARGIN"):
        monkeypatch.setattr(f"lookout.engine.{constant}", 1.2)
    for method in (EngineApi.call, EngineApi.post):
        defaults = method.__kwdefaults__ or {}
        monkeypatch.setitem(defaults, "timeout", 1.2)
    return 1.2


async def test_calls_that_are_never_answered_are_given_up_and_the_deploy_ends(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    hasty: float,
) -> None:
    images = [app_image("1"), app_image("2")]
    name, deployer = make_container(images[0], "api", "--stop-timeout=1"), make_deployer(monitor=0.2)
    calls: tuple[tuple[str, When], ...] = (
        (CREATE, "after"),
        (STOP, "before"),
        (START, "before"),
        (LISTEN, "before"),
    )
    for pattern, when in calls:
        old = inspect(name)
        wanted = next(image for image in images if image != old["Config"]["Image"])
        hang(pattern, when=when)(line)
        begun = time.monotonic()
        async with asyncio.timeout(30):
            report = await deployer.deploy(request_for(wanted))
        await deployer.recover()
        told = f"{pattern}: {report}"
        assert time.monotonic() - begun < hasty + 15, told
        assert not leftovers(engine), told
        if pattern == CREATE:
            assert (report.outcome, report.transient) == (Outcome.FAILED, True), told
            assert inspect(name)["State"] == old["State"], told
        else:
            assert report.outcome is Outcome.DEPLOYED, told
            assert inspect(name)["Config"]["Image"] == wanted
            assert inspect(name)["State"]["Running"]


async def test_a_stop_that_takes_longer_than_its_call_is_waited_for_with_another_call(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine kills it after its own three seconds; until then it runs, and is neither good nor gone."""
    monkeypatch.setattr("lookout.engine.STOP_MARGIN", -2.0)
    deaf = app_image("1", changes=[DEAF])
    name = make_container(deaf, "api", "--stop-timeout=3", "--publish=18141:8080")
    old, two = inspect(name)["Id"], app_image("2")
    report = await make_deployer().deploy(request_for(two))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    assert inspect(name)["State"]["Running"]
    assert not exists(engine, old)
    assert not leftovers(engine)
    assert len([request for request in line.requests if f"{old}/stop" in request]) > 1


async def test_a_policy_that_cannot_be_given_back_is_told_with_its_command_and_the_old_container_runs(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped once and started once, however often the engine says yes and does nothing."""
    impatient(monkeypatch)
    name = make_container(app_image("1"), "api", "--restart=on-failure:3")
    old, bad, deployer = inspect(name), app_image("2", changes=['CMD ["false"]']), make_deployer()
    watch = Watch(engine)
    with ExitStack() as stack:
        line.meet(START, lambda: stack.enter_context(always(line.answer, UPDATE, 304)))
        report = await deployer.deploy(request_for(bad))
    assert report.outcome is Outcome.ROLLBACK_FAILED
    assert f"docker update --restart=on-failure:3 {name}" in report.reason
    assert inspect(name)["Id"] == old["Id"]
    assert inspect(name)["State"]["Running"]
    done = [event["Action"] for event in watch.events("container") if event["Actor"]["ID"] == old["Id"]]
    assert [done.count(action) for action in ("stop", "start")] == [1, 1]
    await deployer.recover()
    assert not leftovers(engine)
    assert_back(old, inspect(name))


async def test_an_old_container_without_a_mark_whose_stop_is_cut_short_runs_in_the_end(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy may allow every call but that which marks it."""
    impatient(monkeypatch)
    name = make_container(app_image("1", changes=[SLOW_TO_STOP.format(1)]), "api")
    old, two = state(engine, name), app_image("2")
    watch = Watch(engine)
    with always(line.answer, UPDATE, 403):
        deploy = asyncio.create_task(make_deployer().deploy(request_for(two)))
        await until(lambda: any(action == "kill" for action, _ in watch.touches()))
        deploy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploy
    await until(lambda: any(event["Action"] == "die" for event in watch.events("container")))
    assert state(engine, name) == old
    assert not leftovers(engine)
