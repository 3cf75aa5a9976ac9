"""How a copy is bound to the host: options, namespaces, networks and mounts; cases 20, 21, 25 to 27, 31, 33, 35.

The numbers are those of the table of cases in the specification of the copy.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lookout.engine import Engine
from lookout.errors import CopyRefused
from lookout.model import Json
from testbed.engine import DockerFailed, PrivateEngine
from tests.integration.merging import SECOND, V1, V2, Bench, bench_on

pytestmark = pytest.mark.engine

MIB = 1 << 20
# From this API on an endpoint has its own MAC address, and create takes several networks.
ENDPOINT_MAC = (1, 44)


@pytest.fixture
async def bench(engine: PrivateEngine, connection: Engine) -> AsyncIterator[Bench]:
    async with bench_on(engine, connection) as bench:
        yield bench


# Namespaces of the host and of other containers


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"NetworkMode": "host"}, id="case_20-network"),
        pytest.param({"UTSMode": "host"}, id="case_20_b-uts"),
        pytest.param({"NetworkMode": "host", "UTSMode": "host"}, id="case_20_c-network_and_uts"),
    ],
)
async def test_a_container_with_the_hosts_own_name_is_copied_without_a_hostname(
    bench: Bench, said: Json
) -> None:
    old = await bench.run({"HostConfig": said})
    machine = (await bench.connection.info())["Name"]
    assert bench.execute(old, "hostname") == machine
    copy = await bench.clone(old)
    assert "Hostname" not in copy.request
    assert copy.inspect["HostConfig"].items() >= said.items()
    await bench.swap(old, copy.id)
    assert bench.execute(copy.id, "hostname") == machine


async def test_case_20_d_a_hostname_of_the_users_own_stays_on_the_hosts_network(bench: Bench) -> None:
    old = await bench.run({"Hostname": "custom", "HostConfig": {"NetworkMode": "host"}})
    copy = await bench.clone(old)
    assert copy.request["Hostname"] == "custom"
    assert "NetworkingConfig" not in copy.request
    new = await bench.swap(old, copy.id)
    assert new["Config"]["Hostname"] == "custom"
    assert set(new["NetworkSettings"]["Networks"]) == {"host"}
    assert bench.execute(copy.id, "hostname") == "custom"


async def test_case_20_e_a_container_on_no_network_gets_none(bench: Bench) -> None:
    old = await bench.run({"HostConfig": {"NetworkMode": "none"}})
    copy = await bench.clone(old)
    assert "NetworkingConfig" not in copy.request
    assert set((await bench.swap(old, copy.id))["NetworkSettings"]["Networks"]) == {"none"}


async def test_case_21_a_container_on_anothers_network_stays_on_it(bench: Bench) -> None:
    target = await bench.run({"Hostname": "owner", "Domainname": "ex.org"})
    old = await bench.run(_guest(target))
    shown = (await bench.inspect(old))["Config"]
    # These are the target's, or the old image's, and the engine refuses to be given them:
    assert (shown["Hostname"], shown["Domainname"]) == ("owner", "ex.org")
    assert shown["ExposedPorts"] == bench.one["ExposedPorts"]

    copy = await bench.clone(old)
    refused = {"Hostname", "Domainname", "ExposedPorts", "MacAddress", "NetworkingConfig"}
    assert not copy.request.keys() & refused
    assert copy.inspect["HostConfig"]["NetworkMode"] == f"container:{target}"
    await bench.swap(old, copy.id)
    assert _namespace(bench, copy.id, "net") == _namespace(bench, target, "net")


async def test_case_21_b_a_container_on_the_network_of_one_that_was_replaced_moves_to_its_successor(
    bench: Bench,
) -> None:
    target, successor = await bench.run(), await bench.run()
    old = await bench.run(_guest(target))
    copy = await bench.clone(old, successors={target: successor})
    assert copy.inspect["HostConfig"]["NetworkMode"] == f"container:{successor}"


async def test_case_21_c_a_container_on_the_network_of_one_that_is_gone_is_not_copied(bench: Bench) -> None:
    target = await bench.run()
    old = await bench.run(_guest(target))
    await bench.connection.remove(target, force=True)
    with pytest.raises(CopyRefused, match=target):
        await bench.clone(old)


def _guest(target: str) -> Json:
    """A request for a container on the network of `target`; its port is another than that one's."""
    return {"Env": ["PORT=8090"], "HostConfig": {"NetworkMode": f"container:{target}"}}


