"""The whole copy: HostConfig word by word but for a few fields, labels of the swap, carried files."""

import copy as copying
import json
from typing import Any

import pytest
from tests.unit.inspected import (
    API,
    ENGINES,
    GONE,
    NEIGHBOUR,
    around,
    container,
    copied,
    image,
    volume,
)

from lookout.errors import CopyRefused
from lookout.layers import Layer
from lookout.model import Json
from lookout.recreate import recreate

MIB = 1024 * 1024


def host_config(engine: str = "28.5", **host: Any) -> Json:
    """HostConfig of the copy of a container with these fields."""
    found: Json = copied(container(engine, host=host), engine=engine).body["HostConfig"]
    return found


def added(*paths: str) -> list[Json]:
    return [{"Path": path, "Kind": 1} for path in paths]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_container_with_many_options_is_asked_for_in_full(engine: str) -> None:
    old = container(engine, "web")
    copy = copied(old, engine=engine)
    volumes = {mount["Destination"]: _name(mount) for mount in old["Mounts"]}
    asked = dict(copy.body)
    asked.pop("Labels")
    assert asked.pop("HostConfig") == {
        key: value
        for key, value in old["HostConfig"].items()
        if key not in {"ContainerIDFile", "MaskedPaths", "ReadonlyPaths"}
    } | {
        "Binds": [
            "named:/n",
            "/etc/ssl:/h:ro",
            f"{volumes['/single']}:/single:nocopy",
            *(
                f"{name}:{path}:nocopy"
                for path, name in volumes.items()
                if path in {"/anon", "/data", "/oldvol"}
            ),
        ],
        "Mounts": [
            old["HostConfig"]["Mounts"][0]
            | {
                "Source": volumes["/m"],
                "VolumeOptions": old["HostConfig"]["Mounts"][0]["VolumeOptions"] | {"NoCopy": True},
            },
            {"Type": "tmpfs", "Target": "/t2"},
        ],
    }
    assert (
        asked
        == {
            "Image": "app:v2",
            "Hostname": "h1",
            "Domainname": "example.org",
            "User": "root",
            "Env": ["X=9", "MODE=prod", "LEVEL"],
            "Cmd": ["serve", "--fast"],
            "StopSignal": "SIGUSR1",
            "StopTimeout": 3,
            "ExposedPorts": {"8080/tcp": {}, "81/tcp": {}},
            "AttachStdin": False,
            "AttachStdout": False,
            "AttachStderr": False,
            "Tty": False,
            "OpenStdin": False,
            "StdinOnce": False,
        }
        | ({"20.10": OF_20_10, "28.5": OF_28_5}[engine])
    )
    assert copy.connect == ((("front", {"Aliases": ["b2"]}),) if engine == "20.10" else ())
    assert copy.new_name == f"web.lookout-new.{old['Id'][:12]}"


BACK: Json = {"Aliases": ["a1"], "IPAMConfig": {"IPv4Address": "10.9.0.77"}, "Links": ["db:thedb"]}
OF_20_10: Json = {
    "MacAddress": "02:11:22:33:44:01",
    "Healthcheck": {"Interval": 5 * 10**9},
    "NetworkingConfig": {"EndpointsConfig": {"back": BACK}},
}
OF_28_5: Json = {
    "Healthcheck": {"Interval": 5 * 10**9, "StartInterval": 10**9},
    "NetworkingConfig": {
        "EndpointsConfig": {
            "back": BACK | {"MacAddress": "02:11:22:33:44:01"},
            "front": {
                "MacAddress": "02:11:22:33:44:02",
                "GwPriority": 5,
                "DriverOpts": {"com.docker.network.endpoint.ifname": "eth7"},
            },
        }
    },
}


def _name(mount: Json) -> str:
    return str(mount["Source"]).removesuffix("/_data").rpartition("/")[2]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["plain", "web"])
def test_nothing_that_was_inspected_is_changed(engine: str, what: str) -> None:
    inspected = (container(engine, what), image("v1", engine), image("v2", engine), added("/run/secrets/a"))
    before = copying.deepcopy(inspected)
    old, old_image, new_image, changes = inspected
    recreate(old, old_image, new_image, "app:v2", API[engine], around(), Layer(changes))
    assert inspected == before


def test_settings_that_no_image_has_are_sent_as_they_are() -> None:
    alone = {"Tty": True, "OpenStdin": True, "StdinOnce": True, "StopTimeout": 0, "Shell": ["/bin/ash", "-c"]}
    assert copied(container(config=alone)).body.items() >= alone.items()


