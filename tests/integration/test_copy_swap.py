"""The specification's numbered cases of a whole swap: ports, networks, policies, which containers.

The data of a container are in test_copy_data.py, what depends on it in test_copy_dependents.py.
"""

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.engine import Engine
from lookout.errors import EngineError, NotReady
from lookout.model import Json, Outcome
from testbed.engine import PrivateEngine
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.queues import said, until
from tests.integration.watching import Watch, exists, page, served, state

pytestmark = pytest.mark.engine

MakeNetwork = Callable[..., str]


@pytest.fixture(autouse=True)
def make_network(engine: PrivateEngine) -> Iterator[MakeNetwork]:
    """Make a network and return its name: `make_network("a", "--subnet=10.98.1.0/24")`.

    Used by all, so that it is set up before the containers and taken down after them.
    """
    run = secrets.token_hex(4)
    made: list[str] = []

    def make(suffix: str, *arguments: str) -> str:
        made.append(f"lookout-test-{run}-{suffix}")
        engine.docker("network", "create", *arguments, made[-1])
        return made[-1]

    yield make
    for network in made:
        engine.delete(f"/networks/{network}")


def networks_of(container: Json) -> dict[str, Json]:
    return dict(container["NetworkSettings"]["Networks"])


def remarks(logs: list[EventDict]) -> str:
    return "\n".join(event["remark"] for event in said(logs, "remark"))


# Ports and networks


SERVING = (
    'CMD ["sh", "-c", "trap \\"exit 0\\" TERM; '
    'for port in 8080 8081 8082 8083; do httpd -p $port -h /www; done; sleep 9999 & wait"]'
)


