"""Containers that an older engine has created are deployed on a newer one that runs on its data.

What the two engines fill in by themselves differs. None of that may be taken for a setting, nor may
it refuse a deploy.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from structlog.typing import EventDict

from lookout.engine import Engine
from lookout.model import Json, Outcome
from lookout.surroundings import is_short_id
from testbed.engine import PrivateEngine
from testbed.images import make_image, push
from testbed.registry import Registry
from tests.integration.conftest import Deploy, Inspect, MakeDeployer
from tests.integration.deploys import clone, leftovers, request_for
from tests.integration.hosts import FLAGS, FLAVOURS, NEWEST, needed
from tests.integration.queues import said
from tests.integration.watching import page

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

PREFIX = "lookout-test-upgrade"
ONE, TWO = f"{PREFIX}-one", f"{PREFIX}-two"
CHANGES = (
    *("VOLUME /data", "EXPOSE 8080 9000/udp", "LABEL role=one", "ENV COLOUR={colour} LEVEL=info"),
    "HEALTHCHECK --interval=1s --retries=5 CMD true",
)

#: A volume with options of its driver's.
DRIVEN = "volume-label=a=b,volume-opt=type=none,volume-opt=o=bind,volume-opt=device={folder}"

#: The options of the containers, in the order in which they are created. `{folder}` is one of the machine.
CONTAINERS: dict[str, Sequence[str]] = {
    "plain": (),
    "ports": (
        *("--publish=127.0.0.1:18190:8080", "--publish=18191:8080", "--publish=18192:9000/udp"),
        *("--publish=8080", "--publish=19100-19110:8080", "--restart=always"),
        *("--log-opt=max-size=1m", "--log-opt=max-file=2", "--log-opt=labels=role"),
    ),
    "names": (
        *("--hostname=h1", "--domainname=example.org", "--add-host=a:10.0.0.1", "--dns=10.1.1.1"),
        *("--add-host=gate:host-gateway", "--dns-search=example.org", "--dns-option=ndots:2"),
        *("--publish-all", "--log-driver=local"),
    ),
    "mounts": (
        *(f"--volume={PREFIX}-named:/named", "--volume=/anonymous", "--volume=/slash/"),
        *(
            "--volume={folder}:/bound",
            "--volume={folder}:/bound-ro:ro",
            "--mount=type=volume,target=/unnamed",
        ),
        f"--mount=type=volume,source={PREFIX}-other,target=/other,volume-nocopy",
        f"--mount=type=volume,source={PREFIX}-driven,target=/driven,{DRIVEN}",
        "--mount=type=bind,source={folder},target=/bound-two,bind-propagation=private,bind-nonrecursive",
        "--restart=unless-stopped",
    ),
    "borrower": (f"--volumes-from={PREFIX}-mounts:ro", "--log-driver=none"),
    "networks": (
        *(f"--network={ONE}", "--ip=10.98.1.7", "--network-alias=shop", "--network-alias=store"),
        *("--mac-address=02:42:0a:62:01:63", "--restart=on-failure:3"),
    ),
    "friend": (
        *(f"--network={ONE}", f"--link={PREFIX}-networks:friend", "--env=LEVEL=mine", "--env=EMPTY="),
        *("--user=root", "--workdir=/tmp", "--label=role=mine", "--entrypoint=/app"),
    ),
    "linked": (f"--link={PREFIX}-plain:db",),
    "joined": (f"--network=container:{PREFIX}-ports", "--env=PORT=18181"),
    "host": (
        *("--network=host", "--env=PORT=18180", "--pid=host", "--ipc=host", "--uts=host"),
        "--cgroupns=host",
    ),
    "none": ("--network=none", "--security-opt=systempaths=unconfined", "--ipc=shareable", "--shm-size=16m"),
    "process": (
        *("--ulimit=nofile=1000:2000", "--sysctl=net.core.somaxconn=200", "--init", "--interactive"),
        *("--tty", "--stop-signal=SIGINT", "--stop-timeout=3", "--device=/dev/null:/dev/nothing:r"),
        *("--device-cgroup-rule=c 1:3 rw", "--tmpfs=/scratch:size=8m,mode=1777"),
        "--mount=type=tmpfs,target=/scratch-two,tmpfs-size=8m,tmpfs-mode=1770",
    ),
    "limits": (
        *("--memory=64m", "--memory-swap=128m", "--memory-reservation=32m", "--memory-swappiness=10"),
        *("--cpus=0.5", "--cpu-shares=512", "--cpuset-cpus=0", "--pids-limit=100"),
        *("--oom-score-adj=100", "--oom-kill-disable", "--health-cmd=true", "--health-start-period=3s"),
    ),
    "older-limits": (
        *("--kernel-memory=64m", "--cpu-period=50000", "--cpu-quota=25000", "--runtime=runc"),
        *(f"--cgroup-parent=/{PREFIX}", "--no-healthcheck"),
    ),
    "security": (
        *("--cap-add=SYS_PTRACE", "--cap-drop=NET_RAW", "--security-opt=seccomp=unconfined"),
        *("--security-opt=no-new-privileges", "--group-add=1000", "--userns=host", "--read-only"),
    ),
}
#: These are created, but cannot be started on every machine.
ONLY_CREATED: dict[str, Sequence[str]] = {
    "privileged": ("--privileged",),
    "gpus": ("--gpus=all",),
    "throttled": ("--device-read-bps=/dev/null:1mb", "--blkio-weight-device=/dev/null:100"),
}
#: Of HostConfig: what is the engine's own default or obsolete, and what `Mounts` tells better.
ENGINES_OR_MOUNTS = {
    *("MaskedPaths", "ReadonlyPaths", "KernelMemory", "KernelMemoryTCP"),
    *("Binds", "Mounts", "VolumesFrom"),
}
IMAGES_OR_OWN = {"Image", "Volumes"}


@pytest.fixture
def engine() -> Iterator[PrivateEngine]:
    """The oldest engine; it is this test's own, for it will be upgraded.

    After that it refuses what the older one spoke, as Engine 29 does.
    """
    with needed():
        engine = PrivateEngine("bookworm", FLAGS, FLAVOURS["forky-containerd"].environment)
        engine.start()
    yield engine
    engine.close()


@pytest.fixture
def registry(engine: PrivateEngine) -> Iterator[Registry]:
    """A registry that outlives the upgrade."""
    with Registry(engine.sandbox, 5000) as registry:
        yield registry


def named(suffix: str) -> str:
    return f"{PREFIX}-{suffix}"


def make_images(engine: PrivateEngine, registry: Registry, suffixes: Iterable[str]) -> dict[str, str]:
    """The repository of each container: tag 1 is on the engine, tag 2 in the registry."""
    repositories = {suffix: f"{registry.host}/upgrade/{suffix}" for suffix in suffixes}
    for tag, colour in (("1", "red"), ("2", "blue")):
        make_image(engine, f"base:{tag}", changes=[change.format(colour=colour) for change in CHANGES])
        for repository in repositories.values():
            engine.tag(f"base:{tag}", f"{repository}:{tag}")
    for repository in repositories.values():
        push(engine, f"{repository}:2")
        engine.delete(f"/images/{repository}:2")
    return repositories


def writable(container: Json) -> list[str]:
    """Where it keeps data of its own."""
    return [mount["Destination"] for mount in container["Mounts"] if mount["RW"] and mount["Type"] != "tmpfs"]


def kept(container: Json) -> dict[str, Json]:
    """All that a deploy must keep, without what tells one container from its copy."""
    config, host = container["Config"], container["HostConfig"]
    hostname, mode = config["Hostname"], host["NetworkMode"]
    assigned = (container["Id"][:12], hostname)
    return {
        "Config": {field: value for field, value in config.items() if field not in IMAGES_OR_OWN}
        | {
            "Env": [entry for entry in config["Env"] if not entry.startswith("COLOUR=")],
            "Labels": {key: word for key, word in config["Labels"].items() if not key.startswith("lookout.")},
            # Of one that shares another's network it is the other's, which was replaced as well.
            "Hostname": "" if is_short_id(hostname) else hostname,
        },
        "HostConfig": {field: value for field, value in host.items() if field not in ENGINES_OR_MOUNTS}
        | {"NetworkMode": "bridge" if mode == "default" else mode.partition(":")[0]},
        "Mounts": {
            mount["Destination"].rstrip("/"): [
                mount.get(field) for field in ("Type", "Name", "Source", "RW", "Propagation")
            ]
            for mount in container["Mounts"]
        },
        "Networks": {
            name: {
                "IPAMConfig": endpoint["IPAMConfig"],
                "Links": endpoint["Links"],
                "Aliases": sorted(set(endpoint["Aliases"] or ()).difference(assigned)),
            }
            for name, endpoint in container["NetworkSettings"]["Networks"].items()
        },
    }


def differences(old: Json, new: Json) -> dict[str, tuple[object, object]]:
    """What was not kept: the old value and the new one, by field."""
    groups, afterwards = kept(old), kept(new)
    return {
        f"{group} {field}": (groups[group].get(field), afterwards[group].get(field))
        for group in groups
        for field in groups[group].keys() | afterwards[group].keys()
        if (groups[group].get(field) or None) != (afterwards[group].get(field) or None)
    }


async def test_what_an_older_engine_created_is_deployed_after_its_upgrade(
    engine: PrivateEngine,
    registry: Registry,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    logs: list[EventDict],
    tmp_path: Path,
) -> None:
    repositories = make_images(engine, registry, CONTAINERS)
    for network, subnet in ((ONE, "10.98.1.0/24"), (TWO, "10.98.2.0/24")):
        engine.docker("network", "create", f"--subnet={subnet}", network)
    for suffix, options in CONTAINERS.items():
        words = [word.format(folder=tmp_path) for word in options]
        engine.docker("run", "-d", f"--name={named(suffix)}", *words, f"{repositories[suffix]}:1")
    engine.docker("network", "connect", "--ip=10.98.2.9", "--alias=second", TWO, named("networks"))
    old = {suffix: inspect(named(suffix)) for suffix in CONTAINERS}
    for suffix, container in old.items():
        for folder in writable(container):
            engine.inside(named(suffix), "sh", "-c", f"echo kept > {folder}/{suffix}")

    engine.stop()
    engine.start(NEWEST.suite)
    for suffix in CONTAINERS:
        engine.docker("start", named(suffix))

    deployer = make_deployer(deploy_time=60)
    reports = await asyncio.gather(
        *(deployer.deploy(request_for(f"{repository}:2")) for repository in repositories.values())
    )

    outcomes = dict(zip(CONTAINERS, reports, strict=True))
    assert {s: report for s, report in outcomes.items() if report.outcome is not Outcome.DEPLOYED} == {}
    new = {suffix: inspect(named(suffix)) for suffix in CONTAINERS}
    found = {suffix: differences(old[suffix], new[suffix]) for suffix in CONTAINERS}
    assert {suffix: difference for suffix, difference in found.items() if difference} == {}
    for suffix, container in new.items():
        assert "COLOUR=blue" in container["Config"]["Env"], suffix
        for folder in writable(container):
            assert engine.inside(named(suffix), "cat", f"{folder}/{suffix}") == "kept"
    assert not leftovers(engine)

    addresses = new["networks"]["NetworkSettings"]["Networks"]
    assert (addresses[ONE]["IPAddress"], addresses[TWO]["IPAddress"]) == ("10.98.1.7", "10.98.2.9")
    assert addresses[ONE]["MacAddress"] == "02:42:0a:62:01:63"
    ports = new["ports"]["NetworkSettings"]["Ports"]
    assert [page(engine, f"http://127.0.0.1:{port}/") for port in (18190, 18191)] == ["2", "2"]
    assert ports["9000/udp"] == old["ports"]["NetworkSettings"]["Ports"]["9000/udp"]
    assert new["joined"]["HostConfig"]["NetworkMode"] == f"container:{new['ports']['Id']}"

    remarks = [event["remark"] for event in said(logs, "remark") if event["container"] == named("plain")]
    assert any(remark.startswith("HostConfig.MaskedPaths is the engine's") for remark in remarks)
    fresh = inspect(engine.docker("create", "base:2"))["HostConfig"]
    for field in ("MaskedPaths", "ReadonlyPaths"):
        assert new["plain"]["HostConfig"][field] == fresh[field]
        assert new["none"]["HostConfig"][field] == []


async def test_what_cannot_run_here_is_copied_all_the_same(
    engine: PrivateEngine, registry: Registry, connection: Engine, inspect: Inspect
) -> None:
    make_images(engine, registry, ())
    for suffix, options in ONLY_CREATED.items():
        engine.docker("create", f"--name={named(suffix)}", *options, "base:1")
    old = {suffix: inspect(named(suffix)) for suffix in ONLY_CREATED}

    engine.stop()
    engine.start(NEWEST.suite)

    copies = {suffix: await clone(connection, named(suffix), "base:2") for suffix in ONLY_CREATED}
    found = {suffix: differences(old[suffix], inspect(copies[suffix].id)) for suffix in ONLY_CREATED}
    assert {suffix: difference for suffix, difference in found.items() if difference} == {}
    assert inspect(copies["privileged"].id)["HostConfig"]["MaskedPaths"] is None


async def test_a_lookout_that_was_idle_while_the_engine_was_upgraded_speaks_the_newer_ones_api(
    engine: PrivateEngine, registry: Registry, connection: Engine, deploy: Deploy
) -> None:
    image = make_images(engine, registry, ["api"])["api"]
    engine.docker("run", "-d", f"--name={named('api')}", "--restart=always", f"{image}:1")
    assert await connection.api() == (1, 41)

    engine.stop()
    engine.start(NEWEST.suite)

    report = await deploy(f"{image}:2")
    assert (report.outcome, report.reason) == (Outcome.DEPLOYED, "")
    assert await connection.api() == (1, 51)