def test_a_setting_that_is_null_is_left_out() -> None:
    assert "StopTimeout" not in copied(container(config={"StopTimeout": None})).body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        ("Memory", 64 * MIB),
        ("CapAdd", ["NET_ADMIN"]),
        ("Sysctls", {"net.ipv4.ip_forward": "0"}),
        ("PortBindings", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}]}),
        ("LogConfig", {"Type": "json-file", "Config": {"max-size": "1m"}}),
        ("Tmpfs", {"/t": "size=1m"}),
        ("SecurityOpt", ["label=disable"]),
        ("Annotations", {"a": "b"}),
        ("AutoRemove", True),
        ("NotYetInvented", {"a": [None, 0, ""]}),
        ("IpcMode", "shareable"),
        ("PidMode", "host"),
    ],
)
def test_a_field_of_host_config_is_sent_as_it_is(field: str, value: Any) -> None:
    assert host_config(**{field: value})[field] == value


def test_whatever_an_engine_may_leave_empty_may_be_null() -> None:
    old = container(what="web", networks={})
    old |= {"Mounts": None}
    old["Config"] = dict.fromkeys(old["Config"]) | {"Image": "app:v1"}
    old["HostConfig"] = dict.fromkeys(old["HostConfig"])
    bare = image("v1") | {"Config": None}
    copy = copied(old, old_image=bare, new_image=bare, changes=added("/conf"))
    sent = {key: value for key, value in copy.body.items() if key not in {"Labels", "HostConfig"}}
    assert sent == {"Image": "app:v2"}
    assert {key: v for key, v in copy.body["HostConfig"].items() if v} == {"NetworkMode": "default"}
    assert not copy.remarks


def test_the_file_for_the_old_id_is_not_written_again() -> None:
    assert "ContainerIDFile" not in host_config(ContainerIDFile="/run/web.cid")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_default_masks_are_left_to_the_engine(engine: str) -> None:
    sent = host_config(engine)
    assert "MaskedPaths" not in sent
    assert "ReadonlyPaths" not in sent


def test_the_default_masks_of_a_host_with_thermal_sensors_are_known_too() -> None:
    known = container()["HostConfig"]["MaskedPaths"]
    sensors = [f"/sys/devices/system/cpu/cpu{n}/thermal_throttle" for n in (0, 11)]
    assert "MaskedPaths" not in host_config(MaskedPaths=known + sensors)


@pytest.mark.parametrize("field", ["MaskedPaths", "ReadonlyPaths"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: None, id="null of a privileged container"),
        pytest.param(lambda _: [], id="nothing masked"),
        pytest.param(lambda known: [*known, "/proc/mine"], id="more than the default"),
    ],
)
def test_masks_that_the_user_chose_are_kept(field: str, change: Any) -> None:
    chosen = change(container()["HostConfig"][field])
    assert host_config(**{field: chosen})[field] == chosen


@pytest.mark.parametrize(
    ("field", "left_out"),
    [
        *(
            ("MaskedPaths", path)
            for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
        ),
        *(("ReadonlyPaths", f"/proc/{path}") for path in ("bus", "fs", "irq", "sys", "sysrq-trigger")),
    ],
)
def test_masks_that_lack_what_every_engine_masks_are_the_users(field: str, left_out: str) -> None:
    chosen: Any = [path for path in container()["HostConfig"][field] if path != left_out]
    assert host_config(**{field: chosen})[field] == chosen


@pytest.mark.parametrize("field", ["NetworkMode", "PidMode", "IpcMode"])
def test_a_namespace_of_another_container_is_shared_again(field: str) -> None:
    assert host_config(**{field: f"container:{NEIGHBOUR}"})[field] == f"container:{NEIGHBOUR}"


@pytest.mark.parametrize("field", ["NetworkMode", "PidMode", "IpcMode"])
def test_a_namespace_is_that_of_the_container_which_replaced_its_owner(field: str) -> None:
    old = container(host={field: f"container:{GONE}"})
    host = copied(old, surroundings=around(successors={GONE: NEIGHBOUR})).body["HostConfig"]
    assert host[field] == f"container:{NEIGHBOUR}"


@pytest.mark.parametrize("field", ["NetworkMode", "PidMode", "IpcMode"])
def test_a_container_that_shares_a_namespace_of_one_that_is_gone_is_refused(field: str) -> None:
    with pytest.raises(CopyRefused, match=f"^plain shares a namespace of container {GONE}, which is gone"):
        copied(container(host={field: f"container:{GONE}"}))


