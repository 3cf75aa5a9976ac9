"""The proof lets nothing pass that was planned, and nothing stop a deploy that is the engine's own affair."""

import copy
from typing import Any

import pytest
from tests.unit.inspected import around, container, copied, endpoint, volume

from lookout.model import Json
from lookout.names import short_id
from lookout.plan import Plan
from lookout.proof import Proof, compare

NETWORKS = {"11ff" * 16: "front"}


def created(plan: Plan, **host: Any) -> Json:
    """What inspect shows of the container that a faithful engine has made of the plan."""
    old = plan.container
    return old | {
        "Config": old["Config"] | copy.deepcopy({k: v for k, v in plan.body.items() if k in old["Config"]}),
        "HostConfig": old["HostConfig"] | copy.deepcopy(plan.body["HostConfig"]) | host,
    }


def proven(plan: Plan, new: Json) -> Proof:
    return compare(plan, plan.body, new, NETWORKS)


@pytest.mark.parametrize("engine", ["20.10", "28.5"])
def test_what_arrived_as_planned_is_proven(engine: str) -> None:
    plan = copied(container(engine), engine=engine)
    assert proven(plan, created(plan)) == Proof((), ())


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        pytest.param(
            {"NetworkMode": "default"}, {"NetworkMode": "bridge"}, id="the default network by its name"
        ),
        pytest.param(
            {"CapAdd": ["NET_ADMIN", "CAP_CHOWN"]}, {"CapAdd": ["CAP_CHOWN", "CAP_NET_ADMIN"]}, id="caps"
        ),
        pytest.param(
            {"SecurityOpt": ["a"]}, {"SecurityOpt": ["a", "label=disable"]}, id="added by the engine"
        ),
        pytest.param({"KernelMemory": 9}, {"KernelMemory": 0}, id="what engines no longer know"),
        pytest.param({"OomKillDisable": True}, {"OomKillDisable": None}, id="nor kernels"),
        pytest.param({"Runtime": ""}, {"Runtime": "runc"}, id="an empty value is the engine's to fill"),
        pytest.param({"Init": None}, {"Init": False}, id="null and false"),
        pytest.param({"Ulimits": [{"Name": "a", "Hard": 1, "Soft": 1}]}, {}, id="the same"),
        pytest.param(
            {"Mounts": [{"Type": "tmpfs", "Target": "/t", "ReadOnly": False, "BindOptions": None}]},
            {"Mounts": [{"Type": "tmpfs", "Target": "/t"}]},
            id="empty parts of a mount",
        ),
    ],
)
def test_another_way_to_say_the_same_is_no_difference(asked: Json, shown: Json) -> None:
    plan = copied(container(host=asked))
    assert not proven(plan, created(plan, **shown)).differences


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"MaskedPaths": []}, {"MaskedPaths": ["/proc/kcore"]}),
        ({"ReadonlyRootfs": True}, {"ReadonlyRootfs": False}),
        ({"Privileged": False}, {"Privileged": True}),
        ({"Memory": 9}, {"Memory": 0}),
        ({"CapDrop": ["ALL"]}, {"CapDrop": None}),
        ({"Binds": ["a:/b"]}, {"Binds": ["a:/b:ro"]}),
        ({"Dns": ["1.1.1.1", "2.2.2.2"]}, {"Dns": ["2.2.2.2", "1.1.1.1"]}),
        ({"NotYetInvented": {"a": 1}}, {"NotYetInvented": None}),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/t", "ReadOnly": True}]}, {"Mounts": [{"Type": "tmpfs"}]}),
        ({"Tmpfs": {"/t": ""}}, {"Tmpfs": {}}),
        ({"Sysctls": {"a": ""}}, {"Sysctls": None}),
        ({"Links": ["/neighbour:/plain/db"]}, {"Links": None}),
        ({"RestartPolicy": {"Name": "always"}}, {"RestartPolicy": {"Name": "no"}}),
    ],
)
def test_a_value_that_did_not_arrive_is_a_difference(asked: Json, shown: Json) -> None:
    plan = copied(container(host=asked, mounts=[]))
    (difference,) = proven(plan, created(plan, **shown)).differences
    assert difference.startswith(f"HostConfig.{next(iter(asked))}")