def _namespace(bench: Bench, container: str, kind: str) -> str:
    return bench.execute(container, "ls", "-l", f"/proc/self/ns/{kind}").rpartition("->")[2]


# Networks


@pytest.mark.parametrize(
    ("digits", "mac"),
    [
        pytest.param(64, False, id="case_25-full"),
        pytest.param(64, True, id="case_25_b-full_and_a_mac"),
        pytest.param(12, False, id="case_25_c-short"),
        pytest.param(12, True, id="case_25_d-short_and_a_mac"),
    ],
)
async def test_a_network_that_goes_by_its_id_is_joined_again_in_the_same_way(
    bench: Bench, digits: int, mac: bool
) -> None:
    name, full = bench.network("--subnet=10.98.25.0/24")
    key = full[:digits]
    endpoint: Json = {"Aliases": ["shop"], "IPAMConfig": {"IPv4Address": "10.98.25.7"}}
    body: Json = {
        "HostConfig": {"NetworkMode": key},
        "NetworkingConfig": {"EndpointsConfig": {key: endpoint}},
    }
    address = "02:11:22:33:44:55"
    if mac and bench.api >= ENDPOINT_MAC:
        endpoint["MacAddress"] = address
    elif mac:
        body["MacAddress"] = address
    old = await bench.run(body)
    (before,) = _macs(await bench.inspect(old), full)
    if mac and bench.api >= ENDPOINT_MAC:  # older engines forget a MAC address where an id is given
        assert before == address
    copy = await bench.clone(old)
    assert copy.request["HostConfig"]["NetworkMode"] == full
    assert set(copy.request["NetworkingConfig"]["EndpointsConfig"]) == {full}

    for source, made in ((old, copy), (copy.id, await bench.clone(copy.id))):
        new = await bench.swap(source, made.id)
        networks = new["NetworkSettings"]["Networks"]
        assert {endpoint["NetworkID"] for endpoint in networks.values()} == {full}
        assert new["HostConfig"]["NetworkMode"] == full
        joined = networks.get(name) or networks[full]
        assert joined["IPAddress"] == "10.98.25.7"
        assert "shop" in joined["Aliases"]
        if mac:
            assert _macs(new, full) == {before}
        await bench.connection.remove(source, force=True)


def _macs(inspected: Json, network: str) -> set[str]:
    networks = inspected["NetworkSettings"]["Networks"].values()
    return {endpoint["MacAddress"] for endpoint in networks if endpoint["NetworkID"] == network}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("primary", ["default", "user"])
async def test_case_26_a_network_that_was_left_by_hand_is_not_joined_again(
    bench: Bench, primary: str, count: int
) -> None:
    left = bench.network()[0] if primary == "user" else "bridge"
    mode = left if primary == "user" else "default"
    others = [bench.network(f"--subnet=10.98.26.{16 * n}/28")[0] for n in range(count)]
    old = await bench.run({"HostConfig": {"NetworkMode": mode}})
    for number, other in enumerate(others):
        address = {"IPv4Address": f"10.98.26.{16 * number + 7}"}
        await bench.connection.attach(other, old, {"Aliases": ["shop"], "IPAMConfig": address})
    await bench.connection.detach(left, old)

    copy = await bench.clone(old)
    assert _mode(copy.inspect) == _mode(await bench.inspect(old))
    assert set(copy.inspect["NetworkSettings"]["Networks"]) == set(others)
    networks = (await bench.swap(old, copy.id))["NetworkSettings"]["Networks"]
    assert set(networks) == set(others)
    for number, other in enumerate(others):
        assert networks[other]["IPAddress"] == f"10.98.26.{16 * number + 7}"
        assert "shop" in networks[other]["Aliases"]