@pytest.mark.parametrize(
    "target", ["neighbour", f"neighbour.lookout-old.{GONE[:12]}"], ids=["linked", "replaced meanwhile"]
)
def test_a_link_is_asked_for_by_name_and_alias(target: str) -> None:
    assert host_config(Links=[f"/{target}:/plain/db"])["Links"] == ["neighbour:db"]


def test_a_container_that_is_linked_to_one_that_is_gone_is_refused() -> None:
    with pytest.raises(CopyRefused, match=r"^plain is linked to container db, which is gone$"):
        copied(container(host={"Links": ["/db:/plain/db"]}))


@pytest.mark.parametrize(
    ("bindings", "chosen"),
    [
        ([{"HostIp": "", "HostPort": "8080"}], False),
        ([{"HostIp": "", "HostPort": ""}], True),
        ([{"HostIp": "127.0.0.1", "HostPort": "0"}], True),
        ([{"HostIp": "", "HostPort": "8080"}, {"HostPort": "19000-19010"}], True),
        ([{}], True),
        ([], False),
        (None, False),
    ],
)
def test_a_host_port_that_the_engine_chooses_is_remarked(bindings: list[Json] | None, chosen: bool) -> None:
    copy = copied(container(host={"PortBindings": {"80/tcp": bindings}}, mounts=[]))
    assert copy.body["HostConfig"]["PortBindings"] == {"80/tcp": bindings}
    assert [remark.startswith("port 80/tcp") for remark in copy.remarks] == [True] * chosen


def test_publishing_all_ports_is_remarked() -> None:
    (remark,) = copied(container(host={"PublishAllPorts": True}, mounts=[])).remarks
    assert "all exposed ports" in remark


def test_the_new_container_says_which_one_it_replaces() -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 3}
    inherited = {"lookout.swap.replaces": "older", "lookout.swap.by": "somebody", "team": "a"}
    old = container(host={"RestartPolicy": policy}, config={"Labels": inherited})
    labels = copied(old).body["Labels"]
    assert json.loads(labels.pop("lookout.swap.restart")) == policy
    assert labels == {
        "team": "a",
        "lookout.swap.replaces": old["Id"],
        "lookout.swap.name": "plain",
        "lookout.swap.mode": "stop-first",
    }


def test_no_restart_policy_is_one_that_does_not_restart() -> None:
    labels = copied(container(host={"RestartPolicy": None})).body["Labels"]
    assert json.loads(labels["lookout.swap.restart"])["Name"] == "no"


@pytest.mark.parametrize("changes", [None, [], added("/run", "/run/secrets", "/srv/run/secrets/a", "/app/x")])
def test_a_container_without_secrets_in_its_layer_carries_no_files(changes: list[Json] | None) -> None:
    assert copied(container(), changes=changes).archives == ()


def test_secrets_that_were_copied_into_the_container_are_carried() -> None:
    changes = added("/run", "/run/secrets", "/run/secrets/b", "/run/secrets/a")
    assert copied(container(), changes=changes).archives == ("/run/secrets",)


@pytest.mark.parametrize("kind", [0, 2], ids=["changed", "deleted"])
def test_secrets_of_the_image_are_not_carried(kind: int) -> None:
    assert copied(container(), changes=[{"Path": "/run/secrets/a", "Kind": kind}]).archives == ()


def test_mounted_secrets_are_not_carried_and_others_beside_them_one_by_one() -> None:
    old = container(mounts=[volume("abc", "/run/secrets/m"), volume("def", "/run/secrets/n")])
    places = added("/run", "/run/secrets", "/run/secrets/m", "/run/secrets/n", "/run/secrets/n/hidden")
    assert copied(old, changes=places).archives == ()
    files = added("/run/secrets/b", "/run/secrets/d", "/run/secrets/d/c", "/run/secrets/mm")
    assert copied(old, changes=places + files).archives == (
        "/run/secrets/b",
        "/run/secrets/d/c",
        "/run/secrets/mm",
    )


def test_a_file_that_may_be_a_config_of_compose_is_remarked() -> None:
    labels = {"com.docker.compose.project": "p"}
    old = container(config={"Labels": labels}, host={"Tmpfs": {"/t": ""}}, mounts=[volume("abc", "/m")])
    changes = added("/m", "/t", "/conf", "/srv", "/srv/x")
    (remark,) = copied(old, changes=changes).remarks
    assert remark.startswith("/conf ")
    foreign = container(config={"Labels": {}}, mounts=[])
    assert not copied(foreign, changes=changes).remarks
