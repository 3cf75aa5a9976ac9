"""Somebody else is at work with the same containers in the middle of a swap, or right after it."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from structlog.typing import EventDict

from lookout.model import Outcome
from testbed.engine import DockerFailed, PrivateEngine
from testbed.faultproxy import FaultProxy
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.queues import until
from tests.integration.swaps import assert_back, impatient
from tests.integration.watching import Watch, exists, page, state

pytestmark = pytest.mark.engine

PORT = 18121
AT_THE_STOP = (r"POST .*/stop", 1)
AT_THE_RENAME_OF_THE_OLD = (r"POST .*/rename", 1)
AT_THE_RENAME_OF_THE_NEW = (r"POST .*/rename", 2)
AT_THE_START = (r"POST .*/start", 1)
AT_THE_REMOVAL = (r"DELETE .*/containers/", 1)
WATCHED = None

GOOD = (Outcome.DEPLOYED,)
# The engine is not to blame and the image need not be; a word for it there is not.
BACK = (Outcome.ROLLED_BACK, Outcome.FAILED)


@dataclass(frozen=True)
class Meddling:
    """What the user does, with the {old} or the {new} container, at which request, and what may come of it."""

    command: str
    moment: tuple[str, int] | None
    outcomes: tuple[Outcome, ...]


MEDDLING = {
    "stops the old one": Meddling("stop --time=0 {old}", AT_THE_STOP, GOOD),
    "renames the old one": Meddling("rename {old} {other}", AT_THE_RENAME_OF_THE_OLD, GOOD),
    "starts the old one beside the new one": Meddling("start {old}", WATCHED, GOOD + BACK),
    "removes the new one before it is started": Meddling("rm -f {new}", AT_THE_START, BACK),
    "removes the new one while it is watched": Meddling("rm -f {new}", WATCHED, BACK),
    "stops the new one while it is watched": Meddling("stop --time=0 {new}", WATCHED, BACK),
    "renames the new one while it is watched": Meddling("rename {new} {other}", WATCHED, GOOD + BACK),
    "starts the new one before we do": Meddling("start {new}", AT_THE_START, GOOD),
    "stops the new one when it has proven itself": Meddling("stop --time=0 {new}", AT_THE_REMOVAL, GOOD),
}


@pytest.mark.parametrize("meddling", MEDDLING.values(), ids=MEDDLING.keys())
async def test_whatever_a_user_does_in_mid_swap_the_deploy_has_an_outcome_and_one_of_the_two_is_left(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
    meddling: Meddling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old container publishes no port, so that nothing but Lookout keeps it from running beside the new."""
    impatient(monkeypatch)
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, deployer = inspect(name), app_image("2"), make_deployer()

    def meddle() -> None:
        new = engine.docker("ps", "-aq", f"--filter=label=lookout.swap.replaces={old['Id']}")
        words = meddling.command.format(old=old["Id"], new=new, other=f"{name}-renamed")
        engine.docker(*words.split())

    meddle_at(line, meddling.moment, meddle)
    report = await deployer.deploy(request_for(two))

    assert report.outcome in meddling.outcomes
    assert not leftovers(engine)
    if report.outcome is Outcome.DEPLOYED:
        assert not exists(engine, old["Id"])
        (new,) = engine.docker("ps", "-aq", "--no-trunc", f"--filter=name={name}").split()
        assert inspect(new)["HostConfig"]["RestartPolicy"]["Name"] == "always"
        assert inspect(new)["State"]["Running"] == (meddling.moment is not AT_THE_REMOVAL)
    else:
        assert name in report.reason
        assert_back(old, inspect(name))
    assert not [event for event in logs if event.get("exc_info")], "nobody is surprised"
    watch = Watch(engine)
    await deployer.recover()
    assert not watch.touches()


