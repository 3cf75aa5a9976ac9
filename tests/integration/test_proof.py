"""An engine that loses what it was sent: the proof finds every such field, and nothing is stopped for it."""

import copy
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from lookout.deployer import Deployer
from lookout.engine import Engine
from lookout.model import Json, Outcome
from lookout.names import PREFIX
from lookout.proof import compare
from testbed.engine import PrivateEngine
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import clone, leftovers, request_for
from tests.integration.merging import SECOND, V2, Bench, bench_on, without_swap

pytestmark = [pytest.mark.engine, pytest.mark.newest]


@pytest.fixture
async def bench(engine: PrivateEngine, connection: Engine) -> AsyncIterator[Bench]:
    async with bench_on(engine, connection) as bench:
        yield bench


def rich(network: str, volume: str, target: str) -> Json:
    """A request that says something in as many fields as one container can have."""
    return {
        "Hostname": "h1",
        "Domainname": "example.org",
        "User": "root",
        "Env": ["A=1", "LEVEL=warn", "VERSION"],
        "Cmd": ["/app", "mine"],
        "Entrypoint": ["/bin/env"],
        "WorkingDir": "/tmp",
        "StopSignal": "SIGUSR1",
        "StopTimeout": 7,
        "Tty": True,
        "OpenStdin": True,
        "Labels": {"team": "a"},
        "ExposedPorts": {"81/tcp": {}},
        "Volumes": {"/anonymous": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 3 * SECOND, "Retries": 9},
        "HostConfig": {
            "Binds": [f"{volume}:/named:ro", "/etc:/host:ro"],
            "Mounts": [{"Type": "tmpfs", "Target": "/ram", "TmpfsOptions": {"SizeBytes": 65536}}],
            "Tmpfs": {"/t": "size=64k"},
            "NetworkMode": network,
            "PortBindings": {"81/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18099"}]},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
            "CapAdd": ["NET_ADMIN"],
            "CapDrop": ["MKNOD"],
            "Dns": ["10.0.0.1"],
            "DnsOptions": ["ndots:2"],
            "DnsSearch": ["example.org"],
            "ExtraHosts": ["db:10.0.0.2"],
            "GroupAdd": ["1000"],
            "IpcMode": "shareable",
            "PidMode": f"container:{target}",
            "OomScoreAdj": 100,
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges"],
            "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "ShmSize": 1 << 20,
            "Init": True,
            "Memory": 64 << 20,
            "MemoryReservation": 32 << 20,
            "NanoCpus": 500_000_000,
            "PidsLimit": 50,
            "CpuShares": 512,
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}],
            "DeviceCgroupRules": ["c 1:3 r"],
            "Ulimits": [{"Name": "nofile", "Soft": 64, "Hard": 128}],
            "MaskedPaths": [],
            "ReadonlyPaths": ["/proc/mine"],
        },
        "NetworkingConfig": {
            "EndpointsConfig": {
                network: {"Aliases": ["shop"], "IPAMConfig": {"IPv4Address": "10.98.1.7"}, "Links": ["n:m"]}
            }
        },
    }


async def test_whatever_an_engine_would_lose_of_a_request_is_found(bench: Bench) -> None:
    """Each value of the request in turn is left out, or made another, and the rest really created."""
    network, _ = bench.network("--subnet=10.98.1.0/24")
    target = await bench.run()
    old = await bench.create(rich(network, bench.volume(), target))
    planned = await clone(bench.connection, old, V2)
    await bench.connection.remove(planned.id, volumes=True, force=True)
    names = await bench.connection.networks()

    noticed: list[str] = []
    unnoticed: list[str] = []
    for path, broken in losses(planned.request):
        new = await bench.connection.create(bench.name(), broken)
        inspected = await bench.inspect(new)
        found = compare(planned.plan, planned.request, inspected, names)
        await bench.connection.remove(new, volumes=True, force=True)
        if said(inspected) != said(planned.inspect):  # else it is what the engine takes by itself
            (noticed if found.differences else unnoticed).append(path)
    assert len(noticed) > 45
    assert not unnoticed