@pytest.mark.newest
async def test_case_16_fixed_ports_are_identical_and_chosen_ones_are_bound_again_and_reported(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    name = make_container(
        app_image("1", changes=[SERVING]),
        "api",
        *("--publish=127.0.0.1:18080:8080", "--publish=8081"),
        *("--publish=18091:8082", "--publish=18092:8082", "--publish=19000-19010:8083"),
    )
    old = inspect(name)

    assert (await deploy(app_image("2", changes=[SERVING]))).outcome is Outcome.DEPLOYED

    new = inspect(name)
    assert new["HostConfig"]["PortBindings"] == old["HostConfig"]["PortBindings"]
    before, after = (c["NetworkSettings"]["Ports"] for c in (old, new))
    for fixed in ("8080/tcp", "8082/tcp"):
        assert after[fixed] == before[fixed]
    assert {binding["HostPort"] for binding in after["8082/tcp"]} == {"18091", "18092"}
    assert [binding["HostIp"] for binding in after["8080/tcp"]] == ["127.0.0.1"]
    ephemeral, ranged = (int(after[port][0]["HostPort"]) for port in ("8081/tcp", "8083/tcp"))
    assert ephemeral > 0
    assert 19000 <= ranged <= 19010
    for port in (18080, 18091, 18092, ephemeral, ranged):
        assert page(engine, f"http://127.0.0.1:{port}/") == "2"
    assert "port 8081/tcp is published on a host port that the engine chooses anew" in remarks(logs)
    assert "port 8083/tcp is published on a host port that the engine chooses anew" in remarks(logs)
    assert "8080/tcp" not in remarks(logs)
    assert "8082/tcp" not in remarks(logs)


async def test_case_16_the_log_names_the_host_ports_that_the_engine_has_chosen(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    logs: list[EventDict],
) -> None:
    """The container's users cannot look it up in the command that made it."""
    name = make_container(app_image("1"), "api", "--publish=8080", "--publish=18093:8081")
    assert (await deploy(app_image("2"))).outcome is Outcome.DEPLOYED
    chosen = inspect(name)["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"]
    assert any(chosen in str(event) for event in logs if event.get("container") == name)


# The application writes down which addresses it has when it begins, and serves after that.
LOOKING_FIRST = {"/look": b"#!/bin/sh\nip -o -4 addr > /addresses\nexec /app\n"}


@pytest.mark.newest
async def test_case_22_three_networks_come_along_with_addresses_aliases_and_links_twice(
    app_image: AppImage,
    make_container: MakeContainer,
    make_network: MakeNetwork,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    first = make_network("first", "--subnet=10.98.1.0/24")
    later = make_network("later", "--subnet=10.98.2.0/24")
    plain = make_network("plain", "--subnet=10.98.3.0/24")
    peer = make_container(tool_image, "peer", f"--network={first}")
    image = {"files": LOOKING_FIRST, "changes": ['CMD ["/look"]']}
    name = make_container(
        app_image("1", **image),
        "api",
        *(f"--network={first}", "--ip=10.98.1.7", "--network-alias=shop", "--network-alias=till"),
        f"--link={peer}:store",
    )
    engine.docker("network", "connect", "--ip=10.98.2.7", "--alias=back", later, name)
    engine.docker("network", "connect", plain, name)

    for tag in ("2", "3"):
        old = inspect(name)
        assert (await deploy(app_image(tag, **image))).outcome is Outcome.DEPLOYED

        new = inspect(name)
        assert new["Id"] != old["Id"]
        endpoints = networks_of(new)
        assert set(endpoints) == {first, later, plain}
        assert endpoints[first]["IPAddress"] == "10.98.1.7"
        assert endpoints[later]["IPAddress"] == "10.98.2.7"
        assert {"shop", "till"} <= set(endpoints[first]["Aliases"])
        assert "back" in endpoints[later]["Aliases"]
        assert endpoints[first]["Links"] == [f"{peer}:store"]
        assert not any((endpoints[plain].get("IPAMConfig") or {}).values()), "a chosen address is pinned"
        told = {name for e in endpoints.values() for name in e.get("Aliases") or ()}
        told |= {name for e in endpoints.values() for name in e.get("DNSNames") or ()}
        assert old["Id"][:12] not in told
        assert served(engine, name, "http://store:8080/") == "1"
        for alias in ("shop", "till"):
            assert served(engine, peer, f"http://{alias}:8080/") == tag
        at_start = engine.inside(name, "cat", "/addresses")
        assert all(endpoint["IPAddress"] in at_start for endpoint in endpoints.values())


def api_version(engine: PrivateEngine) -> tuple[int, ...]:
    return tuple(map(int, engine.docker("version", "--format={{.Server.APIVersion}}").split(".")))


def macs_in(engine: PrivateEngine, name: str) -> set[str]:
    return set(engine.inside(name, "sh", "-c", "cat /sys/class/net/eth*/address").split())


@pytest.mark.newest
async def test_case_23_a_configured_mac_of_the_main_network_is_kept(
    app_image: AppImage,
    make_container: MakeContainer,
    make_network: MakeNetwork,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Also where the network was given by its id, if the engine itself heeds the address there.

    Engine 20.10 does not: it takes the id for a network other than the one that it joins.
    """
    mac, other = "02:11:22:33:44:55", "02:11:22:33:44:66"
    by_id = engine.docker("network", "inspect", "--format={{.Id}}", make_network("net"))
    one = app_image("1")
    bridged = make_container(one, "a", f"--mac-address={mac}")
    named = make_container(one, "b", f"--mac-address={other}", f"--network={by_id}", "--network-alias=shop")
    in_use = macs_in(engine, named)
    assert in_use == {other} or api_version(engine) < (1, 44)
    for tag in ("2", "3"):
        assert (await deploy(app_image(tag))).outcome is Outcome.DEPLOYED
        assert networks_of(inspect(bridged))["bridge"]["MacAddress"] == mac
        assert inspect(bridged)["Config"]["MacAddress"] == mac
        assert macs_in(engine, bridged) == {mac}
        assert macs_in(engine, named) == in_use


@pytest.mark.newest
async def test_case_23_a_mac_of_a_further_network_is_kept_whether_configured_or_not(
    app_image: AppImage,
    make_container: MakeContainer,
    make_network: MakeNetwork,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """The engine does not say which of the two it is; and the old container, which has it too, is stopped."""
    if api_version(engine) < (1, 44):
        pytest.skip("this engine gives no further network an address of the user's")
    main, further, chosen = make_network("main"), make_network("further"), make_network("chosen")
    macs = {main: "02:11:22:33:44:55", further: "02:11:22:33:44:66"}
    name = make_container(
        app_image("1"), "api", *(f"--network=name={net},mac-address={mac}" for net, mac in macs.items())
    )
    engine.docker("network", "connect", chosen, name)
    generated = networks_of(inspect(name))[chosen]["MacAddress"]
    derived = generated.startswith("02:42:")  # from its IPv4 address, up to Engine 27
    for tag in ("2", "3"):
        assert (await deploy(app_image(tag))).outcome is Outcome.DEPLOYED
        endpoints = networks_of(inspect(name))
        assert {net: endpoints[net]["MacAddress"] for net in macs} == macs
        assert set(macs.values()) <= macs_in(engine, name)
        assert derived or endpoints[chosen]["MacAddress"] == generated


# Restart policies, and what is bad


BAD = ['CMD ["false"]']
FAILING_WHEN_STOPPED = 'CMD ["sh", "-c", "trap \\"exit 3\\" TERM; sleep 9999 & wait"]'


@pytest.mark.parametrize("restart", ["always", "on-failure:5"])
async def test_case_40_after_a_restart_of_the_engine_only_the_new_container_runs(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    restart: str,
) -> None:
    name = make_container(app_image("1", changes=[FAILING_WHEN_STOPPED]), "api", f"--restart={restart}")
    old = inspect(name)
    assert (await deploy(app_image("2", changes=[FAILING_WHEN_STOPPED]))).outcome is Outcome.DEPLOYED
    assert not exists(engine, old["Id"])
    assert inspect(name)["HostConfig"]["RestartPolicy"] == old["HostConfig"]["RestartPolicy"]

    engine.stop()
    engine.start()

    new = inspect(name)
    running = engine.docker("ps", "--filter=label=lookout.test", "--format={{.Names}}").split()
    assert (running, new["State"]["Running"]) == ([name], True)
    assert new["Id"] != old["Id"]
    assert new["HostConfig"]["RestartPolicy"] == old["HostConfig"]["RestartPolicy"]


@pytest.mark.parametrize("restart", ["always", "on-failure"])
async def test_case_40_an_engine_that_restarts_in_the_middle_does_not_start_the_old_container(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
    restart: str,
) -> None:
    """Nor does anything else that happens between the start of the new one and the end of the swap."""
    go_on = asyncio.Event()

    async def wait(*_: object, **__: object) -> None:
        await go_on.wait()
        raise NotReady("it is no good")

    monkeypatch.setattr("lookout.swap.wait_until_ready", wait)
    name = make_container(app_image("1", changes=[FAILING_WHEN_STOPPED]), "api", f"--restart={restart}")
    old, two = inspect(name), app_image("2")
    deploying = asyncio.ensure_future(deploy(two))
    await until(lambda: state(engine, name)[1] and state(engine, name)[0] != old["Id"])
    middle = inspect(old["Id"])
    assert middle["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert middle["Name"].startswith(f"/{name}.lookout-old.")
    kept = inspect(name)["Config"]["Labels"]["lookout.swap.restart"]
    assert json.loads(kept) == old["HostConfig"]["RestartPolicy"], "for whoever has to bring it back"

    engine.stop()
    engine.start()

    after = inspect(old["Id"])
    assert not after["State"]["Running"]
    assert after["State"]["StartedAt"] == middle["State"]["StartedAt"]
    go_on.set()
    await deploying
    back = inspect(name)
    assert (back["Id"], back["HostConfig"]) == (old["Id"], old["HostConfig"])
    assert back["State"]["Running"]
    assert not leftovers(engine)


async def test_case_42_a_bad_image_ends_with_the_old_container_as_it_was(
    app_image: AppImage,
    make_container: MakeContainer,
    make_network: MakeNetwork,
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    network, second = make_network("net", "--subnet=10.98.4.0/24"), make_network("second")
    bad = app_image("bad", changes=['CMD ["sh", "-c", "echo no such database; exit 3"]', "VOLUME /fresh"])
    peer = make_container(tool_image, "peer", f"--network={network}")
    name = make_container(
        app_image("1"),
        "api",
        *("--restart=always", "--publish=18094:8080", "--volume=/data", "--env=LEVEL=mine"),
        *(f"--network={network}", "--ip=10.98.4.7", "--network-alias=shop"),
    )
    engine.docker("network", "connect", second, name)
    engine.inside(name, "sh", "-c", "echo kept > /data/file; echo layer > /own")
    old = inspect(name)

    report = await deploy(bad)

    assert (report.outcome, report.transient) == (Outcome.ROLLED_BACK, False)
    assert name in report.reason
    assert "code 3" in report.reason or "restarted" in report.reason
    tails = [
        event.get("log_tail_of_the_new", "")
        for event in said(logs, "the swap failed; bringing the old container back")
    ]
    assert ["no such database" in tail for tail in tails] == [True]
    back = inspect(name)
    assert back["State"]["Running"]
    for key in ("Id", "Name", "Config", "HostConfig", "Image"):
        assert back[key] == old[key]
    assert set(networks_of(back)) == {network, second}
    assert networks_of(back)[network]["IPAddress"] == "10.98.4.7"
    assert networks_of(back)[network]["Aliases"] == networks_of(old)[network]["Aliases"]
    assert back["NetworkSettings"]["Ports"] == old["NetworkSettings"]["Ports"]
    assert engine.inside(name, "cat", "/data/file", "/own").split() == ["kept", "layer"]
    assert page(engine, "http://127.0.0.1:18094/") == "1"
    assert served(engine, peer, "http://shop:8080/") == "1"
    assert not leftovers(engine)
    assert not engine.docker("ps", "-aq", f"--filter=ancestor={bad}")


async def test_case_46_a_crash_looping_container_is_replaced(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1", changes=BAD), "api", "--restart=always")
    old = inspect(name)
    await until(lambda: inspect(name)["State"]["Restarting"])
    report = await deploy(app_image("2"))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    new = inspect(name)
    assert (new["State"]["Status"], new["RestartCount"]) == ("running", 0)
    assert new["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert not exists(engine, old["Id"])
    assert not leftovers(engine)


async def test_case_46_a_crash_looping_container_loops_on_if_the_new_image_is_bad_too(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1", changes=BAD), "api", "--restart=always")
    old = inspect(name)
    await until(lambda: inspect(name)["State"]["Restarting"])
    report = await deploy(app_image("2", changes=BAD))
    assert report.outcome is Outcome.ROLLED_BACK
    assert (inspect(name)["Id"], inspect(name)["HostConfig"]) == (old["Id"], old["HostConfig"])
    await until(lambda: inspect(name)["State"]["Restarting"])
    assert not leftovers(engine)


def refusing_update(
    connection: Engine, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[Json, Json], bool]
) -> None:
    """An engine that refuses to set a policy when `refuses` says so, of the container and the policy.

    All engines do so by chance, about one time in seven, while a container crashes again and again: when
    it has just exited, and the engine has not seen it yet.
    """
    update = connection.set_restart_policy

    async def refused(container: str, policy: Json) -> None:
        if refuses(await connection.container(container), policy):
            raise EngineError(f"update {container}", 500, "cannot update a stopped container: unknown")
        await update(container, policy)

    monkeypatch.setattr(connection, "set_restart_policy", refused)


async def test_case_46_a_crash_looping_container_is_replaced_at_whatever_moment_it_is_met(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    connection: Engine,
    inspect: Inspect,
    engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once it is stopped, no engine refuses."""
    name = make_container(app_image("1", changes=BAD), "api", "--restart=always")
    await until(lambda: inspect(name)["State"]["Restarting"])
    refusing_update(connection, monkeypatch, lambda container, _: bool(container["State"]["Running"]))
    report = await deploy(app_image("2"))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    assert inspect(name)["State"]["Status"] == "running"
    assert inspect(name)["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert not leftovers(engine)


async def test_case_46_a_crash_looping_container_has_its_policy_again_after_a_rollback_in_a_hurry(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    connection: Engine,
    inspect: Inspect,
    engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine may refuse to set its policy for a moment, if it is in the middle of a crash."""
    name = make_container(app_image("1", changes=BAD), "api", "--restart=always")
    old, two = inspect(name), app_image("2")
    await until(lambda: inspect(name)["State"]["Restarting"])
    refused: list[Json] = []

    def once(container: Json, policy: Json) -> bool:
        if policy["Name"] != "always" or refused or not container["State"]["Running"]:
            return False
        refused.append(container)
        return True

    refusing_update(connection, monkeypatch, once)
    deploying = asyncio.ensure_future(make_deployer(monitor=60).deploy(request_for(two)))
    await until(lambda: state(engine, name)[1] and state(engine, name)[0] != old["Id"])
    deploying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deploying
    assert (inspect(name)["Id"], inspect(name)["HostConfig"]) == (old["Id"], old["HostConfig"])
    await until(lambda: inspect(name)["State"]["Restarting"])
    assert not leftovers(engine)


async def test_case_46_a_paused_container_is_skipped_with_the_reason_and_its_sibling_is_not(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    one = app_image("1")
    paused, sibling = make_container(one, "paused"), make_container(one, "sibling")
    engine.docker("pause", paused)
    before = inspect(paused)
    try:
        both = await deploy(app_image("2"))
        engine.docker("rm", "-f", sibling)
        watch = Watch(engine)
        alone = await deploy(app_image("3"))
        assert (both.outcome, both.containers) == (Outcome.DEPLOYED, (sibling,))
        assert {"container": paused, "reason": "is paused"}.items() <= said(logs, "container left alone")[
            0
        ].items()
        assert alone.outcome is Outcome.IGNORED
        assert f"{paused} is paused" in alone.reason
        assert not watch.touches()
        assert (inspect(paused)["Id"], inspect(paused)["State"]) == (before["Id"], before["State"])
    finally:
        engine.docker("unpause", paused)


# Which containers a message means


async def test_case_47_a_container_whose_tag_has_moved_is_found_and_loses_its_own_images_defaults(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    moved = app_image("latest", changes=["ENV LEVEL=1", "ENV GONE=1", "LABEL made=1", "WORKDIR /www"])
    name = make_container(moved, "api", "--env=MINE=1")
    app_image("latest", changes=["ENV LEVEL=2", "ENV LATER=2", "LABEL made=2", "WORKDIR /etc"])
    listed = engine.docker("ps", f"--filter=name={name}", "--format={{.Image}}")
    assert moved not in listed, "the list shows an id now"
    old = inspect(name)
    assert old["Image"] != engine.docker("image", "inspect", "--format={{.Id}}", moved)

    report = await deploy(moved)

    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    config = inspect(name)["Config"]
    assert config["Image"] == moved
    assert config["Env"][0] == "MINE=1"
    assert {"LEVEL=2", "LATER=2"} <= set(config["Env"])
    assert not {"LEVEL=1", "GONE=1"} & set(config["Env"])
    assert config["Labels"]["made"] == "2"
    assert config["WorkingDir"] == "/etc"


async def test_case_48_a_container_made_by_an_image_id_is_replaced_if_that_has_one_repository(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one = app_image("1")
    whole = engine.docker("image", "inspect", "--format={{.Id}}", one)
    short = whole.removeprefix("sha256:")[:12]
    names = tuple(make_container(image, suffix) for image, suffix in ((whole, "a"), (short, "b")))
    assert [inspect(name)["Config"]["Image"] for name in names] == [whole, short]
    two = app_image("2")
    report = await deploy(two)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, names)
    assert [inspect(name)["Config"]["Image"] for name in names] == [two, two]


async def test_case_48_a_container_made_by_an_image_id_of_two_repositories_is_skipped_and_the_log_says_so(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    """The container could be either's."""
    one = app_image("1")
    whole = engine.docker("image", "inspect", "--format={{.Id}}", one)
    other = f"lookout-test-{secrets.token_hex(4)}/other:1"
    engine.docker("tag", one, other)
    name = make_container(whole, "api")
    before, two, watch = inspect(name), app_image("2"), Watch(engine)
    report = await deploy(two)
    assert report.outcome is Outcome.IGNORED
    assert name in report.reason
    assert other.removesuffix(":1") in report.reason
    assert inspect(name)["State"] == before["State"]
    assert not watch.touches()

    sibling = make_container(one, "sibling")
    report = await deploy(two)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (sibling,))
    assert [event["container"] for event in said(logs, "container left alone")] == [name]
    assert inspect(name)["State"] == before["State"]


async def test_case_48_a_container_made_by_a_digest_gets_the_tag_in_its_place(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    by_digest = engine.docker("image", "inspect", "--format={{index .RepoDigests 0}}", app_image("1"))
    assert "@sha256:" in by_digest
    name = make_container(by_digest, "api")
    two = app_image("2")
    report = await deploy(two)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    assert inspect(name)["Config"]["Image"] == two


@pytest.mark.parametrize("label", ["com.docker.swarm.task.id", "com.docker.swarm.service.id"])
async def test_case_49_a_swarm_task_is_skipped_and_logged(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
    label: str,
) -> None:
    one = app_image("1")
    task, other = make_container(one, "task", f"--label={label}=x"), make_container(one, "other")
    before, two = inspect(task), app_image("2")
    report = await deploy(two)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (other,))
    assert (inspect(task)["Id"], inspect(task)["State"]) == (before["Id"], before["State"])
    left = said(logs, "container left alone")
    assert [(event["container"], event["reason"]) for event in left] == [(task, "is a Swarm task")]
    engine.docker("rm", "-f", other)
    watch = Watch(engine)
    report = await deploy(two)
    assert report.outcome is Outcome.IGNORED
    assert f"{task} is a Swarm task" in report.reason
    assert not watch.touches()


# The stop


# Writes down when it is asked to stop, and by what, and that it lives, into a volume that its
# successor has too. It does not end by itself.
STUBBORN = (
    'CMD ["sh", "-c", "trap \\"date +%s >> /data/usr1\\" USR1; trap \\"date +%s >> /data/term\\" TERM; '
    'while true; do date +%s > /data/alive; sleep 0.2; done"]'
)
STOP_TIMEOUT = 13  # seconds; the engine's own default is 10


@pytest.mark.timeout(90)
async def test_case_51_a_stop_takes_as_long_as_the_container_says_and_no_call_times_out(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lookout.engine_api.QUICK", 8.0)
    monkeypatch.setattr("lookout.engine.STOP_MARGIN", 2.5)
    name = make_container(
        app_image("1", changes=[STUBBORN]),
        "api",
        *("--stop-signal=USR1", f"--stop-timeout={STOP_TIMEOUT}", "--volume=/data"),
    )
    old, two = inspect(name)["Id"], app_image("2")

    report = await deploy(two)

    assert report.outcome is Outcome.DEPLOYED
    assert not said(logs, "the engine is away"), "a call has timed out"
    told, alive = (
        list(map(int, engine.inside(name, "cat", f"/data/{what}").split())) for what in ("usr1", "alive")
    )
    assert len(told) == 1, "it was asked once, by its own signal"
    assert "term" not in engine.inside(name, "ls", "/data").split()
    assert alive[0] - told[0] >= STOP_TIMEOUT - 1
    new = inspect(name)
    assert new["Id"] != old
    assert (new["Config"]["StopSignal"], new["Config"]["StopTimeout"]) == ("USR1", STOP_TIMEOUT)


# Two swaps at once


async def test_case_52_two_deploys_of_one_lookout_take_turns(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """At no moment are there two new containers, or two that run."""
    name = make_container(app_image("1"), "api")
    images = [app_image(tag) for tag in ("2", "3", "4")]
    deployer, watch = make_deployer(), Watch(engine)
    reports = await asyncio.gather(*(deployer.deploy(request_for(image)) for image in images))
    assert [report.outcome for report in reports] == [Outcome.DEPLOYED] * 3
    assert inspect(name)["State"]["Running"]
    assert inspect(name)["Config"]["Image"] in images
    assert not leftovers(engine)
    counted = [event["Action"] for event in watch.events("container")]
    assert [a for a in counted if a in ("create", "destroy")] == ["create", "destroy"] * 3
    assert [a for a in counted if a in ("start", "die")] == ["die", "start"] * 3


async def test_case_52_a_second_lookout_leaves_the_first_in_peace_and_tries_again_later(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    make_deployer: MakeDeployer,
    connection: Engine,
    inspect: Inspect,
    engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Held between the create of the new container and the stop of the old one."""
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, three = inspect(name), app_image("2"), app_image("3")
    alive = make_container(tool_image, "lookout")
    arrived, go_on, stop = asyncio.Event(), asyncio.Event(), connection.stop

    async def wait_and_stop(*arguments: Any, **more: Any) -> None:
        arrived.set()
        await go_on.wait()
        await stop(*arguments, **more)

    monkeypatch.setattr(connection, "stop", wait_and_stop)
    first = asyncio.create_task(make_deployer(own_id=inspect(alive)["Id"]).deploy(request_for(two)))
    await arrived.wait()
    new = f"{name}.lookout-new.{old['Id'][:12]}"
    made, watch = inspect(new)["Id"], Watch(engine)

    second = await make_deployer(own_id="b" * 64).deploy(request_for(three))

    assert (second.outcome, second.transient) == (Outcome.FAILED, True)
    assert "another Lookout" in second.reason
    assert inspect(new)["Id"] == made
    assert not watch.touches()
    go_on.set()
    assert (await first).outcome is Outcome.DEPLOYED
    assert inspect(name)["Id"] == made
    assert not leftovers(engine)
    again = await make_deployer(own_id="b" * 64).deploy(request_for(three))
    assert again.outcome is Outcome.DEPLOYED
    assert inspect(name)["Config"]["Image"] == three


async def test_case_52_a_second_lookout_waits_also_while_the_first_watches_its_new_container(
    app_image: AppImage,
    make_container: MakeContainer,
    tool_image: str,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new container has the name by then, and only the stopped old one tells of the swap."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait(*_: object, **__: object) -> None:
        if not arrived.is_set():
            arrived.set()
            await go_on.wait()

    monkeypatch.setattr("lookout.swap.wait_until_ready", wait)
    name = make_container(app_image("1"), "api")
    two, three = app_image("2"), app_image("3")
    alive = make_container(tool_image, "lookout")
    first = asyncio.create_task(make_deployer(own_id=inspect(alive)["Id"]).deploy(request_for(two)))
    await arrived.wait()
    made, watch = inspect(name)["Id"], Watch(engine)

    second = await make_deployer(own_id="b" * 64).deploy(request_for(three))
    touches = watch.touches()
    go_on.set()

    assert (second.outcome, second.transient) == (Outcome.FAILED, True)
    assert not touches
    assert (await first).outcome is Outcome.DEPLOYED
    assert inspect(name)["Id"] == made
    assert not leftovers(engine)


# What is refused


async def test_case_53_a_container_whose_old_image_is_gone_is_refused_before_any_side_effect(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """An engine gives away the image of a container that is stopped, and starts the container all the same."""
    one, two = app_image("1"), app_image("2")
    name, healthy = make_container(one, "api", "--restart=always"), make_container(two, "healthy")
    engine.docker("stop", name)
    engine.docker("rmi", "--force", inspect(name)["Image"])
    engine.docker("start", name)
    before, watch = inspect(name), Watch(engine)

    report = await deploy(two)

    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert name in report.reason
    assert "image" in report.reason
    assert not watch.touches()
    after = inspect(name)
    for key in ("Id", "Name", "Config", "HostConfig", "State"):
        assert after[key] == before[key]
    assert not leftovers(engine)
    assert inspect(healthy)["State"]["Running"]
