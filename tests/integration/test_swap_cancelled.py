"""Lookout is asked to stop in the middle of a swap, or of the recovery of one."""

import asyncio

import pytest
from structlog.typing import EventDict

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy, When
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.queues import said, until
from tests.integration.swaps import DEAF, assert_back, beside, flag, killed_at, turns
from tests.integration.watching import Watch, state

pytestmark = pytest.mark.engine

SAVING = (
    'CMD ["sh", "-c", "trap \\"sleep 1; touch /data/saved; exit 0\\" TERM; '
    'httpd -p 8080 -h /www; sleep 9999 & wait"]'
)
CRASHING = 'CMD ["sh", "-c", "exit 3"]'

# A deploy


async def cancelled(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deploy_that_is_cancelled_while_it_reads_why_the_new_one_is_no_good_brings_the_old_one_back(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
) -> None:
    name = make_container(app_image("1"), "api", "--restart=always")
    old, bad = inspect(name), app_image("2", changes=[CRASHING])
    is_held, holds = flag()
    line.hang(r"GET .*/logs", action=holds)
    deploy = asyncio.create_task(make_deployer().deploy(request_for(bad)))
    await asyncio.wait_for(is_held.wait(), 20)
    await cancelled(deploy)
    assert_back(old, inspect(name))
    assert not leftovers(engine)


async def test_an_old_container_whose_stop_is_cancelled_has_a_moment_left_to_end_by_itself(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one = app_image("1", changes=[SAVING])
    name = make_container(one, "api", "--restart=always", "--volume=/data", "--stop-timeout=30")
    old, two, watch = inspect(name), app_image("2"), Watch(engine)
    deploy = asyncio.create_task(make_deployer().deploy(request_for(two)))
    await until(lambda: any(action == "kill" for action, _ in watch.touches()))
    await cancelled(deploy)
    ends = [event["Actor"] for event in watch.events("container") if event["Action"] == "die"]
    assert [(end["ID"], end["Attributes"]["exitCode"]) for end in ends] == [(old["Id"], "0")]
    engine.inside(name, "test", "-e", "/data/saved")
    assert_back(old, inspect(name))
    assert not leftovers(engine)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_old_container_that_was_not_told_to_stop_yet_is_not_stopped_by_a_deploy_that_is_cancelled(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    when: When,
) -> None:
    """It was only noted on it that this may happen, which is taken back."""
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, watch = inspect(name), app_image("2"), Watch(engine)
    is_held, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def hold() -> None:
        is_held.set()
        await go_on.wait()

    line.meet(r"POST .*/update", lambda: asyncio.run_coroutine_threadsafe(hold(), loop).result(20), when=when)
    deploy = asyncio.create_task(make_deployer().deploy(request_for(two)))
    await asyncio.wait_for(is_held.wait(), 20)
    deploy.cancel()
    await turns()  # it has heard of it before the engine answers
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await deploy
    assert inspect(name)["State"] == old["State"]
    assert_back(old, inspect(name))
    assert not {action for action, found in watch.touches() if found == name} & {"kill", "stop", "die"}
    assert not leftovers(engine)


# A recovery


async def test_an_old_container_that_never_stops_holds_up_neither_the_start_of_lookout_nor_other_images(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its user wants it to have all the time that it needs; when Lookout itself has none left it comes back."""
    monkeypatch.setattr("lookout.deployer.RECOVERY_PATIENCE", 1.0)
    one, two = app_image("1", changes=[DEAF]), app_image("2")
    other_one, other_two = beside(engine, two, "1", "2")
    name = make_container(one, "api", "--restart=always", "--stop-timeout=-1")
    other = make_container(other_one, "other")
    old = state(engine, name)
    await killed_at(line, r"POST .*/stop", make_deployer(), two)

    deployer = make_deployer()
    await asyncio.wait_for(deployer.recover(), 5)
    report = await asyncio.wait_for(deployer.deploy(request_for(other_two)), 15)

    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (other,))
    assert state(engine, name) == old
    await deployer.close()
    assert state(engine, name) == old
    assert not leftovers(engine)


async def test_a_recovery_that_is_cancelled_ends_all_that_it_has_begun(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
) -> None:
    """Of two deploys one had come further than the other: it is left where it is, and the next one finishes it."""
    one, two = app_image("1"), app_image("2")
    other_one, other_two = beside(engine, one, "1", "2")
    names = [
        make_container(image, suffix, "--restart=always") for image, suffix in ((one, "a"), (other_one, "b"))
    ]
    olds = [inspect(name) for name in names]
    await killed_at(line, r"POST .*/start", make_deployer(monitor=2), two, other_two, nth=2)
    before = asyncio.all_tasks()

    deployer = make_deployer()
    recovery = asyncio.create_task(deployer.recover())
    await until(lambda: any(state(engine, old["Name"][1:]) == (old["Id"], True) for old in olds))
    recovery.cancel()
    await asyncio.gather(recovery, return_exceptions=True)
    await deployer.close()

    assert asyncio.all_tasks() == before
    serving = [state(engine, name) for name in names]
    assert [runs for _, runs in serving] == [True, True]
    assert {found for found, _ in serving} & {old["Id"] for old in olds}
    await make_deployer().recover()
    assert [state(engine, name) for name in names] == serving
    assert not leftovers(engine)


async def test_a_recovery_that_has_no_time_left_names_both_containers_and_the_command_that_helps(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
) -> None:
    """It was a Lookout before this one that has stopped the old container."""
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, deployer = state(engine, name)[0], app_image("2"), make_deployer()
    await killed_at(line, r"POST .*/start", make_deployer(), two)
    logs.clear()
    is_down, goes_down = flag()

    def go_away() -> None:
        line.go_down()
        goes_down()

    line.cut(r"POST .*/rename", action=go_away)
    recovery = asyncio.create_task(deployer.recover())
    await asyncio.wait_for(is_down.wait(), 20)
    await asyncio.wait_for(deployer.close(within=0.2), 20)
    await recovery
    line.come_back()

    (event,) = said(logs, "ended in the middle of a swap")
    assert (event["log_level"], event["container"], event["old_id"]) == ("critical", name, old[:12])
    assert f"docker start {old[:12]}" in event["next"]
    await make_deployer().recover()
    assert state(engine, name) == (old, True)
    assert not leftovers(engine)


async def test_a_recovery_that_the_engine_does_not_answer_is_tried_again_until_it_does(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
) -> None:
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, deployer = inspect(name), app_image("2"), make_deployer()
    await killed_at(line, r"POST .*/start", make_deployer(), two)
    line.go_down()
    await asyncio.wait_for(deployer.recover(), 10)
    line.come_back()
    await until(lambda: state(engine, name) == (old["Id"], True) and not leftovers(engine))
    assert_back(old, inspect(name))


async def test_a_recovery_that_fails_in_a_way_that_nobody_thought_of_is_tried_again(
    make_deployer: MakeDeployer, monkeypatch: pytest.MonkeyPatch, logs: list[EventDict]
) -> None:
    deployer = make_deployer(repair_every=0.05)
    answers: list[Exception | bool] = [RuntimeError("nobody thought of this"), True]

    async def run() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(deployer._recovery, "run", run)
    await deployer.recover()
    await until(lambda: not answers)
    (event,) = said(logs, "cannot look for interrupted swaps; please report it")
    assert event["exc_info"]


async def test_what_is_left_half_done_while_a_repair_goes_on_is_repaired_after_it(
    make_deployer: MakeDeployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on has looked around before, so it may not know of this one."""
    deployer = make_deployer(repair_every=0.05)
    begun, go_on = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    async def run() -> bool:
        runs.append("run")
        begun.set()
        await go_on.wait()
        return True

    monkeypatch.setattr(deployer._recovery, "run", run)
    deployer._repair()
    await asyncio.wait_for(begun.wait(), 5)
    deployer._repair()
    go_on.set()
    await until(lambda: len(runs) == 2)
    await turns()
    assert not deployer._unended.is_set(), "nothing is left"