@pytest.mark.parametrize("primary", ["default", "bridge", "user"])
async def test_case_26_b_a_container_that_has_left_all_networks_gets_none(bench: Bench, primary: str) -> None:
    mode = bench.network()[0] if primary == "user" else primary
    old = await bench.run({"HostConfig": {"NetworkMode": mode}})
    await bench.connection.detach("bridge" if mode == "default" else mode, old)
    assert (await bench.inspect(old))["NetworkSettings"]["Networks"] == {}

    copy = await bench.clone(old)
    assert _mode(copy.inspect) == _mode(await bench.inspect(old))
    assert copy.inspect["NetworkSettings"]["Networks"] == {}
    assert (await bench.swap(old, copy.id))["NetworkSettings"]["Networks"] == {}


@pytest.mark.parametrize("mode", ["default", "bridge"])
async def test_case_27_the_default_bridge_and_a_network_of_the_user_are_both_joined(
    bench: Bench, mode: str
) -> None:
    network, _ = bench.network()
    old = await bench.run({"Hostname": "h1", "HostConfig": {"NetworkMode": mode}})
    await bench.connection.attach(network, old, {"Aliases": ["shop"]})
    copy = await bench.clone(old)
    endpoints = copy.request["NetworkingConfig"]["EndpointsConfig"]
    assert endpoints["bridge"] == {}
    assert set(endpoints) == ({"bridge", network} if bench.api >= ENDPOINT_MAC else {"bridge"})
    assert set(copy.inspect["NetworkSettings"]["Networks"]) == {"bridge", network}

    new = await bench.swap(old, copy.id)
    networks = new["NetworkSettings"]["Networks"]
    assert set(networks) == {"bridge", network}
    assert all(endpoint["IPAddress"] for endpoint in networks.values())
    assert "shop" in networks[network]["Aliases"]
    assert old[:12] not in networks[network]["Aliases"]
    assert _mode(new) == _mode(await bench.inspect(old))


def _mode(inspected: Json) -> str:
    return str(inspected["HostConfig"]["NetworkMode"])


# Mounts


async def test_case_31_everything_that_was_mounted_is_mounted_in_the_same_way(
    bench: Bench, tmp_path: Path
) -> None:
    named, nocopy, over = bench.volume(), bench.volume(), bench.volume()
    optioned, labelled = bench.name(), bench.name()
    (tmp_path / "file").write_text("host")
    said: Json = {
        "Binds": [
            f"{named}:/named",
            f"{tmp_path}:/bound:ro",
            f"{nocopy}:/nocopy:nocopy",
            f"{over}:/newvol",  # where the new image declares a volume
        ],
        "Tmpfs": {"/t": "size=1m"},
        "Mounts": [
            {"Type": "tmpfs", "Target": "/memory", "TmpfsOptions": {"SizeBytes": MIB, "Mode": 0o750}},
            {
                "Type": "volume",
                "Source": optioned,
                "Target": "/optioned",
                "VolumeOptions": {
                    "NoCopy": True,
                    "Labels": {"a": "b"},
                    "DriverConfig": {
                        "Name": "local",
                        "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
                    },
                },
            },
            {"Type": "volume", "Source": labelled, "Target": "/labelled", "ReadOnly": True},
            {
                "Type": "bind",
                "Source": str(tmp_path),
                "Target": "/mounted",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "private"},
            },
        ],
    }
    old = await bench.run({"HostConfig": said})
    before, volumes = await bench.inspect(old), bench.volumes()
    copy = await bench.clone(old)

    assert _mounts(copy.inspect) == _mounts(before)
    assert copy.inspect["HostConfig"]["Mounts"] == before["HostConfig"]["Mounts"]
    assert copy.inspect["HostConfig"]["Tmpfs"] == said["Tmpfs"]
    assert copy.inspect["HostConfig"]["Binds"][:4] == said["Binds"]
    assert bench.volumes() == volumes
    new = await bench.swap(old, copy.id)
    assert _mounts(new) == _mounts(before)
    assert bench.volumes() == volumes
    assert bench.execute(copy.id, "cat", "/bound/file", "/mounted/file") == "hosthost"
    for readonly in ("/bound", "/mounted", "/labelled"):
        with pytest.raises(DockerFailed, match="Read-only"):
            bench.execute(copy.id, "touch", f"{readonly}/x")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"Binds": ["{volume}:/data/"]}, id="case_31_b-volume"),
        pytest.param({"Binds": ["{volume}:/data/", "{folder}:/oldvol/:ro"]}, id="case_31_c-folder"),
        pytest.param({"Tmpfs": {"/data": "size=1m"}}, id="case_31_d-tmpfs"),
        pytest.param({"Tmpfs": {"/data/": "size=1m"}}, id="case_31_g-tmpfs_with_a_slash"),
        pytest.param({"Mounts": [{"Type": "tmpfs", "Target": "/data/"}]}, id="case_31_e-tmpfs_mount"),
        pytest.param(
            {"Mounts": [{"Type": "volume", "Source": "{volume}", "Target": "/data/"}]},
            id="case_31_f-volume_mount",
        ),
    ],
)
async def test_what_the_user_mounts_over_a_volume_of_the_image_is_not_mounted_twice(
    bench: Bench, tmp_path: Path, said: Json
) -> None:
    """However the path is written: what is asked for as /data/ is shown as /data."""
    filled = _filled(said, {"{volume}": bench.volume(), "{folder}": str(tmp_path)})
    old = await bench.run({"HostConfig": filled})
    before = await bench.inspect(old)
    copy = await bench.clone(old)
    for field, value in filled.items():
        kept = copy.inspect["HostConfig"][field]
        assert kept[: len(value)] == value if field == "Binds" else kept == before["HostConfig"][field]
    new = await bench.swap(old, copy.id)
    # A tmpfs hides the volume of the image, which nobody could ever write to.
    unseen = {"/newvol", *("/data" for _ in filled.get("Tmpfs", ()))}
    assert _but(_mounts(new), unseen) == _but(_mounts(before), unseen)
    kind = "tmpfs" if "tmpfs" in str(said).lower() else ""
    assert f" /data {kind}" in bench.execute(copy.id, "cat", "/proc/mounts")