def said(container: Json) -> Json:
    """What makes it this container rather than another one."""
    networks = container["NetworkSettings"]["Networks"].values()
    return {
        "Config": container["Config"] | {"Labels": without_swap(container["Config"]["Labels"])},
        "HostConfig": container["HostConfig"],
        "Mounts": sorted((mount["Destination"], mount["Type"], mount["RW"]) for mount in container["Mounts"]),
        "Networks": [(network["IPAMConfig"], network["Links"]) for network in networks],
    }


def losses(request: Json) -> Iterator[tuple[str, Json]]:
    """The request without one of its values, for each that says something; with a list, without its last."""
    for path, value in leaves(request):
        broken = copy.deepcopy(request)
        at: Any = broken
        for key in path[:-1]:
            at = at[key]
        if isinstance(value, list) and len(value) > 1:
            at[path[-1]] = value[:-1]
        else:
            del at[path[-1]]
        if path[-1] == "Memory":
            del at["MemorySwap"]  # which the engine refuses alone
        yield ".".join(path), broken


#: Alone they mean nothing to an engine, or it would refuse the rest without them.
NOT_ALONE = {"Image", "Type", "Target", "PathOnHost", "Name", "Soft", "Hard", "Source"}


def leaves(value: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        here = (*path, key)
        if key in NOT_ALONE or key.startswith(PREFIX) or not (inner or key == "MaskedPaths" or inner == {}):
            continue
        if isinstance(inner, dict) and inner and key not in ("IPAMConfig", "RestartPolicy", "LogConfig"):
            yield from leaves(inner, here)
        elif here[0] != "HostConfig" or key != "MemorySwap":  # follows from Memory
            yield here, inner


LOSSES: dict[str, Callable[[Json], object]] = {
    "HostConfig.NanoCpus": lambda body: body["HostConfig"].pop("NanoCpus"),
    "Env": lambda body: body.pop("Env"),
    "the mount at /data": lambda body: body["HostConfig"].pop("Binds"),
    "network bridge": lambda body: body.update(
        NetworkingConfig={}, HostConfig=body["HostConfig"] | {"NetworkMode": "none"}
    ),
    "HostConfig.Privileged": lambda body: body["HostConfig"].update(Privileged=True),
}


@pytest.mark.parametrize("field", LOSSES)
async def test_a_copy_that_is_not_faithful_is_refused_and_nothing_is_stopped(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    field: str,
) -> None:
    one, two = app_image("1"), app_image("2")
    options = ("--env=TOKEN=hunter2", "--cpus=0.5", "--volume=/data", "--restart=always")
    names = [make_container(one, suffix, *options) for suffix in ("a", "b")]
    before = [inspect(name) for name in names]
    volumes = engine.docker("volume", "ls", "-q")
    deployer = make_deployer()
    lose_at_create(deployer, LOSSES[field], at=2)

    report = await deployer.deploy(request_for(two))

    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert field in report.reason
    assert names[1] in report.reason
    assert "hunter2" not in report.reason
    assert [inspect(name) for name in names] == before
    assert engine.docker("volume", "ls", "-q") == volumes
    assert not leftovers(engine)


def lose_at_create(deployer: Deployer, lose: Callable[[Json], object], *, at: int) -> None:
    """From now on the engine gets to see less of the `at`-th create than Lookout asks for."""
    engine = deployer._engine
    create, count = engine.create, iter(range(1, at + 1))

    async def create_less(name: str, body: Json, platform: str = "") -> str:
        body = copy.deepcopy(body)
        if next(count) == at:
            lose(body)
        return await create(name, body, platform)

    deployer._engine = copy.copy(engine)
    deployer._engine.create = create_less  # type: ignore[method-assign]
