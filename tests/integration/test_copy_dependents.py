"""Containers that live on another one's namespaces or links follow it, or it is left as it is."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from structlog.typing import EventDict

from lookout.engine import Engine
from lookout.model import Json, Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.images import make_image, push
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import clone, leftovers, request_for
from tests.integration.queues import said, until
from tests.integration.swaps import flag
from tests.integration.watching import Watch, exists, served, state, volumes

pytestmark = pytest.mark.engine

BAD = ['CMD ["false"]']


@pytest.fixture
def other_image(engine: PrivateEngine) -> Callable[..., str]:
    """Another image than the test's own, for several tags: `other_image("1", changes=[...])`."""
    name = f"lookout-test-{secrets.token_hex(4)}/other"

    def make(tag: str, **options: list[str]) -> str:
        make_image(engine, f"{name}:{tag}", changes=options.get("changes", ()))
        return f"{name}:{tag}"

    return make


@pytest.fixture
def make_network(engine: PrivateEngine) -> Iterator[Callable[[], str]]:
    made: list[str] = []

    def make() -> str:
        made.append(f"lookout-test-{secrets.token_hex(4)}")
        engine.docker("network", "create", made[-1])
        return made[-1]

    yield make
    for network in made:
        holders = "{{range .Containers}}{{.Name}} {{end}}"
        for name in engine.docker("network", "inspect", f"--format={holders}", network).split():
            engine.docker("network", "disconnect", "--force", network, name)
        engine.docker("network", "rm", network)


def namespace(engine: PrivateEngine, container: str, kind: str) -> str:
    """Which namespace its processes are in: two containers that share it say the same."""
    return engine.inside(container, "ls", "-l", f"/proc/self/ns/{kind}").rpartition(" ")[2]


def has_eth0(engine: PrivateEngine, container: str) -> bool:
    return "eth0" in engine.inside(container, "ls", "/sys/class/net").split()


def is_back(before: Json, after: Json) -> bool:
    """The very same container, and it runs."""
    same = all(after[key] == before[key] for key in ("Id", "Name", "Image", "Config", "HostConfig"))
    return same and bool(after["State"]["Running"])


# Links on the default bridge


async def test_case_37_a_copy_of_a_linked_container_reaches_what_it_is_linked_to(
    other_image: Callable[..., str],
    make_container: MakeContainer,
    connection: Engine,
    engine: PrivateEngine,
) -> None:
    one, two = other_image("1"), other_image("2")
    db = make_container(one, "db")
    web = make_container(one, "web", f"--link={db}:db")
    copy = await clone(connection, web, two)
    try:
        engine.docker("start", copy.id)
        assert copy.request["HostConfig"]["Links"] == [f"{db}:db"]
        assert served(engine, copy.id, "http://db:8080/") == "1"
    finally:
        engine.docker("rm", "-f", copy.id)


@pytest.mark.newest
async def test_case_37_when_the_target_of_a_link_is_replaced_the_linked_container_is_recreated(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    db = make_container(app_image("1"), "db")
    web = make_container(
        tool_image,
        "web",
        *(
            f"--link={db}:db",
            "--env=LEVEL=mine",
            "--volume=/data",
            "--restart=always",
            "--publish=18095:8080",
        ),
    )
    engine.inside(web, "sh", "-c", "echo kept > /data/file")
    assert served(engine, web, "http://db:8080/") == "1"

    olds = [inspect(name) for name in (db, web)]

    report = await deploy(app_image("2"))

    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (db, web))
    news = [inspect(name) for name in (db, web)]
    assert all(new["State"]["Running"] for new in news)
    assert not any(exists(engine, old["Id"]) for old in olds)
    assert served(engine, web, "http://db:8080/") == "2"
    assert engine.inside(web, "cat", "/data/file") == "kept"
    assert news[1]["HostConfig"]["Links"] == [f"/{db}:/{web}/db"]
    assert (news[1]["Image"], news[1]["Config"]["Image"]) == (olds[1]["Image"], tool_image)
    assert "LEVEL=mine" in news[1]["Config"]["Env"]
    for key in ("PortBindings", "RestartPolicy"):
        assert news[1]["HostConfig"][key] == olds[1]["HostConfig"][key]
    assert not leftovers(engine)
    engine.docker("restart", "--time=5", web)
    assert served(engine, web, "http://db:8080/") == "2"