async def test_case_31_h_a_tmpfs_over_a_volume_of_a_container_that_is_gone_stays_a_tmpfs(
    bench: Bench,
) -> None:
    source = await bench.create({"HostConfig": {"Binds": [f"{bench.volume()}:/shared"]}})
    said = {"VolumesFrom": [source], "Tmpfs": {"/shared": "size=1m"}}
    old = await bench.run({"HostConfig": said})
    await bench.connection.remove(source)
    copy = await bench.clone(old)
    await bench.swap(old, copy.id)
    assert " /shared tmpfs" in bench.execute(copy.id, "cat", "/proc/mounts")


def _filled(value: Any, places: dict[str, str]) -> Any:
    """The value with what stands in braces replaced."""
    if isinstance(value, dict):
        return {key: _filled(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, places) for item in value]
    for place, text in places.items():
        value = value.replace(place, text)
    return value


def _but(fields: Json, left_out: set[str]) -> Json:
    return {key: value for key, value in fields.items() if key not in left_out}


def _mounts(inspected: Json) -> dict[str, Json]:
    """What is mounted where, without the words it was asked for by."""
    return {
        str(mount["Destination"]): {key: value for key, value in mount.items() if key != "Mode"}
        for mount in inspected["Mounts"]
    }


# Options of the host

