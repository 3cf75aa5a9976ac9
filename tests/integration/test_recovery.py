"""What a Lookout leaves when it is killed in mid-swap, what people do to that, and how the next one ends it."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from structlog.typing import EventDict

from lookout.model import Outcome
from lookout.names import final_name
from lookout.steps import Sight, Verdict, verdicts
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy, When
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.queues import said, until
from tests.integration.swaps import always, beside, impatient, killed, killed_at, settled_soon
from tests.integration.watching import Watch, exists, state

pytestmark = pytest.mark.engine

NEXT_START = r"POST .*/start"
REMOVAL = r"DELETE .*/containers/"
UNHEALTHY = "HEALTHCHECK --interval=500ms --timeout=1s --retries=2 CMD false"
NAME_TAKEN = "another container has its name by now"
SOON = 10  # seconds in which a recovery that has nothing to wait for must be over


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    settled_soon(monkeypatch)


# The new one is gone


@pytest.mark.parametrize(
    ("policy", "restored", "warnings"),
    [("unless-stopped", "unless-stopped", 0), ("always", "unless-stopped", 1)],
)
async def test_an_old_container_whose_successor_was_removed_by_hand_serves_again(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
    policy: str,
    restored: str,
    warnings: int,
) -> None:
    """It is the successor of another one itself, and says so; only its name tells what it is now."""
    name = make_container(app_image("1"), "api", f"--restart={policy}")
    two, three = app_image("2"), app_image("3")
    assert (await make_deployer(monitor=0).deploy(request_for(two))).outcome is Outcome.DEPLOYED
    old = inspect(name)
    assert old["HostConfig"]["RestartPolicy"]["Name"] == policy
    await killed_at(line, NEXT_START, make_deployer(), three)
    assert leftovers(engine) == [f"{name}.lookout-old.{old['Id'][:12]}"]
    engine.docker("rm", name)

    await make_deployer().recover()

    assert state(engine, name) == (old["Id"], True)
    assert inspect(name)["HostConfig"]["RestartPolicy"]["Name"] == restored
    assert len(said(logs, "its restart policy is not known any more")) == warnings
    assert not leftovers(engine)
    watch = Watch(engine)
    await make_deployer().recover()
    assert not watch.touches()


async def test_an_old_container_whose_name_belongs_to_a_stranger_now_stays_down_and_is_kept(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
) -> None:
    """Two of one service must not run side by side; what the user has made in its place is deployed."""
    name = make_container(app_image("1"), "api", "--restart=always")
    two, three, four = (app_image(tag) for tag in "234")
    assert (await make_deployer(monitor=0).deploy(request_for(two))).outcome is Outcome.DEPLOYED
    old = inspect(name)["Id"]
    await killed_at(line, NEXT_START, make_deployer(), three)
    engine.docker("rm", name)
    make_container(three, "api")
    stranger, watch = inspect(name), Watch(engine)
    logs.clear()

    deployer = make_deployer()
    await deployer.recover()

    (event,) = said(logs, NAME_TAKEN)
    assert (event["container"], event["next"]) == (name, f"remove either {name} or {old[:12]}")
    assert state(engine, old) == (old, False)
    touched = [touch for touch in watch.touches() if touch[0] != "update"]
    assert not touched, "but for the restart policy of the old one"
    assert inspect(name) == stranger
    watch = Watch(engine)
    await deployer.recover()
    assert not watch.touches()

    report = await deployer.deploy(request_for(four))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    assert inspect(name)["Config"]["Image"] == four
    assert state(engine, old) == (old, False)


async def test_an_old_container_that_was_started_beside_a_stranger_who_has_its_name_is_for_its_user_to_sort_out(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
) -> None:
    """Which of the two is to serve only its user knows; until then neither is deployed."""
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, three = state(engine, name)[0], app_image("2"), app_image("3")
    await killed_at(line, NEXT_START, make_deployer(), two)
    engine.docker("rm", name)
    make_container(two, "api")
    engine.docker("start", old)
    stranger, watch = state(engine, name), Watch(engine)

    deployer = make_deployer(repair_every=3600)
    await deployer.recover()

    (event,) = said(logs, NAME_TAKEN)
    assert (event["container"], event["next"]) == (name, f"remove either {name} or {old[:12]}")
    report = await deployer.deploy(request_for(three))
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert f"another container has the name {name}" in report.reason
    assert not watch.touches()
    assert (state(engine, name), state(engine, old)) == (stranger, (old, True))

    engine.docker("rm", "--force", name)
    await deployer.recover()
    assert state(engine, name) == (old, True)
    assert (await deployer.deploy(request_for(three))).outcome is Outcome.DEPLOYED
    assert not leftovers(engine)


# The old one is gone


async def test_where_the_old_one_was_removed_and_the_new_one_cannot_start_the_way_is_free_for_the_next_tag(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch)
    name = make_container(app_image("1"), "api", "--restart=always")
    old, deployer = state(engine, name)[0], make_deployer()
    bad, three = app_image("2", changes=['CMD ["/no/such/program"]']), app_image("3")
    line.meet(NEXT_START, lambda: engine.docker("rm", "--force", old))

    report = await deployer.deploy(request_for(bad))

    assert report.outcome is Outcome.ROLLBACK_FAILED
    assert "removed by somebody else" in report.reason
    assert f"docker start {name}" in report.reason
    assert not leftovers(engine)
    await deployer.close()
    deployer = make_deployer()
    await asyncio.wait_for(deployer.recover(), SOON)
    report = await deployer.deploy(request_for(three))
    assert "interrupted swap" not in report.reason
    assert report.outcome in (Outcome.DEPLOYED, Outcome.NOT_HERE)


@pytest.mark.parametrize("then", ["is stopped", "is removed"])
async def test_a_commit_that_was_cut_short_between_a_container_and_its_dependent_is_ended(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    then: str,
) -> None:
    """What the old dependent lived in does not exist any more, so it could never run again."""
    first, second = beside(engine, app_image("1"), "1", "2")[0], app_image("2")
    vpn = make_container(app_image("1"), "vpn")
    dependent = make_container(first, "dependent", "--env=PORT=8090", f"--network=container:{vpn}")
    olds = [state(engine, name)[0] for name in (vpn, dependent)]
    line.hang(rf"DELETE .*{olds[1]}")
    deployer = make_deployer()
    deploy = asyncio.create_task(deployer.deploy(request_for(second)))
    await until(lambda: deploy.done() or not exists(engine, olds[0]))
    await killed(line, deploy, deployers=[deployer])
    assert leftovers(engine) == [f"{dependent}.lookout-done.{olds[1][:12]}"]
    if then == "is stopped":
        engine.docker("stop", dependent, vpn)
    else:
        engine.docker("rm", "--force", dependent)
    before, watch = state(engine, dependent), Watch(engine)

    await make_deployer().recover()

    assert not leftovers(engine)
    assert not exists(engine, olds[1])
    assert state(engine, dependent) == before
    assert {action for action, _ in watch.touches()} == {"destroy"}


async def test_an_old_container_that_could_not_be_removed_does_not_come_back_when_its_successor_is_stopped(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a busy mount; that the new one has proven itself is written in the name of the old one."""
    impatient(monkeypatch)
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, deployer = state(engine, name)[0], app_image("2"), make_deployer()

    with always(line.answer, REMOVAL, 500):
        assert (await deployer.deploy(request_for(two))).outcome is Outcome.DEPLOYED
        assert leftovers(engine) == [f"{name}.lookout-done.{old[:12]}"]
        new = state(engine, name)[0]
        engine.docker("stop", name)
        await deployer.close()

    await make_deployer().recover()

    assert not leftovers(engine)
    assert not exists(engine, old)
    assert state(engine, name) == (new, False)