async def test_case_37_a_linked_container_reaches_the_old_target_after_a_rollback(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    db = make_container(app_image("1"), "db", "--restart=always")
    web = make_container(tool_image, "web", f"--link={db}:db", "--restart=always")
    before = [inspect(name) for name in (db, web)]
    assert (await deploy(app_image("2", changes=BAD))).outcome is Outcome.ROLLED_BACK
    assert all(map(is_back, before, [inspect(name) for name in (db, web)]))
    assert served(engine, web, "http://db:8080/") == "1"
    engine.docker("restart", "--time=5", web)
    assert served(engine, web, "http://db:8080/") == "1"
    assert not leftovers(engine)


async def test_case_37_links_still_work_when_the_engine_has_restarted_after_the_swap(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    engine: PrivateEngine,
) -> None:
    """An engine reads a link again, as it was asked for, when it starts."""
    db = make_container(app_image("1"), "db", "--restart=always")
    web = make_container(tool_image, "web", f"--link={db}:db", "--restart=always")
    assert (await deploy(app_image("2"))).outcome is Outcome.DEPLOYED
    engine.stop()
    engine.start()
    await until(lambda: state(engine, db)[1] and state(engine, web)[1])
    assert served(engine, web, "http://db:8080/") == "2"
    assert (await deploy(app_image("3"))).outcome is Outcome.DEPLOYED
    assert served(engine, web, "http://db:8080/") == "3"


async def test_a_container_linked_to_two_targets_is_recreated_once_and_reaches_both(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one = app_image("1")
    first, second = make_container(one, "y"), make_container(one, "z")
    web = make_container(tool_image, "a", f"--link={first}:one", f"--link={second}:two")
    old, two, watch = inspect(web), app_image("2"), Watch(engine)
    report = await deploy(two)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (first, second, web))
    assert [served(engine, web, f"http://{alias}:8080/") for alias in ("one", "two")] == ["2", "2"]
    assert inspect(web)["Id"] != old["Id"]
    assert [action for action, _ in watch.touches()].count("create") == 3
    assert not leftovers(engine)


async def test_links_on_a_network_of_ones_own_and_shared_volumes_are_no_reason_to_touch_a_container(
    app_image: AppImage,
    make_container: MakeContainer,
    make_network: Callable[[], str],
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    network = make_network()
    db = make_container(app_image("1"), "db", f"--network={network}", "--volume=/data")
    linked = make_container(tool_image, "linked", f"--network={network}", f"--link={db}:db")
    sharing = make_container(tool_image, "sharing", f"--volumes-from={db}")
    engine.inside(db, "sh", "-c", "echo kept > /data/file")
    before = [inspect(name) for name in (linked, sharing)]
    report = await deploy(app_image("2"))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (db,))
    for old in before:
        assert (inspect(old["Name"])["Id"], inspect(old["Name"])["State"]) == (old["Id"], old["State"])
    assert served(engine, linked, "http://db:8080/") == "2"
    assert engine.inside(sharing, "cat", "/data/file") == "kept"


# Shared networks


@pytest.mark.newest
async def test_case_38_containers_on_the_network_of_a_replaced_one_have_that_of_the_new(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    """Two of them, twice, with their own data and settings; the target is as if it were alone."""
    vpn = make_container(app_image("1"), "m-vpn", "--publish=18096:8080", "--restart=always")
    shared = f"--network=container:{vpn}"
    first = make_container(tool_image, "a", shared, "--env=PORT=8081", "--volume=/data")
    second = make_container(tool_image, "z", shared, "--env=PORT=8082", "--restart=unless-stopped")
    engine.inside(first, "sh", "-c", "echo kept > /data/file")
    dependents = (first, second)

    for tag in ("2", "3"):
        olds = [inspect(name) for name in (vpn, *dependents)]
        report = await deploy(app_image(tag))

        assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (vpn, *dependents))
        new = inspect(vpn)
        for old, name in zip(olds[1:], dependents, strict=True):
            dependent = inspect(name)
            assert dependent["State"]["Running"]
            assert dependent["HostConfig"]["NetworkMode"] == f"container:{new['Id']}"
            assert (dependent["Image"], dependent["Config"]["Image"]) == (old["Image"], tool_image)
            assert dependent["Config"]["Env"] == old["Config"]["Env"]
            assert dependent["HostConfig"]["RestartPolicy"] == old["HostConfig"]["RestartPolicy"]
            assert has_eth0(engine, name)
            assert namespace(engine, name, "net") == namespace(engine, vpn, "net")
            assert served(engine, name, "http://127.0.0.1:8080/") == tag
        assert engine.inside(first, "cat", "/data/file") == "kept"
        assert [served(engine, vpn, f"http://127.0.0.1:{port}/") for port in (8081, 8082)] == ["1", "1"]
        assert not any(exists(engine, old["Id"]) for old in olds)
        assert not leftovers(engine)
    assert not [event for event in logs if event["log_level"] in ("warning", "error", "critical")]


@pytest.mark.parametrize("command", ["/nonexistent", "false"], ids=["does not start", "exits at once"])
async def test_case_38_after_a_rollback_the_dependents_have_their_network_again(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    command: str,
) -> None:
    vpn = make_container(app_image("1"), "m-vpn", "--restart=always")
    shared = f"--network=container:{vpn}"
    first = make_container(tool_image, "a", shared, "--env=PORT=8081", "--volume=/data", "--restart=always")
    second = make_container(tool_image, "z", shared, "--env=PORT=8082", "--restart=on-failure:3")
    engine.inside(first, "sh", "-c", "echo kept > /data/file; echo layer > /own")
    olds = [inspect(name) for name in (vpn, first, second)]

    report = await deploy(app_image("2", changes=[f'CMD ["{command}"]']))

    assert report.outcome is Outcome.ROLLED_BACK
    assert vpn in report.reason
    assert all(map(is_back, olds, [inspect(name) for name in (vpn, first, second)]))
    for name in (first, second):
        assert has_eth0(engine, name)
        assert namespace(engine, name, "net") == namespace(engine, vpn, "net")
    assert served(engine, first, "http://127.0.0.1:8080/") == "1"
    assert served(engine, second, "http://127.0.0.1:8080/") == "1"
    assert engine.inside(first, "cat", "/data/file", "/own").split() == ["kept", "layer"]
    assert not leftovers(engine)


# What a dependent of a VPN does when its provider no longer answers as it should: on version 1 it runs.
PICKY = (
    'CMD ["sh", "-c", "until page=$(wget -q -O- http://127.0.0.1:8080/); do sleep 0.1; done; '
    'test $page = 1 || exit 4; PORT=8081 exec /app"]'
)


async def test_case_38_a_dependent_that_does_not_come_up_again_brings_all_back(
    app_image: AppImage,
    other_image: Callable[..., str],
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Also what was replaced before it and is good: the target, another dependent, another target.

    One that did not run is not started by that.
    """
    one = app_image("1")
    sibling = make_container(one, "a-sibling")
    vpn = make_container(one, "b-vpn")
    shared = f"--network=container:{vpn}"
    good = make_container(tool_image, "c-good", shared, "--env=PORT=8082")
    stopped = make_container(tool_image, "c-stopped", shared, "--env=PORT=8083", "--restart=always")
    engine.docker("stop", stopped)
    picky = make_container(other_image("1", changes=[PICKY]), "d-picky", shared, "--restart=on-failure")
    names = (sibling, vpn, good, picky)
    assert served(engine, picky, "http://127.0.0.1:8081/") == "1"
    olds, resting = [inspect(name) for name in names], inspect(stopped)
    two, watch = app_image("2"), Watch(engine)

    report = await deploy(two, monitor=2)

    assert report.outcome is Outcome.ROLLED_BACK
    assert picky in report.reason
    await until(lambda: inspect(picky)["State"]["Running"])
    assert all(map(is_back, olds, [inspect(name) for name in names]))
    for name in (good, picky):
        assert has_eth0(engine, name)
        assert served(engine, name, "http://127.0.0.1:8080/") == "1"
    touches = watch.touches()
    assert ("rename", stopped) in touches, "it had been replaced"
    ends = [name for action, name in touches if action == "die" and name in (vpn, good)]
    assert ends == [good, vpn] * 2, "each time the dependent goes first, while it has its network"
    for key in ("Id", "Name", "State", "HostConfig"):
        assert inspect(stopped)[key] == resting[key]
    assert not leftovers(engine)


async def test_case_38_a_later_target_that_fails_brings_the_dependents_of_an_earlier_one_back(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one = app_image("1")
    choosy = app_image("2", changes=['CMD ["sh", "-c", "test -z \\"$FAIL\\" && exec /app"]'])
    vpn = make_container(one, "a-vpn")
    child = make_container(tool_image, "b-child", f"--network=container:{vpn}", "--env=PORT=8081")
    later = make_container(one, "c-later", "--env=FAIL=1")
    names = (vpn, child, later)
    olds = [inspect(name) for name in names]
    report = await deploy(choosy)
    assert report.outcome is Outcome.ROLLED_BACK
    assert later in report.reason
    assert all(map(is_back, olds, [inspect(name) for name in names]))
    assert has_eth0(engine, child)
    assert namespace(engine, child, "net") == namespace(engine, vpn, "net")
    assert not leftovers(engine)
    assert (await deploy(app_image("3"))).containers == (vpn, later, child), "the targets first"


async def test_case_38_a_swap_that_is_cancelled_gives_the_dependents_their_network_back(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Once while the target is being watched, once while the dependent is."""
    vpn = make_container(app_image("1"), "vpn", "--restart=always")
    shared = (f"--network=container:{vpn}", "--env=PORT=8081", "--restart=always")
    child = make_container(tool_image, "child", *shared)
    olds, two = [inspect(name) for name in (vpn, child)], app_image("2")

    def is_replaced(name: str, old: Json) -> bool:
        found, running = state(engine, name)
        return running and found != old["Id"]

    for name, old, monitor in zip((vpn, child), olds, (60, 3), strict=True):
        deploying = asyncio.ensure_future(make_deployer(monitor=monitor).deploy(request_for(two)))
        await until(partial(is_replaced, name, old))
        deploying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploying
        await until(lambda: state(engine, child)[1])
        assert all(map(is_back, olds, [inspect(name) for name in (vpn, child)]))
        assert has_eth0(engine, child)
        assert namespace(engine, child, "net") == namespace(engine, vpn, "net")
        assert not leftovers(engine)


async def test_a_dependent_that_has_volumes_of_its_target_too_keeps_them_and_their_name(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """A volume that is new with the target's image is seen at the next time.

    The engine looks up whose volumes these are when it creates the container, while the name is still
    that of the old target.
    """
    before = volumes(engine)
    main = make_container(app_image("1", changes=["VOLUME /data"]), "main")
    options = (f"--network=container:{main}", f"--volumes-from={main}:ro", "--env=PORT=8081")
    child = make_container(tool_image, "child", *options)
    engine.inside(main, "sh", "-c", "echo kept > /data/file")
    two = ["VOLUME /data", "VOLUME /newvol"]
    try:
        assert (await deploy(app_image("2", changes=two))).containers == (main, child)
        engine.inside(main, "sh", "-c", "echo new > /newvol/file")
        assert engine.inside(child, "cat", "/data/file") == "kept"
        assert (await deploy(app_image("3", changes=two))).containers == (main, child)
        assert (await deploy(app_image("4", changes=[*two, *BAD]))).outcome is Outcome.ROLLED_BACK
        assert engine.inside(child, "cat", "/data/file", "/newvol/file").split() == ["kept", "new"]
        assert {mount["RW"] for mount in inspect(child)["Mounts"]} == {False}
        assert inspect(child)["HostConfig"]["VolumesFrom"] == [f"{main}:ro"]
        assert inspect(child)["HostConfig"]["NetworkMode"] == f"container:{inspect(main)['Id']}"
    finally:
        engine.docker("rm", "-f", main, child)
        engine.docker("volume", "rm", *(volumes(engine) - before))


async def test_a_dependent_of_the_deployed_image_is_brought_to_it_in_the_same_swap(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one = app_image("1")
    vpn = make_container(one, "z-vpn")
    child = make_container(one, "a-child", f"--network=container:{vpn}", "--env=PORT=8081")
    two, watch = app_image("2"), Watch(engine)
    report = await deploy(two)
    assert (report.outcome, set(report.containers), len(report.containers)) == (
        Outcome.DEPLOYED,
        {vpn, child},
        2,
    )
    assert [inspect(name)["Config"]["Image"] for name in (vpn, child)] == [two, two]
    assert inspect(child)["HostConfig"]["NetworkMode"] == f"container:{inspect(vpn)['Id']}"
    assert served(engine, child, "http://127.0.0.1:8081/") == "2"
    assert has_eth0(engine, child)
    assert [action for action, _ in watch.touches()].count("create") == 2
    assert not leftovers(engine)


async def test_a_dependent_of_the_deployed_image_that_runs_it_already_follows_all_the_same(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    vpn = make_container(app_image("1"), "vpn")
    two = app_image("2")
    child = make_container(two, "child", f"--network=container:{vpn}", "--env=PORT=8081")
    report = await deploy(two)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (vpn, child))
    assert [inspect(name)["Config"]["Image"] for name in (vpn, child)] == [two, two]
    assert has_eth0(engine, child)
    assert (await deploy(two)).outcome is Outcome.UNCHANGED


async def test_only_the_dependent_is_touched_where_only_its_own_image_is_deployed(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    vpn = make_container(tool_image, "vpn")
    child = make_container(app_image("1"), "child", f"--network=container:{vpn}", "--env=PORT=8081")
    before = inspect(vpn)
    report = await deploy(app_image("2"))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (child,))
    assert (inspect(vpn)["Id"], inspect(vpn)["State"]) == (before["Id"], before["State"])
    assert served(engine, vpn, "http://127.0.0.1:8081/") == "2"
    assert has_eth0(engine, child)


async def test_deploys_of_a_container_and_of_its_dependent_at_the_same_time_take_turns(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Whoever comes second finds the other's new container, and not the id that it has looked up before."""
    vpn = make_container(app_image("1"), "vpn")
    own = app_image("1").replace("/api:1", "/child")
    for tag in ("1", "2"):
        make_image(engine, f"{own}:{tag}")
        push(engine, f"{own}:{tag}")
    child = make_container(f"{own}:1", "child", f"--network=container:{vpn}", "--env=PORT=8081")
    images = (app_image("2"), f"{own}:2")
    deployer = make_deployer()
    reports = await asyncio.gather(*(deployer.deploy(request_for(image)) for image in images))
    assert [report.outcome for report in reports] == [Outcome.DEPLOYED] * 2
    assert [inspect(name)["Config"]["Image"] for name in (vpn, child)] == [*images]
    assert inspect(child)["HostConfig"]["NetworkMode"] == f"container:{inspect(vpn)['Id']}"
    assert has_eth0(engine, child)
    assert served(engine, vpn, "http://127.0.0.1:8081/") == "2"
    assert not leftovers(engine)


@pytest.mark.parametrize("starts", [1, 2], ids=["is down", "is watched"])
async def test_a_deploy_of_a_dependent_waits_for_one_of_its_container_while_its_copy(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    starts: int,
) -> None:
    """It is down for a while, or a copy that is not done: neither gone, nor in the hand of another Lookout."""
    vpn = make_container(app_image("1"), "vpn")
    own = app_image("1").replace("/api:1", "/child")
    for tag in ("1", "2"):
        make_image(engine, f"{own}:{tag}")
        push(engine, f"{own}:{tag}")
    child = make_container(f"{own}:1", "child", f"--network=container:{vpn}", "--env=PORT=8081")
    images, deployer = (app_image("2"), f"{own}:2"), make_deployer(monitor=2)
    has_started, start = flag()
    line.meet(r"POST .*/start", start, nth=starts, when="after")

    first = asyncio.create_task(deployer.deploy(request_for(images[0])))
    await asyncio.wait_for(has_started.wait(), 20)
    second = await deployer.deploy(request_for(images[1]))

    assert (await first).containers == (vpn, child)
    assert (second.outcome, second.containers) == (Outcome.DEPLOYED, (child,)), second.reason
    assert [inspect(name)["Config"]["Image"] for name in (vpn, child)] == [*images]
    assert inspect(child)["HostConfig"]["NetworkMode"] == f"container:{inspect(vpn)['Id']}"
    assert served(engine, vpn, "http://127.0.0.1:8081/") == "2"
    assert not leftovers(engine)


# Shared pid and ipc namespaces, and chains


@pytest.mark.newest
async def test_case_39_containers_in_a_pid_or_ipc_namespace_of_a_replaced_one_are_recreated(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    main = make_container(app_image("1"), "m-main", "--ipc=shareable")
    kinds = {"pid": "PidMode", "ipc": "IpcMode"}
    dependents = {kind: make_container(tool_image, kind, f"--{kind}=container:{main}") for kind in kinds}
    names = (main, *sorted(dependents.values()))
    olds = [inspect(name) for name in names]
    report = await deploy(app_image("2"))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, names)
    for kind, name in dependents.items():
        assert inspect(name)["State"]["Running"]
        assert inspect(name)["HostConfig"][kinds[kind]] == f"container:{inspect(main)['Id']}"
        assert namespace(engine, name, kind) == namespace(engine, main, kind)
    assert not any(exists(engine, old["Id"]) for old in olds)

    olds = [inspect(name) for name in names]
    assert (await deploy(app_image("3", changes=BAD))).outcome is Outcome.ROLLED_BACK
    assert all(map(is_back, olds, [inspect(name) for name in names]))
    for kind, name in dependents.items():
        assert namespace(engine, name, kind) == namespace(engine, main, kind)
    assert not leftovers(engine)


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
async def test_case_39_a_chain_of_dependents_follows_link_by_link(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    good: bool,
) -> None:
    """Named against their order, which is that of dependence."""
    main = make_container(app_image("1"), "z-main")
    middle = make_container(tool_image, "y-middle", f"--network=container:{main}", "--env=PORT=8081")
    last = make_container(tool_image, "x-last", f"--pid=container:{middle}")
    names = (main, middle, last)
    olds = [inspect(name) for name in names]
    two, watch = app_image("2", changes=[] if good else BAD), Watch(engine)

    report = await deploy(two)

    if good:
        assert (report.outcome, report.containers) == (Outcome.DEPLOYED, names)
        assert not any(exists(engine, old["Id"]) for old in olds)
        started = [name for action, name in watch.touches() if action == "start"]
        assert started == [*names]
    else:
        assert report.outcome is Outcome.ROLLED_BACK
        assert all(map(is_back, olds, [inspect(name) for name in names]))
    assert inspect(middle)["HostConfig"]["NetworkMode"] == f"container:{inspect(main)['Id']}"
    assert inspect(last)["HostConfig"]["PidMode"] == f"container:{inspect(middle)['Id']}"
    assert has_eth0(engine, middle)
    assert namespace(engine, middle, "net") == namespace(engine, main, "net")
    assert namespace(engine, last, "pid") == namespace(engine, middle, "pid")
    assert not leftovers(engine)


# Dependents that do not run, or are not as they should be


async def test_stopped_dependents_are_recreated_and_not_started_and_can_be(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Else they could never be started again: the engine looks for the id that is gone."""
    vpn = make_container(app_image("1"), "vpn")
    shared = f"--network=container:{vpn}"
    exited = make_container(tool_image, "exited", shared, "--env=PORT=8081", "--volume=/data")
    engine.inside(exited, "sh", "-c", "echo kept > /data/file")
    engine.docker("stop", exited)
    created = f"{vpn}-created"
    label = inspect(vpn)["Config"]["Labels"]["lookout.test"]
    engine.docker("create", f"--name={created}", f"--label=lookout.test={label}", shared, tool_image)
    stopped = (created, exited)
    olds = {name: inspect(name) for name in stopped}

    bad = await deploy(app_image("2", changes=BAD))
    assert bad.outcome is Outcome.ROLLED_BACK
    for name, old in olds.items():
        assert (inspect(name)["Id"], inspect(name)["State"]) == (old["Id"], old["State"])
        assert inspect(name)["HostConfig"] == old["HostConfig"]
    assert not leftovers(engine)

    watch = Watch(engine)
    good = await deploy(app_image("3"))
    assert good.outcome is Outcome.DEPLOYED
    assert good.containers[0] == vpn
    assert set(good.containers[1:]) == {*stopped}
    assert [name for action, name in watch.touches() if action == "start"] == [vpn]
    for name, old in olds.items():
        new = inspect(name)
        assert new["Id"] != old["Id"]
        assert not new["State"]["Running"]
        assert new["HostConfig"]["NetworkMode"] == f"container:{inspect(vpn)['Id']}"
        assert not exists(engine, old["Id"])
    engine.docker("start", exited)
    assert has_eth0(engine, exited)
    assert engine.inside(exited, "cat", "/data/file") == "kept"
    assert not leftovers(engine)


async def test_a_dependent_that_was_no_good_before_is_not_asked_to_be_good_now(
    app_image: AppImage,
    other_image: Callable[..., str],
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    vpn = make_container(app_image("1"), "vpn")
    looping = make_container(
        other_image("1", changes=BAD), "looping", f"--network=container:{vpn}", "--restart=always"
    )
    await until(lambda: inspect(looping)["State"]["Restarting"])
    report = await deploy(app_image("2"))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (vpn, looping))
    assert inspect(looping)["HostConfig"]["NetworkMode"] == f"container:{inspect(vpn)['Id']}"
    assert inspect(looping)["HostConfig"]["RestartPolicy"]["Name"] == "always"
    await until(lambda: inspect(looping)["State"]["Restarting"])


async def test_a_dependent_whose_tag_has_moved_keeps_its_own_image(
    app_image: AppImage,
    other_image: Callable[..., str],
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    connection: Engine,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """A message for one image is no leave to upgrade another, nor to lose what the user has set."""
    vpn = make_container(app_image("1"), "vpn")
    own = other_image("latest", changes=["ENV LEVEL=1", "ENV GONE=1"])
    child = make_container(own, "child", f"--network=container:{vpn}", "--env=PORT=8081")
    before = inspect(child)
    other_image("latest", changes=["ENV LEVEL=2"])
    assert (await deploy(app_image("2"))).containers == (vpn, child)
    after = inspect(child)
    assert after["Id"] != before["Id"]
    assert after["Image"] == before["Image"]
    assert after["Config"]["Env"] == before["Config"]["Env"]
    assert has_eth0(engine, child)
    assert (await deploy(app_image("3"))).containers == (vpn, child)
    assert inspect(child)["Image"] == before["Image"]

    planner, image = make_deployer()._planner, request_for(own).image
    (target,) = await planner.find(image.name)  # a message for its image still finds it
    ((planned,),) = (await planner.plan([target], image, await connection.image(own))).groups
    assert (planned.name, planned.body["Image"]) == (child, own)
    assert "lookout.swap.image" not in planned.body["Labels"]


# Refused


@pytest.mark.parametrize("how", ["network", "link"])
async def test_case_37_38_a_label_refuses_the_deploy_where_dependents_would_be_recreated(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    how: str,
) -> None:
    one = app_image("1")
    main = make_container(one, "main", "--label=lookout.recreate-dependents=false")
    sibling = make_container(one, "a-sibling")
    option = f"--network=container:{main}" if how == "network" else f"--link={main}:db"
    child = make_container(tool_image, "child", option, "--env=PORT=8081")
    names = (main, sibling, child)
    before, two, watch = [inspect(name) for name in names], app_image("2"), Watch(engine)

    report = await deploy(two)

    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert main in report.reason
    assert child in report.reason
    assert "lookout.recreate-dependents" in report.reason
    assert not watch.touches()
    assert [inspect(name)["State"] for name in names] == [old["State"] for old in before]

    engine.docker("rm", "-f", child)
    report = await deploy(two)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (sibling, main))


LEFT_ALONE = {
    "not enabled": ("--label=lookout.enable=false",),
    "paused": (),
    "swarm task": ("--label=com.docker.swarm.task.id=x",),
}


@pytest.mark.parametrize("why", LEFT_ALONE)
async def test_a_dependent_that_must_be_left_alone_refuses_the_deploy(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    why: str,
) -> None:
    vpn = make_container(app_image("1"), "vpn")
    shared = f"--network=container:{vpn}"
    allowed = make_container(tool_image, "allowed", shared, "--env=PORT=8081")
    child = make_container(tool_image, "child", shared, "--env=PORT=8082", *LEFT_ALONE[why])
    two = app_image("2")
    if why == "paused":
        engine.docker("pause", child)
    names = (vpn, allowed, child)
    before, watch = [inspect(name) for name in names], Watch(engine)
    try:
        report = await deploy(two)
        touches, after = watch.touches(), [inspect(name) for name in names]
    finally:
        if why == "paused":
            engine.docker("unpause", child)
    assert report.outcome is Outcome.FAILED
    assert child in report.reason
    assert not touches
    assert [c["State"] for c in after] == [c["State"] for c in before]
    assert not leftovers(engine)


async def test_a_dependent_whose_own_image_is_gone_refuses_the_deploy(
    app_image: AppImage,
    other_image: Callable[..., str],
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    vpn = make_container(app_image("1"), "vpn")
    own = other_image("1", changes=["LABEL only=here"])
    child = make_container(own, "child", f"--network=container:{vpn}", "--env=PORT=8081")
    engine.docker("stop", child)
    engine.docker("rmi", "--force", inspect(child)["Image"])
    engine.docker("start", child)
    two, watch = app_image("2"), Watch(engine)
    report = await deploy(two)
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert child in report.reason
    assert "image" in report.reason
    assert not watch.touches()


async def test_a_dependent_that_cannot_be_made_costs_nothing(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Its place is taken by a container of somebody else's: found before the target is stopped."""
    vpn = make_container(app_image("1"), "vpn")
    child = make_container(tool_image, "child", f"--network=container:{vpn}", "--env=PORT=8081")
    names = (vpn, child)
    before, two = [inspect(name) for name in names], app_image("2")
    taken = f"{child}.lookout-new.{before[1]['Id'][:12]}"
    engine.docker("create", f"--name={taken}", tool_image)
    try:
        report = await deploy(two)
        assert (report.outcome, report.transient) == (Outcome.FAILED, True)
        assert taken in report.reason
        assert [inspect(name)["State"] for name in names] == [old["State"] for old in before]
        assert leftovers(engine) == [taken]
    finally:
        engine.docker("rm", taken)


async def test_what_is_done_with_dependents_is_logged_under_their_names(
    app_image: AppImage, make_container: MakeContainer, tool_image: str, deploy: Deploy, logs: list[EventDict]
) -> None:
    vpn = make_container(app_image("1"), "vpn")
    child = make_container(tool_image, "child", f"--network=container:{vpn}", "--env=PORT=8081")
    assert (await deploy(app_image("2"))).outcome is Outcome.DEPLOYED
    assert [event["container"] for event in said(logs, "replacing")] == [vpn, child]
    assert {event["container"] for event in said(logs, "replaced")} == {vpn, child}
