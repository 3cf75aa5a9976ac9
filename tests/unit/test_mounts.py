"""Every mount of the old container is mounted in the new one, by the name that it has."""

import pytest
from tests.unit.inspected import (
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
from lookout.model import Json
from lookout.mounts import sources


def test_named_volumes_and_host_folders_are_asked_for_again_word_by_word() -> None:
    binds = ["named:/n", "/etc/ssl:/h:ro", "named2:/d/:nocopy"]
    mounts = [
        volume("named", "/n"),
        volume("named2", "/d"),
        {"Type": "bind", "Source": "/etc/ssl", "Destination": "/h", "RW": False, "Propagation": ""},
    ]
    host = copied(container(host={"Binds": binds}, mounts=mounts)).body["HostConfig"]
    assert host["Binds"] == binds


def test_mounts_with_a_source_are_asked_for_again_word_by_word() -> None:
    asked = [
        {"Type": "volume", "Source": "drv", "Target": "/d", "VolumeOptions": {"Subpath": "p"}},
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1}},
        {"Type": "bind", "Source": "/etc", "Target": "/b", "ReadOnly": True},
    ]
    mounts = [
        volume("drv", "/d"),
        {"Type": "tmpfs", "Source": "", "Destination": "/t", "RW": True},
        {"Type": "bind", "Source": "/etc", "Destination": "/b", "RW": False},
    ]
    host = copied(container(host={"Mounts": asked}, mounts=mounts)).body["HostConfig"]
    assert host["Mounts"] == asked
    assert host["Binds"] is None


def test_a_mount_without_a_source_and_without_a_volume_is_asked_for_again() -> None:
    asked = {"Type": "volume", "Target": "/m"}
    assert copied(container(host={"Mounts": [asked]}, mounts=[])).body["HostConfig"]["Mounts"] == [asked]


@pytest.mark.parametrize("target", ["/m", "/m/"])
@pytest.mark.parametrize("options", [{"Labels": {"a": "b"}}, None], ids=["options", "no options"])
def test_a_mount_without_a_source_gets_the_volume_that_was_made_for_it(
    target: str, options: Json | None
) -> None:
    asked = {"Type": "volume", "Target": target, "VolumeOptions": options}
    host = copied(container(host={"Mounts": [asked]}, mounts=[volume("abc", "/m")])).body["HostConfig"]
    assert host["Mounts"] == [asked | {"Source": "abc", "VolumeOptions": (options or {}) | {"NoCopy": True}}]
    assert not host["Binds"]


@pytest.mark.parametrize("engine", ENGINES)
def test_volumes_that_the_image_declares_are_bound_by_name(engine: str) -> None:
    old = container(engine)
    names = {mount["Destination"]: mount["Name"] for mount in old["Mounts"]}
    body = copied(old, engine=engine).body
    assert sorted(body["HostConfig"]["Binds"]) == sorted(f"{names[p]}:{p}:nocopy" for p in names)
    assert set(names) == {"/data", "/oldvol"}


@pytest.mark.parametrize("declared", ["/anon", "/anon/"])
def test_an_anonymous_volume_of_the_user_is_bound_by_name_and_declared_no_more(declared: str) -> None:
    volumes: Json = {"/data": {}, "/oldvol": {}, declared: {}}
    body = copied(container(config={"Volumes": volumes}, mounts=[volume("abc", "/anon")])).body
    assert body["HostConfig"]["Binds"] == ["abc:/anon:nocopy"]
    assert "Volumes" not in body


def test_a_declared_volume_that_is_mounted_by_other_means_stays_declared() -> None:
    old = container(
        config={"Volumes": {"/n/": {}}}, host={"Binds": ["named:/n"]}, mounts=[volume("named", "/n")]
    )
    body = copied(old).body
    assert body["Volumes"] == {"/n/": {}}
    assert body["HostConfig"]["Binds"] == ["named:/n"]