EVERYTHING: Json = {
    "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "CpuShares": 512,
    "NanoCpus": 500_000_000,
    "CpusetCpus": "0",
    "CpusetMems": "0",
    "Memory": 64 * MIB,
    "MemoryReservation": 32 * MIB,
    "MemorySwap": 128 * MIB,
    "MemorySwappiness": 10,
    "OomKillDisable": False,
    "OomScoreAdj": 100,
    "PidsLimit": 100,
    "BlkioWeight": 300,
    "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 200}],
    "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": MIB}],
    "BlkioDeviceWriteBps": [{"Path": "/dev/sda", "Rate": 2 * MIB}],
    "BlkioDeviceReadIOps": [{"Path": "/dev/sda", "Rate": 1000}],
    "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 2000}],
    "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}],
    "Sysctls": {"net.ipv4.ip_forward": "0"},
    "CapAdd": ["NET_ADMIN"],
    "CapDrop": ["MKNOD"],
    "Devices": [
        {"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"},
    ],
    "DeviceCgroupRules": ["c 1:3 r"],
    "DeviceRequests": [
        {"Driver": "nvidia", "Count": 1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}},
    ],
    "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
    "LogConfig": {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}},
    "Init": True,
    "IpcMode": "shareable",
    "CgroupnsMode": "private",
    "CgroupParent": "/lookout-test",
    "ExtraHosts": ["db:10.0.0.1", "host.docker.internal:host-gateway"],
    "Dns": ["10.0.0.53"],
    "DnsOptions": ["ndots:2"],
    "DnsSearch": ["ex.org"],
    "GroupAdd": ["1000"],
    "ShmSize": 32 * MIB,
    "ReadonlyRootfs": True,
    "Tmpfs": {"/t": "size=1m"},
    "Runtime": "runc",
    "UsernsMode": "host",
    "PublishAllPorts": True,
    "PortBindings": {
        "8080/tcp": [
            {"HostIp": "127.0.0.1", "HostPort": "18080"},
            {"HostIp": "127.0.0.1", "HostPort": "18081"},
        ],
        "8082/tcp": [{"HostIp": "", "HostPort": ""}],
        "9000/udp": [{"HostIp": "", "HostPort": "19000-19010"}],
    },
    "VolumeDriver": "local",
    "ConsoleSize": [24, 80],
}
# What the options above exclude, or leave out because they say it in another way.
OF_THE_HOST: Json = {
    "Privileged": True,
    "NetworkMode": "host",
    "PidMode": "host",
    "IpcMode": "host",
    "UTSMode": "host",
    "CgroupnsMode": "host",
    "SecurityOpt": ["apparmor=unconfined", "label=disable"],  # the engine adds the second by itself
    "CpuPeriod": 100_000,
    "CpuQuota": 50_000,
    "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    "LogConfig": {"Type": "none", "Config": {}},
    "Init": False,
}
FOR_ONCE: Json = {
    "AutoRemove": True,
    "NetworkMode": "none",
    "OomScoreAdj": -500,
    "PidsLimit": -1,
    "MemorySwap": -1,
    "Memory": 64 * MIB,
    "CapDrop": ["ALL"],
    "CapAdd": ["CHOWN", "SETUID"],
    "IpcMode": "none",
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "LogConfig": {"Type": "local", "Config": {"max-size": "2m"}},
}
# Engines take these away where the kernel cannot do them, at every create anew.
IF_THE_KERNEL_CAN = {
    *("CpuShares", "NanoCpus", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems", "PidsLimit"),
    *("Memory", "MemoryReservation", "MemorySwap", "MemorySwappiness", "OomKillDisable", "BlkioWeight"),
    *("BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps"),
    *("BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"),
}


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(EVERYTHING, id="case_33-everything"),
        pytest.param(OF_THE_HOST, id="case_33_b-of_the_host"),
        pytest.param(FOR_ONCE, id="case_33_c-for_once"),
        pytest.param({}, id="case_33_d-nothing"),
    ],
)
async def test_every_option_of_the_host_is_the_same(bench: Bench, said: Json) -> None:
    old = await bench.create({"HostConfig": said})
    before = await bench.inspect(old)
    asked = {key: value for key, value in said.items() if key not in IF_THE_KERNEL_CAN}
    assert {key: before["HostConfig"][key] for key in asked} == asked, "the engine changed the question"

    copy = await bench.clone(old)
    carried = [
        f"{mount['Name']}:{mount['Destination']}:nocopy"
        for mount in before["Mounts"]
        if mount["Type"] == "volume"
    ]
    assert sorted(copy.inspect["HostConfig"].pop("Binds")) == sorted(carried)
    before["HostConfig"].pop("Binds")
    assert copy.inspect["HostConfig"] == before["HostConfig"]


async def test_case_33_e_settings_that_no_image_has_are_the_same(bench: Bench) -> None:
    said = {
        "Tty": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "StopTimeout": 3,
    }
    copy = await bench.clone(await bench.create(said))
    assert copy.inspect["Config"].items() >= said.items()