# It cannot be removed


@pytest.mark.parametrize(
    ("when", "changes", "left", "status"),
    [("before", [], "new", 500), ("after", [], "done", 409), ("after", [UNHEALTHY], "new", 409)],
    ids=["undone", "finished", "no good"],
)
async def test_what_the_engine_refuses_to_remove_at_the_end_of_a_swap_is_removed_by_a_later_repair(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    when: When,
    changes: list[str],
    left: str,
    status: int,
) -> None:
    """The new one where the old one came back, and the old one where the new one has proven itself."""
    impatient(monkeypatch)
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two = state(engine, name)[0], app_image("2", changes=changes)
    await killed_at(line, NEXT_START, make_deployer(), two, when=when)

    with always(line.answer, REMOVAL, status):
        await make_deployer(repair_every=0.2).recover()
        assert leftovers(engine) == [f"{name}.lookout-{left}.{old[:12]}"]

    await until(lambda: not leftovers(engine))
    now, runs = state(engine, name)
    assert runs
    assert (now == old) == exists(engine, old) == (left == "new")


async def test_old_containers_that_cannot_be_removed_hold_up_no_later_tag_and_go_when_the_engine_lets_them(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch)
    name = make_container(app_image("1"), "api", "--restart=always")
    deployer, done = make_deployer(repair_every=3600), set[str]()

    with always(line.answer, REMOVAL, 500):
        for image in (app_image("2"), app_image("3")):
            done.add(f"{name}.lookout-done.{state(engine, name)[0][:12]}")
            report = await deployer.deploy(request_for(image))
            assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
            assert {*leftovers(engine)} == done
    new = state(engine, name)

    await deployer.recover()

    assert not leftovers(engine)
    assert state(engine, name) == new