@pytest.mark.parametrize("bind", ["/single", "/single/"])
@pytest.mark.parametrize("hidden", [False, True], ids=["20.10", "28.5 hides the name"])
def test_a_bind_that_is_a_path_alone_gets_the_volume_that_was_made_for_it(bind: str, hidden: bool) -> None:
    mount = volume("abc", "/single", Mode="z")
    if hidden:
        del mount["Name"]
    host = copied(container(host={"Binds": [bind]}, mounts=[mount])).body["HostConfig"]
    assert host["Binds"] == ["abc:/single:nocopy"]


@pytest.mark.parametrize(
    ("taken", "host"),
    [
        ("/data", {"Binds": ["named:/data/"]}),
        ("/data", {"Mounts": [{"Type": "volume", "Source": "named", "Target": "/data/"}]}),
        ("/data", {"Tmpfs": {"/data/": ""}, "VolumesFrom": ["neighbour"]}),
    ],
    ids=["bind", "mount", "tmpfs over what another container shares"],
)
def test_no_destination_is_asked_for_twice(taken: str, host: Json) -> None:
    body = copied(container(host=host, mounts=[volume("named", taken)])).body
    assert (body["HostConfig"]["Binds"] or []) == host.get("Binds", [])


def test_a_read_only_volume_stays_read_only() -> None:
    old = container(mounts=[volume("abc", "/data", RW=False)])
    assert copied(old).body["HostConfig"]["Binds"] == ["abc:/data:ro,nocopy"]


def test_a_volume_of_another_driver_goes_by_its_name_wherever_it_is_mounted_from() -> None:
    old = container(mounts=[volume("abc", "/data", Driver="nfs", Source="/mnt/abc")])
    assert copied(old).body["HostConfig"]["Binds"] == ["abc:/data:nocopy"]


def test_a_volume_whose_name_cannot_be_known_is_refused() -> None:
    mount = volume("", "/single", Driver="nfs", Source="/mnt/abc")
    with pytest.raises(CopyRefused, match="name of its volume at /single"):
        copied(container(host={"Binds": ["/single"]}, mounts=[mount]))


def test_a_volume_that_the_new_image_does_not_declare_is_carried_and_remarked() -> None:
    copy = copied(container(mounts=[volume("abc", "/data"), volume("def", "/oldvol")]))
    assert "def:/oldvol:nocopy" in copy.body["HostConfig"]["Binds"]
    (remark,) = copy.remarks
    assert "/oldvol" in remark


def test_an_image_that_says_nothing_of_volumes_is_no_surprise() -> None:
    old = container(config={"Volumes": {"/anon": {}}}, mounts=[volume("abc", "/anon")])
    copy = copied(old, old_image=image("v1", Volumes=None), new_image=image("v2", Volumes=None))
    assert not copy.remarks


SHARED = [
    volume("abc", "/shared", RW=False),
    {"Type": "bind", "Source": "/etc", "Destination": "/h", "RW": False, "Propagation": "rprivate"},
    {"Type": "bind", "Source": "/mnt", "Destination": "/mnt", "RW": True, "Propagation": "rslave"},
    {"Type": "bind", "Source": "/opt", "Destination": "/opt", "RW": True, "Propagation": ""},
]


SHARING = around(mounts={NEIGHBOUR: sources({"Mounts": SHARED})})


@pytest.mark.parametrize(
    "source", ["neighbour", "neighbour:ro", NEIGHBOUR, NEIGHBOUR[:12], f"{NEIGHBOUR[:12]}:ro"]
)
def test_what_another_container_shares_is_left_to_come_from_it(source: str) -> None:
    copy = copied(container(host={"VolumesFrom": [source]}, mounts=SHARED), surroundings=SHARING)
    assert copy.body["HostConfig"]["VolumesFrom"] == [source]
    assert not copy.body["HostConfig"]["Binds"]
    assert not copy.remarks