async def test_case_33_f_a_container_with_its_network_disabled_stays_without(bench: Bench) -> None:
    old = await bench.run({"NetworkDisabled": True})
    copy = await bench.clone(old)
    assert copy.inspect["Config"]["NetworkDisabled"] is True
    networks = (await bench.inspect(old))["NetworkSettings"]["Networks"]
    assert (await bench.swap(old, copy.id))["NetworkSettings"]["Networks"] == networks
    assert "eth" not in bench.execute(copy.id, "ip", "link")


# What only newer engines know


def _needs(bench: Bench, minor: int) -> None:
    """Skip where the engine, whatever version Lookout talks to it in, has not the API 1.`minor`."""
    newest = bench.engine.docker("version", "--format={{.Server.APIVersion}}")
    if int(newest.removeprefix("1.")) < minor:
        pytest.skip(f"the engine's newest API is {newest}, the feature came with 1.{minor}")


@pytest.mark.newest
async def test_case_35_what_came_with_newer_engines_is_carried(bench: Bench, tmp_path: Path) -> None:
    """Fails where an old version of the API is used to talk to a new engine."""
    _needs(bench, 45)
    volume = bench.volume()
    mounts: list[Json] = [
        {
            "Type": "bind",
            "Source": str(tmp_path / "made"),
            "Target": "/made",
            "BindOptions": {"CreateMountpoint": True},
        },
        {"Type": "volume", "Source": volume, "Target": "/sub", "VolumeOptions": {"Subpath": "deep"}},
        {
            "Type": "bind",
            "Source": str(tmp_path),
            "Target": "/readonly",
            "ReadOnly": True,
            "BindOptions": {"ReadOnlyNonRecursive": True},
        },
    ]
    filler = await bench.run({"HostConfig": {"Binds": [f"{volume}:/v"]}, "User": "root"})
    bench.execute(filler, "sh", "-c", "mkdir /v/deep && echo kept > /v/deep/file")
    old = await bench.run(
        {
            "Healthcheck": {"StartInterval": 3 * SECOND},
            "HostConfig": {"Annotations": {"org.example": "a"}, "Mounts": mounts},
        }
    )
    before = await bench.inspect(old)
    assert before["HostConfig"]["Mounts"] == mounts
    copy = await bench.clone(old)
    new = await bench.swap(old, copy.id)
    assert new["Config"]["Healthcheck"]["StartInterval"] == 3 * SECOND
    assert new["HostConfig"]["Annotations"] == {"org.example": "a"}
    assert new["HostConfig"]["Mounts"] == mounts
    assert bench.execute(copy.id, "cat", "/sub/file") == "kept"


@pytest.mark.newest
async def test_case_35_b_priority_and_name_of_an_interface_are_carried(bench: Bench) -> None:
    _needs(bench, 48)
    first, second = bench.network()[0], bench.network()[0]
    names = {first: "web0", second: "back0"}
    endpoints: Json = {
        first: {"GwPriority": 1, "DriverOpts": {"com.docker.network.endpoint.ifname": "web0"}},
        second: {"GwPriority": 5, "DriverOpts": {"com.docker.network.endpoint.ifname": "back0"}},
    }
    old = await bench.run(
        {"HostConfig": {"NetworkMode": first}, "NetworkingConfig": {"EndpointsConfig": endpoints}}
    )
    copy = await bench.clone(old)
    new = await bench.swap(old, copy.id)
    for network, endpoint in new["NetworkSettings"]["Networks"].items():
        assert {key: endpoint[key] for key in endpoints[network]} == endpoints[network]
        assert endpoint["IPAddress"] in bench.execute(copy.id, "ip", "address", "show", names[network])
    assert "default" in bench.execute(copy.id, "ip", "route", "show", "dev", "back0")


@pytest.mark.newest
async def test_case_35_c_a_mounted_image_is_mounted_again(bench: Bench) -> None:
    _needs(bench, 48)
    mount = {"Type": "image", "Source": V1, "Target": "/other", "ImageOptions": {"Subpath": "www"}}
    old = await bench.run({"HostConfig": {"Mounts": [mount]}})
    assert (await bench.inspect(old))["HostConfig"]["Mounts"] == [mount]
    copy = await bench.clone(old, V2)
    assert copy.inspect["HostConfig"]["Mounts"] == [mount]
    await bench.swap(old, copy.id)
    assert bench.execute(copy.id, "cat", "/other/index.html") == "v1"