def test_numbers_are_told_and_texts_are_not() -> None:
    plan = copied(container(host={"Memory": 9}, config={"Env": ["TOKEN=hunter2"], "Hostname": "secret"}))
    new = created(plan, Memory=0)
    new["Config"] |= {"Env": [], "Hostname": "other"}
    differences = proven(plan, new).differences
    assert "HostConfig.Memory (9 was asked for, the engine has 0)" in differences
    assert {"Env", "Hostname"} <= {*differences}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (None, "missing"),
        ({"Name": "other"}, "volume"),
        ({"RW": False}, "access mode"),
        ({"Type": "bind", "Source": "/x"}, "type"),
    ],
)
def test_a_mount_that_is_missing_or_another_is_a_difference(changes: Json | None, what: str) -> None:
    plan = copied(container(mounts=[volume("abc", "/data/")]))
    new = created(plan) | {"Mounts": [] if changes is None else [volume("abc", "/data", **changes)]}
    (difference,) = proven(plan, new).differences
    assert difference.startswith("the mount at /data (")
    assert what in difference


def test_a_volume_that_only_the_new_image_declares_is_none() -> None:
    plan = copied(container(mounts=[volume("abc", "/data")]))
    new = created(plan) | {"Mounts": [volume("abc", "/data"), volume("def", "/newvol")]}
    assert not proven(plan, new).differences


def test_networks_are_held_against_each_other_and_against_what_was_asked() -> None:
    old = container(
        host={"NetworkMode": "front"},
        networks={"front": endpoint(Aliases=["shop"], IPAMConfig={"IPv4Address": "10.9.0.7"})},
    )
    plan = copied(old)
    new = created(plan)
    assert not proven(plan, new).differences

    def with_networks(**networks: Json) -> tuple[str, ...]:
        return proven(plan, new | {"NetworkSettings": {"Networks": networks}}).differences

    assert with_networks() == (
        "network front (missing)",
        "network front (Aliases)",
        "network front (IPAMConfig)",
    )
    moved = old["NetworkSettings"]["Networks"]["front"] | {"IPAMConfig": {"IPv4Address": "10.9.0.8"}}
    assert with_networks(front=moved) == ("network front (IPAMConfig)",)
    whole = old["NetworkSettings"]["Networks"]["front"]
    assert with_networks(front=whole, extra=endpoint("33aa" * 16)) == ("network extra (joined)",)


def test_a_network_that_was_asked_for_by_its_id_is_the_one_that_is_listed_by_name() -> None:
    key = short_id("11ff" * 16)
    old = container(host={"NetworkMode": key}, networks={key: endpoint(), "front": endpoint()})
    plan = copied(old, surroundings=around(networks=frozenset(NETWORKS)))
    new = created(plan) | {"NetworkSettings": {"Networks": {"11ff" * 16: endpoint("")}}}
    assert not proven(plan, new).differences


def test_another_default_of_the_engine_is_remarked_and_refuses_nothing() -> None:
    plan = copied(container("20.10"), engine="28.5")
    masks = container("28.5")["HostConfig"]["MaskedPaths"]
    found = proven(plan, created(plan, MaskedPaths=masks, CgroupnsMode="private", ShmSize=1))
    assert [remark.split()[0] for remark in found.remarks] == ["HostConfig.MaskedPaths"]
    assert [*map(str.split, found.differences)]  # those two were sent with a value, and are differences


def test_a_volume_that_a_tmpfs_hides_need_not_come_along() -> None:
    plan = copied(container(host={"Tmpfs": {"/data/": ""}}, mounts=[volume("abc", "/data")]))
    assert not proven(plan, created(plan) | {"Mounts": [volume("def", "/data")]}).differences
    assert not proven(plan, created(plan) | {"Mounts": []}).differences


def test_what_an_engine_no_longer_knows_is_remarked() -> None:
    plan = copied(container(host={"KernelMemory": 9}))
    (remark,) = proven(plan, created(plan, KernelMemory=0)).remarks
    assert remark.startswith("HostConfig.KernelMemory ")