def test_a_volume_of_the_image_is_bound_by_name_beside_what_another_container_shares() -> None:
    old = container(host={"VolumesFrom": ["neighbour"]}, mounts=[volume("def", "/data"), *SHARED])
    assert copied(old, surroundings=SHARING).body["HostConfig"]["Binds"] == ["def:/data:nocopy"]


def test_a_volume_of_the_image_that_another_container_shares_is_not_bound() -> None:
    shared = [volume("abc", "/data")]
    known = around(mounts={NEIGHBOUR: sources({"Mounts": shared})})
    old = container(config={"Volumes": {"/data": {}}}, host={"VolumesFrom": ["neighbour"]}, mounts=shared)
    assert not copied(old, surroundings=known).body["HostConfig"]["Binds"]


def test_what_another_container_shared_and_has_no_more_is_bound_by_name() -> None:
    known = around(mounts={NEIGHBOUR: sources({"Mounts": [volume("other", "/shared")]})})
    old = container(host={"VolumesFrom": ["neighbour"]}, mounts=[volume("abc", "/shared")])
    assert copied(old, surroundings=known).body["HostConfig"]["Binds"] == ["abc:/shared:nocopy"]


@pytest.mark.parametrize(
    "source", ["gone", "gone:ro", "neigh", NEIGHBOUR[:4], NEIGHBOUR[:11], GONE, GONE[:12]]
)
def test_what_a_container_shared_that_is_gone_is_bound_by_name(source: str) -> None:
    old = container(host={"VolumesFrom": [source, "neighbour:ro"]}, mounts=SHARED)
    copy = copied(old, surroundings=around(mounts={NEIGHBOUR: frozenset({("/elsewhere", "/x")})}))
    assert copy.body["HostConfig"]["VolumesFrom"] == ["neighbour:ro"]
    assert copy.body["HostConfig"]["Binds"] == [
        "abc:/shared:ro,nocopy",
        "/etc:/h:ro",
        "/mnt:/mnt:rslave",
        "/opt:/opt",
    ]
    (remark,) = copy.remarks
    assert remark.startswith(f"{source.removesuffix(':ro')}, ")


def test_the_list_of_sources_is_emptied_when_the_only_one_is_gone() -> None:
    host = copied(container(host={"VolumesFrom": ["gone"]}, mounts=SHARED)).body["HostConfig"]
    assert host["VolumesFrom"] == []


def test_volumes_come_from_the_container_that_replaced_their_source() -> None:
    old = container(host={"VolumesFrom": [f"{GONE}:ro"]}, mounts=SHARED)
    known = around(
        containers={GONE: "source"}, mounts={GONE: sources({"Mounts": SHARED})}, successors={GONE: NEIGHBOUR}
    )
    host = copied(old, surroundings=known).body["HostConfig"]
    assert host["VolumesFrom"] == [f"{NEIGHBOUR}:ro"]
    assert not host["Binds"]


def test_a_mount_that_nothing_explains_is_carried() -> None:
    host = copied(container(mounts=[volume("abc", "/elsewhere")])).body["HostConfig"]
    assert host["Binds"] == ["abc:/elsewhere:nocopy"]


@pytest.mark.parametrize("nothing", [None, []])
def test_lists_that_stay_empty_are_sent_as_they_were(nothing: list[str] | None) -> None:
    lists = {"Binds": nothing, "Mounts": nothing, "VolumesFrom": nothing}
    host = copied(container(host=lists, mounts=[])).body["HostConfig"]
    assert {key: host[key] for key in lists} == lists


def test_what_no_bind_can_bring_back_is_left_to_the_proof() -> None:
    """An image that a container which is gone had mounted: nothing tells which it was."""
    mount = {"Type": "image", "Source": "/overlay", "Destination": "/i", "RW": False, "Propagation": ""}
    host = copied(container(host={"VolumesFrom": ["gone"]}, mounts=[mount])).body["HostConfig"]
    assert not host["Binds"]
