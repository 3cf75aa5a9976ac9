"""What falls with a container when it is replaced, and in which order all of it is replaced."""

from typing import Any

import pytest

from lookout.dependents import depends_on, groups, needed_to_start
from lookout.model import Json
from lookout.names import name_of


def container(name: str, **host: Any) -> Json:
    return {"Id": identity(name), "Name": f"/{name}", "HostConfig": host}


def identity(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


def shares(name: str, other: str, mode: str = "NetworkMode") -> Json:
    return container(name, **{mode: f"container:{identity(other)}"})


def linked(name: str, *others: str) -> Json:
    return container(name, Links=[f"/{other}:/{name}/alias" for other in others])


def named(found: list[list[Json]]) -> list[list[str]]:
    return [[name_of(one) for one in group] for group in found]


@pytest.mark.parametrize("mode", ["NetworkMode", "PidMode", "IpcMode"])
def test_who_shares_a_namespace_depends_on_its_owner(mode: str) -> None:
    assert depends_on(shares("a", "vpn", mode), container("vpn"))
    assert not depends_on(shares("a", "vpn", mode), container("other"))
    assert not depends_on(container("vpn"), shares("a", "vpn", mode))


@pytest.mark.parametrize(
    ("target", "depends"),
    [("db", True), (f"db.lookout-old.{'0' * 12}", True), ("db2", False), ("my-db", False)],
)
def test_who_is_linked_depends_on_the_target_also_where_that_was_half_replaced(
    target: str, depends: bool
) -> None:
    assert depends_on(linked("web", target), container("db")) is depends


def test_neither_volumes_nor_links_of_a_users_network_make_a_dependent() -> None:
    free = container("a", VolumesFrom=["db", identity("db")], NetworkMode="back", Links=None)
    free["NetworkSettings"] = {"Networks": {"back": {"Links": ["db:db"]}}}
    assert not depends_on(free, container("db"))


def test_containers_that_do_not_need_each_other_are_groups_of_their_own_by_name() -> None:
    targets = [container("b"), container("a")]
    assert named(groups(targets, [*targets, container("c")])) == [["a"], ["b"]]


def test_what_depends_on_a_target_comes_after_it_and_what_depends_on_that_last() -> None:
    vpn = container("vpn")
    everyone = [shares("a-child", "vpn"), shares("b-grandchild", "a-child", "PidMode"), vpn, container("x")]
    assert named(groups([vpn], everyone)) == [["vpn", "a-child", "b-grandchild"]]


def test_two_targets_that_one_container_needs_are_one_group() -> None:
    targets = [container("db1"), container("db2"), container("db3")]
    everyone = [*targets, linked("a-web", "db1", "db3")]
    assert named(groups(targets, everyone)) == [["db1", "db3", "a-web"], ["db2"]]


def test_a_target_that_depends_on_a_target_comes_after_it() -> None:
    owner, guest = container("z-owner"), shares("a-guest", "z-owner")
    assert named(groups([guest, owner], [guest, owner])) == [["z-owner", "a-guest"]]
    assert named(groups([guest], [guest, owner])) == [["a-guest"]]


def test_a_ring_of_links_is_still_replaced() -> None:
    one, other = linked("a", "b"), linked("b", "a")
    assert named(groups([one], [one, other])) == [["a", "b"]]


def test_who_shares_a_namespace_or_is_linked_needs_the_other_to_start() -> None:
    both = shares("a", "vpn", "PidMode") | {"Name": "/a"}
    both["HostConfig"]["Links"] = ["/db:/a/alias"]
    assert [*needed_to_start(both)] == [identity("vpn"), "db"]
    assert not [*needed_to_start(container("a", NetworkMode="back", IpcMode="private", Links=None))]