# Nobody thought of it


async def test_a_swap_whose_recovery_fails_in_a_way_that_nobody_thought_of_holds_up_no_other(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = app_image("1"), app_image("2")
    other_one, other_two = beside(engine, two, "1", "2")
    names = [make_container(image, suffix) for image, suffix in ((one, "api"), (other_one, "web"))]
    olds = [state(engine, name)[0] for name in names]
    await killed_at(line, r"POST .*/stop", make_deployer(), two, other_two, nth=2)
    decide, asked = verdicts, []

    def fails_once(sights: Sequence[Sight], *, undoing: bool) -> list[Verdict]:
        asked.append(sights)
        if len(asked) == 1:
            raise RuntimeError("nobody thought of this")
        return decide(sights, undoing=undoing)

    monkeypatch.setattr("lookout.recovery.verdicts", fails_once)
    deployer = make_deployer(repair_every=3600)
    await deployer.recover()

    (event,) = said(logs, "an interrupted swap could not be ended; please report it")
    assert event["exc_info"]
    (left,) = event["containers"]
    (right,) = {*names} - {left}
    assert state(engine, right) == (olds[names.index(right)], True)
    assert [final_name(name) for name in leftovers(engine)] == [left]
    await deployer.recover()
    assert [state(engine, name) for name in names] == [(old, True) for old in olds]
    assert not leftovers(engine)


# Labels that mean nothing


async def test_two_containers_that_say_that_they_replace_the_same_one_are_left_alone(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    """As where another tool has copied a container with all its labels."""
    name = make_container(app_image("1"), "api", "--restart=always")
    old = inspect(name)["Id"]
    engine.docker("stop", name)
    engine.docker("rename", name, f"{name}.lookout-old.{old[:12]}")
    labels = {
        "replaces": old,
        "name": name,
        "mode": "stop-first",
        "restart": json.dumps({"Name": "always"}),
        "deploy": "one and the same",
        "serves": "true",
        "monitor": json.dumps({"seconds": 0, "deploy_time": 1}),
    }
    flags = [f"--label=lookout.swap.{key}={value}" for key, value in labels.items()]
    both = [make_container(app_image("2"), suffix, *flags) for suffix in ("api", "api-copy")]
    watch = Watch(engine)

    await asyncio.wait_for(make_deployer().recover(), SOON)

    assert not watch.touches()
    assert [state(engine, one)[1] for one in both] == [True, True]
    assert said(logs, "several containers say that they replace the same one")


async def test_a_container_that_was_never_started_and_says_not_that_it_must_run_is_not_started(
    app_image: AppImage, make_container: MakeContainer, make_deployer: MakeDeployer, engine: PrivateEngine
) -> None:
    """Such as the copy of a stopped one, of a version of Lookout that did not note it."""
    one = app_image("1")
    name = make_container(one, "stopped")
    run = engine.docker("inspect", '--format={{index .Config.Labels "lookout.test"}}', name)
    engine.docker("rm", "--force", name)
    labels = {
        "test": run,
        "swap.replaces": "a" * 64,
        "swap.name": name,
        "swap.mode": "stop-first",
        "swap.restart": json.dumps({"Name": "always"}),
    }
    flags = [f"--label=lookout.{key}={value}" for key, value in labels.items()]
    engine.docker("create", *flags, f"--name={name}", one)
    watch = Watch(engine)
    await make_deployer().recover()
    assert not watch.touches()