@pytest.mark.parametrize(
    "moment",
    [AT_THE_STOP, WATCHED],
    ids=["stop", "watched"],
)
async def test_an_old_container_that_its_user_removes_in_mid_swap_is_not_missed(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    moment: tuple[str, int] | None,
) -> None:
    """What is left is the new one under its name, or nothing: then the report says why."""
    name = make_container(app_image("1"), "api")
    old, two, deployer = inspect(name)["Id"], app_image("2"), make_deployer()

    meddle_at(line, moment, lambda: engine.docker("rm", "--force", old))
    report = await deployer.deploy(request_for(two))

    await deployer.recover()
    left = engine.docker("ps", "-a", f"--filter=name={name}", "--format={{.Names}} {{.State}}").splitlines()
    if report.outcome is Outcome.DEPLOYED:
        assert left == [f"{name} running"]
    else:
        assert report.outcome is Outcome.ROLLBACK_FAILED
        assert "removed by somebody else" in report.reason
        assert left in ([], [f"{name} running"])


def meddle_at(line: FaultProxy, moment: tuple[str, int] | None, meddle: Callable[[], object]) -> None:
    """Meddle when this request comes, or with the first look at a container after it was listened to."""
    if moment:
        line.meet(moment[0], meddle, nth=moment[1])
    else:
        line.meet(r"GET .*/events", lambda: line.meet(r"GET .*/containers/[0-9a-f]{64}/json", meddle))


# The name is taken


async def test_a_stranger_who_takes_the_name_in_mid_swap_keeps_it_and_the_old_one_runs_all_the_same(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As compose does, which knows nothing of a swap; once the name is free the old one has it again."""
    impatient(monkeypatch)
    one = app_image("1")
    name = make_container(one, "api", f"--publish={PORT}:8080", "--restart=always")
    old, two, deployer = inspect(name), app_image("2"), make_deployer()
    strangers = app_image("3")

    def take_the_name() -> None:
        label = old["Config"]["Labels"]["lookout.test"]
        engine.docker("run", "-d", f"--name={name}", f"--label=lookout.test={label}", strangers)

    line.meet(AT_THE_RENAME_OF_THE_NEW[0], take_the_name, nth=AT_THE_RENAME_OF_THE_NEW[1])
    report = await deployer.deploy(request_for(two))

    assert report.outcome is Outcome.ROLLBACK_FAILED
    assert name in report.reason
    assert "docker " in report.reason, "the command that helps"
    assert inspect(name)["Config"]["Image"] == strangers
    assert inspect(name)["State"]["Running"]
    assert page(engine, f"http://127.0.0.1:{PORT}/") == "1", "the service is there, if under another name"

    engine.docker("rm", "--force", name)
    await deployer.recover()
    await until(lambda: state(engine, name) == (old["Id"], True) and not leftovers(engine))
    assert_back(old, inspect(name))


# After the swap


async def test_after_a_swap_the_new_containers_are_the_users_and_recovery_changes_nothing(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
) -> None:
    """Neither for this Lookout nor for another one; the labels stay and mean nothing."""
    one = app_image("1")
    names = [
        make_container(one, kind, "--restart=always") for kind in ("as-it-is", "stopped", "renamed", "paused")
    ]
    as_it_is, stopped, renamed, paused = names
    assert (
        await make_deployer(own_id="a" * 64).deploy(request_for(app_image("2")))
    ).outcome is Outcome.DEPLOYED
    engine.docker("stop", "--time=0", stopped)
    engine.docker("rename", renamed, f"{renamed}-elsewhere")
    engine.docker("pause", paused)
    watch = Watch(engine)
    try:
        for who in ("a", "b"):
            await make_deployer(own_id=who * 64).recover()
        touches = watch.touches()
    finally:
        engine.docker("unpause", paused)
    assert not touches
    assert state(engine, as_it_is)[1]


async def test_a_rolled_back_container_that_the_user_then_stops_or_removes_stays_so(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
) -> None:
    one = app_image("1")
    stopped, removed = (make_container(one, kind, "--restart=always") for kind in ("stopped", "removed"))
    deployer = make_deployer()
    bad = app_image("2", changes=['CMD ["false"]'])
    assert (await deployer.deploy(request_for(bad))).outcome is Outcome.ROLLED_BACK
    engine.docker("stop", "--time=0", stopped)
    engine.docker("rm", "--force", removed)
    watch = Watch(engine)
    for _ in range(2):
        await deployer.recover()
    await deployer.close()
    assert not watch.touches()
    assert not leftovers(engine)
    with pytest.raises(DockerFailed):
        engine.docker("start", removed)
