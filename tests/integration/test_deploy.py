"""The recipe of a deploy on a real engine, with images from a real registry."""

import asyncio
import secrets
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.engine import Engine
from lookout.errors import Interrupted
from lookout.identity import identity
from lookout.keychain import Given, Keychain
from lookout.model import DeployRequest, Json, Origin, Outcome
from testbed.engine import DockerFailed, PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.images import make_image, push
from testbed.registry import Registry
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for, serving
from tests.integration.queues import until
from tests.integration.swaps import flag
from tests.integration.watching import Watch, state

pytestmark = pytest.mark.engine


async def test_a_new_tag_replaces_the_container_and_keeps_what_is_the_users(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    app_image("1", changes=["ENV COLOUR=red", "ENV LEVEL=1", "LABEL made=1"])
    two = app_image("2", changes=["ENV COLOUR=blue", "ENV LEVEL=2", "LABEL made=2"])
    network = f"lookout-test-{secrets.token_hex(4)}"
    engine.docker("network", "create", "--subnet=10.99.1.0/24", "--label=lookout.test=1", network)
    name = make_container(
        two.replace(":2", ":1"),
        "api",
        *("--env=LEVEL=mine", "--restart=always", "--memory=64m", "--volume=/data", "--cap-drop=NET_RAW"),
        *("--publish=18081:8080", f"--network={network}", "--ip=10.99.1.7", "--network-alias=shop"),
    )
    engine.docker("exec", name, "sh", "-c", "echo kept > /data/file")
    old = inspect(name)

    report = await deploy(two)

    new = inspect(name)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    assert new["Id"] != old["Id"]
    assert new["Config"]["Image"] == two
    assert {"LEVEL=mine", "COLOUR=blue"} <= set(new["Config"]["Env"])
    assert new["Config"]["Labels"]["made"] == "2"
    assert new["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert new["HostConfig"]["Memory"] == 64 << 20
    assert new["HostConfig"]["CapDrop"] == old["HostConfig"]["CapDrop"]
    assert new["HostConfig"]["PortBindings"] == old["HostConfig"]["PortBindings"]
    assert new["NetworkSettings"]["Networks"][network]["IPAddress"] == "10.99.1.7"
    assert "shop" in new["NetworkSettings"]["Networks"][network]["Aliases"]
    assert [m["Name"] for m in new["Mounts"]] == [m["Name"] for m in old["Mounts"]]
    assert engine.docker("exec", name, "cat", "/data/file") == "kept"
    assert "2" in engine.docker("exec", name, "wget", "-q", "-O-", "http://10.99.1.7:8080/")
    assert not leftovers(engine)
    engine.docker("rm", "-f", "-v", name)
    engine.docker("network", "rm", network)


async def test_the_same_tag_again_changes_nothing(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, inspect: Inspect
) -> None:
    image = app_image("1")
    name = make_container(image, "api")
    before = inspect(name)
    report = await deploy(image)
    assert report.outcome is Outcome.UNCHANGED
    assert inspect(name)["State"]["StartedAt"] == before["State"]["StartedAt"]


async def test_the_same_tag_with_other_content_is_deployed(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    image = app_image("latest")
    name = make_container(image, "api")
    before = inspect(name)
    app_image("latest", files={"/www/index.html": b"second"})  # the engine's own tag has moved as well
    report = await deploy(image)
    assert report.outcome is Outcome.DEPLOYED
    assert inspect(name)["Image"] != before["Image"]
    assert engine.docker("exec", name, "cat", "/www/index.html") == "second"


async def test_an_image_that_nobody_runs_is_not_here_and_not_pulled(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    image = app_image("1")
    engine.docker("stop", "-t", "0", make_container(image, "api"))
    engine.docker("rmi", "-f", app_image("2"))
    report = await deploy(image.replace(":1", ":2"))
    assert report.outcome is Outcome.NOT_HERE
    assert not engine.docker("images", "-q", image.replace(":1", ":2"))


async def test_only_what_is_left_alone_ends_ignored_with_the_reasons(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    image = app_image("1")
    paused = make_container(image, "paused")
    engine.docker("pause", paused)
    task = make_container(image, "task", "--label=com.docker.swarm.task.id=t")
    report = await deploy(app_image("2"))
    engine.docker("unpause", paused)
    assert report.outcome is Outcome.IGNORED
    assert f"{paused} is paused" in report.reason
    assert f"{task} is a Swarm task" in report.reason


async def test_lookouts_own_image_is_ignored(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, inspect: Inspect
) -> None:
    own = inspect(make_container(app_image("1"), "lookout"))["Id"]
    report = await deploy(app_image("2"), own_id=own)
    assert report.outcome is Outcome.IGNORED
    assert "is Lookout itself" in report.reason
    assert inspect(own)["State"]["Running"]


# A failure before anything is stopped


@pytest.fixture
def private_app(
    engine: PrivateEngine, private_registry: Registry, make_container: MakeContainer
) -> tuple[str, str]:
    """The name of a container on tag 1, and the reference of tag 2, which only the registry has."""
    name = f"{private_registry.host}/test-{secrets.token_hex(4)}/api"
    for tag in ("1", "2"):
        make_image(engine, f"{name}:{tag}")
        push(engine, f"{name}:{tag}", "user", "password")
    engine.docker("rmi", f"{name}:2")
    return make_container(f"{name}:1", "api"), f"{name}:2"


async def test_the_right_credentials_pull_from_a_private_registry(
    private_app: tuple[str, str], deploy: Deploy, inspect: Inspect
) -> None:
    name, image = private_app
    report = await deploy(image, keychain=given("password"))
    assert report.outcome is Outcome.DEPLOYED
    assert inspect(name)["Config"]["Image"] == image


def given(password: str) -> Keychain:
    """As the settings give it; all containers here come from one registry."""

    async def managed() -> set[str]:
        return set()

    return Keychain([Given("user", password, "", managed)])


@pytest.mark.parametrize(
    ("keychain", "source", "hint"),
    [
        (given("hunter2"), "with RegistryUsername", "check them"),
        (Keychain(), "with no credentials", "set RegistryUsername and RegistryPassword"),
    ],
    ids=["wrong", "none"],
)
async def test_without_the_right_credentials_nothing_is_stopped_and_the_log_says_what_to_set(
    private_app: tuple[str, str],
    deploy: Deploy,
    inspect: Inspect,
    keychain: Keychain,
    source: str,
    hint: str,
) -> None:
    name, image = private_app
    before = inspect(name)
    report = await deploy(image, keychain=keychain)
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert source in report.reason
    assert hint in report.reason
    assert "hunter2" not in repr(report)
    assert inspect(name)["State"] == before["State"]


async def test_an_unknown_tag_fails_for_good_and_nothing_is_stopped(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    image = app_image("1")
    name = make_container(image, "api")
    before = inspect(name)
    report = await deploy(image.replace(":1", ":2"))
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert "ImageTag" in report.reason
    assert inspect(name)["State"] == before["State"]
    assert not leftovers(engine)


async def test_a_registry_that_is_away_fails_for_now(
    make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    image = f"127.0.0.1:5999/test-{secrets.token_hex(4)}/api"
    make_image(engine, f"{image}:1")
    make_container(f"{image}:1", "api")
    report = await deploy(f"{image}:2", pull_timeout=3)
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)


async def test_a_digest_deploys_that_very_image_even_where_the_tag_has_moved(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api")
    image = app_image("2", files={"/www/index.html": b"meant"})
    meant = engine.docker("image", "inspect", "--format={{index .RepoDigests 0}}", image).partition("@")[2]
    engine.docker("rmi", "-f", image)
    app_image("2", files={"/www/index.html": b"moved on"})
    report = await make_deployer().deploy(request_for(image, digest=meant))
    assert report.outcome is Outcome.DEPLOYED
    assert engine.docker("exec", name, "cat", "/www/index.html") == "meant"
    assert inspect(name)["Config"]["Image"] == image


async def test_a_stopped_dependent_that_cannot_be_recreated_does_not_hold_up_a_deploy(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    name = make_container(app_image("1"), "vpn")
    lost = make_image(engine, f"lookout-test-{secrets.token_hex(4)}:1")
    job = make_container(lost, "job", f"--network=container:{name}", "--env=PORT=8090")
    engine.docker("stop", "-t", "0", job)
    engine.docker("rmi", "-f", lost)
    before = inspect(job)
    report = await deploy(app_image("2"))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    assert inspect(job) == before
    (remark,) = (event["remark"] for event in logs if event["event"] == "remark")
    assert remark.startswith(f"{job} depends on it, is stopped, and stays behind")


async def test_a_dependent_that_has_done_its_one_job_does_not_undo_a_good_deploy(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "vpn")
    two, image = app_image("2"), f"lookout-test-{secrets.token_hex(4)}:1"
    make_image(engine, image, changes=['CMD ["sh", "-c", "trap \'exit 0\' TERM; sleep 4 & wait"]'])
    job = make_container(image, "job", f"--network=container:{name}")
    report = await deploy(two, monitor=5)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name, job))
    assert (inspect(job)["State"]["Status"], inspect(job)["State"]["ExitCode"]) == ("exited", 0)


@pytest.mark.parametrize("option", ["--link={}:db", "--ipc=container:{}", "--network=container:{}"])
async def test_a_container_that_could_not_be_started_again_is_not_stopped(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    option: str,
) -> None:
    """It runs on although what it shares, or is linked to, has stopped; the engine would start it no more."""
    image = f"lookout-test-{secrets.token_hex(4)}:1"
    make_image(engine, image)
    shared = ("--ipc=shareable",) if "ipc" in option else ()
    other = make_container(image, "other", *shared)
    name = make_container(app_image("1"), "api", option.format(other), "--env=PORT=8090")
    engine.docker("stop", "-t", "0", other)
    before = inspect(name)
    report = await deploy(app_image("2"))
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert f"{name} needs {other} to start" in report.reason
    assert inspect(name)["State"] == before["State"]


async def test_a_repair_that_goes_on_does_not_keep_lookout_from_ending(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    line: FaultProxy,
) -> None:
    name = make_container(app_image("1"), "api", "--publish=18194:8080")
    two, deployer = app_image("2"), make_deployer(repair_every=0.1)
    thief = engine.sandbox.popen(
        [sys.executable, "-c", THIEF.replace("18083", "18194"), "60"], stdout=subprocess.PIPE
    )
    assert thief.stdout
    assert thief.stdout.readline() == b"ready\n"
    report = await deployer.deploy(request_for(two))
    assert report.outcome is Outcome.ROLLBACK_FAILED
    is_trying, tries = flag()
    line.meet(r"POST .*/start", tries)
    await asyncio.wait_for(is_trying.wait(), 20)
    async with asyncio.timeout(60):
        await deployer.close()
    with thief:
        thief.kill()
    engine.docker("rm", "-f", "-v", name)


async def test_a_container_that_an_api_client_made_without_a_restart_policy_comes_back_without_one(
    app_image: AppImage,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    connection: Engine,
) -> None:
    """As Compose makes them. An engine takes no such policy back, so from then on its name is `no`."""
    one, bad = app_image("1"), app_image("2", changes=['CMD ["false"]'])
    name = f"lookout-test-{secrets.token_hex(4)}"
    await connection.api()
    await connection.start(await connection.create(name, {"Image": one, "HostConfig": {}}))
    try:
        old, watch = inspect(name), Watch(engine)
        report = await deploy(bad)
        back = inspect(name)
        assert report.outcome is Outcome.ROLLED_BACK
        assert (back["Id"], back["State"]["Running"]) == (old["Id"], True)
        assert back["HostConfig"] == old["HostConfig"] | {
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}
        }
        done = [event["Action"] for event in watch.events("container") if event["Actor"]["ID"] == old["Id"]]
        assert [done.count(action) for action in ("stop", "start")] == [1, 1]
        assert (await deploy(app_image("3"))).outcome is Outcome.DEPLOYED
        assert not leftovers(engine)
    finally:
        engine.docker("rm", "-f", "-v", name)


async def test_a_job_that_is_quickly_done_is_brought_back_once(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
) -> None:
    """What comes back may end well in a moment: it is not started again and again until it stays."""
    job = app_image("1", changes=['CMD ["sh", "-c", "test -e /done || { touch /done; sleep 9999; }"]'])
    name, watch = make_container(job, "job", "--stop-timeout=0"), Watch(engine)
    report = await make_deployer().deploy(request_for(app_image("2", changes=['CMD ["false"]'])))
    assert report.outcome is Outcome.ROLLED_BACK
    (old_id, runs) = state(engine, name)
    started = [event["Actor"]["ID"] for event in watch.events("container") if event["Action"] == "start"]
    assert (runs, started.count(old_id)) == (False, 1)
    assert not leftovers(engine)


async def test_how_a_deploy_ended_is_told_though_lookout_is_asked_to_stop_just_then(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    connection: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its message would go back, and the bad image be tried again."""
    name, bad = make_container(app_image("1"), "api"), app_image("2", changes=['CMD ["false"]'])
    stopping = asyncio.Event()
    deployer = make_deployer(stopping=stopping)
    moments = iter(["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"])

    async with AsyncExitStack() as stack:

        async def started() -> str:
            """As if the engine had died; the second time, another deploy has the container, and Lookout is to stop."""
            moment = next(moments)
            if moment.endswith("1Z"):
                await stack.enter_async_context(deployer._locks.held([name]))
                stopping.set()
            return moment

        monkeypatch.setattr(connection, "started", started)
        report = await deployer.deploy(request_for(bad))
    assert report.outcome is Outcome.ROLLED_BACK


# A failure after the stop


BAD_IMAGES = {
    "exits at once": ['CMD ["false"]'],
    "exits after two seconds": ['CMD ["sh", "-c", "sleep 2; exit 3"]'],
    "never gets healthy": ["HEALTHCHECK --interval=500ms --timeout=1s --retries=2 CMD false"],
    "lacks its command": ['CMD ["/nonexistent"]'],
}


@pytest.mark.parametrize("restart", ["no", "always"])
@pytest.mark.parametrize("changes", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
async def test_a_bad_image_is_rolled_back_to_the_very_same_container(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    changes: list[str],
    restart: str,
) -> None:
    one, bad = app_image("1"), app_image("bad", changes=[*changes, "VOLUME /fresh"])
    network = f"lookout-test-{secrets.token_hex(4)}"
    engine.docker("network", "create", "--subnet=10.99.2.0/24", network)
    name = make_container(
        one,
        "api",
        *(f"--network={network}", "--ip=10.99.2.7", "--network-alias=shop", "--publish=18082:8080"),
        *(f"--restart={restart}", "--volume=/data"),
    )
    engine.docker("exec", name, "sh", "-c", "echo kept > /data/file")
    old, volumes = inspect(name), set(engine.docker("volume", "ls", "-q").split())

    report = await deploy(bad, monitor=3 if "sleep" in str(changes) else 0.5)

    new = inspect(name)
    assert report.outcome is Outcome.ROLLED_BACK
    assert name in report.reason
    assert new["State"]["Running"]
    assert [new[k] for k in ("Id", "Name", "HostConfig")] == [old[k] for k in ("Id", "Name", "HostConfig")]
    for key in ("IPAddress", "Aliases"):
        now, before = (c["NetworkSettings"]["Networks"][network][key] for c in (new, old))
        assert now == before
    assert new["NetworkSettings"]["Ports"] == old["NetworkSettings"]["Ports"]
    assert engine.docker("exec", name, "cat", "/data/file") == "kept"
    assert set(engine.docker("volume", "ls", "-q").split()) == volumes
    assert not leftovers(engine)
    engine.docker("rm", "-f", "-v", name)
    engine.docker("network", "rm", network)


THIEF = """
import socket, sys, time
print("ready", flush=True)
while True:
    s = socket.socket()
    try:
        s.bind(("0.0.0.0", 18083)); s.listen(); break
    except OSError:
        s.close(); time.sleep(0.001)
print("stolen", flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize(("held", "outcome"), [(1.5, Outcome.ROLLED_BACK), (14, Outcome.ROLLBACK_FAILED)])
async def test_a_port_that_somebody_takes_during_the_stop(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    held: float,
    outcome: Outcome,
) -> None:
    """Rolled back as soon as the port is free; until then Lookout goes on trying."""
    one, two = app_image("1"), app_image("2")
    name = make_container(one, "api", "--publish=18083:8080", "--restart=always")
    old = inspect(name)
    thief = engine.sandbox.popen([sys.executable, "-c", THIEF, str(held)], stdout=subprocess.PIPE)
    assert thief.stdout
    assert thief.stdout.readline() == b"ready\n"

    report = await deploy(two)
    with thief:
        thief.wait(20)

    assert report.outcome is outcome
    if outcome is Outcome.ROLLBACK_FAILED:
        assert f"docker start {name}" in report.reason
    await until(lambda: inspect(old["Id"])["State"]["Running"] and not leftovers(engine))
    new = inspect(name)
    assert [new[k] for k in ("Id", "Name", "HostConfig")] == [old[k] for k in ("Id", "Name", "HostConfig")]


async def test_a_healthy_image_is_deployed_once_it_is_healthy(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, inspect: Inspect
) -> None:
    name = make_container(app_image("1"), "api")
    check = "HEALTHCHECK --interval=500ms --timeout=1s CMD wget -q -O /dev/null http://127.0.0.1:8080/"
    report = await deploy(app_image("2", changes=[check]))
    assert report.outcome is Outcome.DEPLOYED
    assert inspect(name)["State"]["Health"]["Status"] == "healthy"


async def test_whatever_goes_wrong_after_the_stop_the_old_container_comes_back(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def mistaken(*_: object, **__: object) -> None:
        raise TypeError("a mistake of ours")

    name = make_container(app_image("1"), "api", "--restart=always")
    old, two = inspect(name), app_image("2")
    monkeypatch.setattr("lookout.swap.wait_until_ready", mistaken)
    report = await deploy(two)
    assert report.outcome is Outcome.ROLLED_BACK
    new = inspect(name)
    assert (new["Id"], new["HostConfig"]) == (old["Id"], old["HostConfig"])
    assert new["State"]["Running"]
    assert not leftovers(engine)


async def test_a_log_that_cannot_be_read_is_no_reason_to_fail_a_rollback(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api", "--log-driver=none")
    old = inspect(name)["Id"]
    report = await deploy(app_image("2", changes=['CMD ["false"]']))
    assert report.outcome is Outcome.ROLLED_BACK
    assert (inspect(name)["Id"], inspect(name)["State"]["Running"]) == (old, True)
    assert not leftovers(engine)


# Several containers


async def test_all_containers_of_an_image_are_replaced(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, inspect: Inspect
) -> None:
    one, two = app_image("1"), app_image("2")
    names = [make_container(one, suffix) for suffix in ("a", "b")]
    current = make_container(two, "c")
    before = inspect(current)["Id"]
    report = await deploy(two)
    assert report.containers == tuple(names)
    assert {inspect(name)["Config"]["Image"] for name in names} == {two}
    assert inspect(current)["Id"] == before


async def test_the_first_replica_that_fails_brings_the_others_back(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one = app_image("1")
    picky = app_image("2", changes=['CMD ["sh", "-c", "test -z \\"$FAIL\\" && exec /app"]'])
    names = [make_container(one, "a"), make_container(one, "b", "--env=FAIL=1"), make_container(one, "c")]
    before = [inspect(name) for name in names]
    report = await deploy(picky)
    assert report.outcome is Outcome.ROLLED_BACK
    assert [inspect(name)["Id"] for name in names] == [old["Id"] for old in before]
    assert all(inspect(name)["State"]["Running"] for name in names)
    assert inspect(names[2])["State"] == before[2]["State"]
    assert not leftovers(engine)


# What a container came from


def came_from(container: Json) -> list[str | None]:
    own = ("lookout.message-id", "lookout.sent-timestamp", "lookout.message-group-id")
    return [container["Config"]["Labels"].get(label) for label in own]


async def test_a_container_says_which_message_it_came_from_and_one_that_only_follows_says_nothing(
    app_image: AppImage,
    tool_image: str,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    own = make_container(
        tool_image, "own", f"--network=container:{name}", "--label=lookout.message-id=theirs"
    )
    of_group, plain = Origin("m-1", 1111, "group"), Origin("m-2", 2222)
    for tag, origin in (("2", of_group), ("3", plain)):
        report = await make_deployer().deploy(request_for(app_image(tag), origin=origin))
        assert report.containers == (name, own)
        assert came_from(inspect(name)) == [origin.message_id, str(origin.sent_timestamp), origin.group_id]
        assert came_from(inspect(own)) == ["theirs", None, None]


@pytest.mark.parametrize("option", ["--rm", "--restart=no"])
async def test_what_was_brought_back_came_from_where_it_came_from_before(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    option: str,
) -> None:
    name = make_container(app_image("1"), "api", option)
    two, bad = app_image("2"), app_image("3", changes=['CMD ["false"]'])
    for image, number in ((two, 1), (bad, 2)):
        origin = Origin(f"m-{number}", number)
        report = await make_deployer().deploy(request_for(image, origin=origin))
    assert report.outcome is Outcome.ROLLED_BACK
    assert came_from(inspect(name)) == ["m-1", "1", ""]
    late = request_for(app_image("4"), origin=Origin("m-0", 0))
    assert (await make_deployer().deploy(late)).outcome is Outcome.SUPERSEDED


# Being told to stop


async def test_before_a_swap_a_deploy_is_interrupted_and_during_one_undone(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api", "--restart=always")
    two = app_image("2")
    old = inspect(name)

    stopping = asyncio.Event()
    stopping.set()
    with pytest.raises(Interrupted):
        await make_deployer(stopping=stopping).deploy(request_for(two))

    swapping = asyncio.create_task(make_deployer(monitor=60).deploy(request_for(two)))
    await until(lambda: serving(engine, name) not in ("", old["Id"]))
    swapping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await swapping
    new = inspect(name)
    assert [new[k] for k in ("Id", "Name", "HostConfig")] == [old[k] for k in ("Id", "Name", "HostConfig")]
    assert new["State"]["Running"]
    assert not leftovers(engine)


async def test_cancelled_while_the_old_container_takes_its_time_to_stop_it_runs_again(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    deaf = 'CMD ["sh", "-c", "trap \\"touch /told\\" TERM; while true; do sleep 1; done"]'
    name = make_container(app_image("1", changes=[deaf]), "api", "--restart=always")
    two, old = app_image("2"), inspect(name)
    swapping = asyncio.create_task(make_deployer().deploy(request_for(two)))
    await until(lambda: inspect(name)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped")
    await until(lambda: "told" in engine.docker("exec", name, "ls", "/"))
    swapping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await swapping
    new = inspect(name)
    assert (new["Id"], new["State"]["Running"], new["HostConfig"]) == (old["Id"], True, old["HostConfig"])
    assert new["State"]["StartedAt"] > old["State"]["StartedAt"]
    assert not leftovers(engine)


async def test_what_an_interrupted_swap_left_beside_the_container_is_replaced(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api")
    two, old = app_image("2"), inspect(name)["Id"]
    leftover = f"{name}.lookout-new.{old[:12]}"
    labels = (f"--label=lookout.swap.replaces={old}", f"--label=lookout.swap.by={identity('me')}")
    engine.docker("create", f"--name={leftover}", *labels, two)
    report = await deploy(two, own_id="me")
    assert report.outcome is Outcome.DEPLOYED
    with pytest.raises(DockerFailed):
        inspect(leftover)


async def test_what_a_stranger_has_under_the_temporary_name_is_not_touched(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api")
    two, old = app_image("2"), inspect(name)["Id"]
    theirs = f"{name}.lookout-new.{old[:12]}"
    engine.docker("create", f"--name={theirs}", two)
    report = await deploy(two)
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert theirs in report.reason
    assert inspect(name)["Id"] == old
    assert inspect(theirs)["State"]["Status"] == "created"
    engine.docker("rm", theirs)


# What changes meanwhile


async def test_containers_that_come_and_go_during_the_pull_are_seen(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one, two = app_image("1"), app_image("2")
    first = make_container(one, "a")
    deployer = make_deployer()
    pull = deployer._puller.pull
    later: list[str] = []

    async def pull_while_the_user_works(request: DeployRequest, **how: Any) -> Json:
        image = await pull(request, **how)
        later.append(make_container(one, "b"))
        return image

    deployer._puller.pull = pull_while_the_user_works  # type: ignore[method-assign]
    report = await deployer.deploy(request_for(two))
    assert report.containers == (first, *later)

    async def pull_while_the_user_stops_all(request: DeployRequest, **how: Any) -> Json:
        engine.docker("stop", "-t", "0", first, *later)
        return await pull(request, **how)

    deployer._puller.pull = pull_while_the_user_stops_all  # type: ignore[method-assign]
    report = await deployer.deploy(request_for(app_image("3")))
    assert report.outcome is Outcome.NOT_HERE


async def test_an_old_container_that_its_owner_removes_meanwhile_is_not_missed(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api")
    bad = app_image("2", changes=['CMD ["sh", "-c", "sleep 2"]'])
    old = inspect(name)["Id"]
    deploying = asyncio.create_task(make_deployer(monitor=4).deploy(request_for(bad)))
    await until(lambda: serving(engine, name) not in ("", old))
    engine.docker("rm", "-f", old)
    report = await deploying
    assert report.outcome is Outcome.ROLLBACK_FAILED
    assert "removed by somebody else" in report.reason
    assert inspect(name)["Config"]["Image"] == bad, "there is nothing else"
    assert not leftovers(engine)
