"""Hands at the containers of a deploy: of its user, of a janitor, of another Lookout; and a line that ends answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from lookout.engine import Engine
from lookout.keychain import Keychain
from lookout.model import Json, Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer, MakeLookout
from tests.integration.deploys import leftovers, new_deployer, request_for
from tests.integration.queues import until
from tests.integration.swaps import assert_back, beside, settled_soon, watched
from tests.integration.watching import Watch, state

pytestmark = pytest.mark.engine

KINDS = pytest.mark.parametrize("flag", ["--restart=always", "--rm"])
PICKY = 'CMD ["sh", "-c", "test -n \\"$FAIL\\" && { sleep 0.1; exit 4; }; exec /app"]'
ENDS = {"stop", "kill", "die", "destroy"}


def ends_of(watch: Watch, container: str) -> list[str]:
    """What has ended the container of this id."""
    return [
        event["Action"]
        for event in watch.events("container")
        if event["Actor"]["ID"] == container and event["Action"] in ENDS
    ]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    settled_soon(monkeypatch)


# Something is removed


@KINDS
async def test_a_new_container_whose_old_one_was_removed_goes_on_serving_where_a_replica_is_no_good(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    flag: str,
) -> None:
    """There is nothing to go back to; so nothing is stopped."""
    one, picky = app_image("1"), app_image("2", changes=[PICKY])
    good, bad = make_container(one, "a", flag), make_container(one, "b", flag, "--env=FAIL=1")
    old, before, deployer = state(engine, good)[0], inspect(bad), make_deployer()
    watch, seen = Watch(engine), list[Json]()

    def remove() -> None:
        seen.append(inspect(good))
        engine.docker("rm", f"{good}.lookout-old.{old[:12]}")

    line.meet(r"POST .*/start", remove, nth=2)
    report = await deployer.deploy(request_for(picky))

    assert report.outcome is Outcome.ROLLBACK_FAILED
    assert f"docker start {good}" in report.reason
    assert seen[0]["Id"] != old
    assert not ends_of(watch, seen[0]["Id"])
    assert inspect(good)["State"] == seen[0]["State"]
    assert inspect(bad)["Image"] == before["Image"]
    assert inspect(bad)["State"]["Running"]
    await until(lambda: not leftovers(engine))
    await deployer.close()
    watch = Watch(engine)
    await make_deployer().recover()
    assert not watch.touches()


@pytest.mark.parametrize(("flag", "replicas"), [("--restart=always", 1), ("--rm", 1), ("--rm", 2)])
async def test_a_container_whose_successor_is_removed_before_its_stop_runs_on_untouched(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    flag: str,
    replicas: int,
) -> None:
    """As by `docker container prune`, which takes what was never started for rubbish."""
    one, two = app_image("1"), app_image("2")
    names = [make_container(one, suffix, flag) for suffix in "ab"[:replicas]]
    olds, deployer, watch = [inspect(name) for name in names], make_deployer(), Watch(engine)

    def prune() -> None:
        engine.docker("rm", *(found for found in leftovers(engine) if found.startswith(f"{names[-1]}.")))

    line.meet(r"POST .*/(update|rename)" if replicas == 1 else r"GET .*/events", prune)
    report = await deployer.deploy(request_for(two))

    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert not ends_of(watch, olds[-1]["Id"])
    now = inspect(names[-1])
    assert now["Id"] == olds[-1]["Id"]
    assert now["State"] == olds[-1]["State"]
    assert now["HostConfig"] == olds[-1]["HostConfig"]
    for name, old in zip(names[:-1], olds[:-1], strict=True):
        assert inspect(name)["Image"] == old["Image"]
        assert inspect(name)["State"]["Running"]
    assert not leftovers(engine)


# The user stops it


@pytest.mark.parametrize("lost", [r"POST .*/images/create", r"GET .*/info"], ids=["pull", "plan"])
async def test_what_its_user_stops_during_a_deploy_stays_so_though_a_call_got_no_answer(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
    lost: str,
) -> None:
    """A proxy that could not reach the engine once is no engine that died."""
    name = make_container(app_image("1"), "api", "--restart=unless-stopped")
    old, two, watch = state(engine, name)[0], app_image("2"), Watch(engine)
    line.answer(lost, 503, action=lambda: engine.docker("stop", name))
    report = await make_deployer().deploy(request_for(two))
    assert report.outcome in (Outcome.NOT_HERE, Outcome.FAILED)
    assert state(engine, name) == (old, False)
    assert "start" not in [action for action, _ in watch.touches()]
    assert not leftovers(engine)


# Another Lookout


async def test_a_dependent_that_another_lookout_is_replacing_is_waited_for(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    make_lookout: MakeLookout,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """It lives in the network of a container whose image this Lookout has a message for."""
    old_image, new_image = beside(engine, app_image("1"), "1", "2")
    vpn = make_container(app_image("1"), "vpn", "--restart=always")
    dependent = make_container(old_image, "dependent", "--env=PORT=8090", f"--network=container:{vpn}")
    two, before = app_image("2"), inspect(vpn)
    first = make_deployer(own_id=make_lookout("first"), monitor=3)
    second = make_deployer(own_id=make_lookout("second"))
    async with watched(engine, dependent, first.deploy(request_for(new_image))) as middle:
        watch = Watch(engine)
        report = await second.deploy(request_for(two))
        assert not middle.task.done()
        touched = watch.touches()
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert "another Lookout" in report.reason
    assert not touched
    assert middle.task.result().outcome is Outcome.DEPLOYED
    assert state(engine, dependent) == (middle.new, True)
    assert_back(before, inspect(vpn))


# A line that ends answers


@asynccontextmanager
async def ending_events(engine: PrivateEngine, path: Path, after: float) -> AsyncIterator[list[str]]:
    """A line to the engine that ends whatever tells events after so many seconds; what it has ended so."""
    ended: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await asyncio.open_unix_connection(engine.socket)
        tells_events = asyncio.Event()

        async def ask() -> None:
            while data := await reader.read(65536):
                if b"/events?" in data.split(b"\r\n", 1)[0]:
                    tells_events.set()
                to_engine.write(data)

        async def answer() -> None:
            while data := await from_engine.read(65536):
                writer.write(data)

        async def end() -> None:
            await tells_events.wait()
            await asyncio.sleep(after)
            ended.append("events")

        sides = [asyncio.create_task(side()) for side in (ask, answer, end)]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            writer.close()
            to_engine.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            await carry(reader, writer)

    server = await asyncio.start_unix_server(connect, path)
    try:
        yield ended
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_line_that_ends_the_engines_events_again_and_again_keeps_no_good_image_away(
    app_image: AppImage,
    make_container: MakeContainer,
    engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As proxies do with an answer that says nothing for a while."""
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, path = state(engine, name)[0], app_image("2"), engine.directory / "ending.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    async with ending_events(engine, path, after=0.3) as ended, Engine.connect() as connection:
        deployer = new_deployer(connection, Keychain(), monitor=2)
        try:
            report = await deployer.deploy(request_for(two))
        finally:
            await deployer.close()
    assert report.outcome is Outcome.DEPLOYED, report.reason
    assert ended
    assert state(engine, name)[1]
    assert state(engine, name)[0] != old
    assert not leftovers(engine)
