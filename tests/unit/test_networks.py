"""The copy joins the same networks, by what was configured and not by what was assigned."""

from typing import Any

import pytest
from tests.unit.inspected import GONE, NEIGHBOUR, container, copied, endpoint

from lookout.model import Json
from lookout.plan import Plan

ID = "11ff" * 16
OLD_ID = container()["Id"]
MAC = "02:11:22:33:44:55"


def joined(copy: Plan) -> Json:
    """All networks of a copy, whether it joins them at create or later."""
    at_create: Json = copy.body.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    return at_create | dict(copy.connect)


def on(mode: str, *, config: Json | None = None, engine: str = "28.5", **networks: Json) -> Json:
    return container(engine, config=config, host={"NetworkMode": mode}, networks=networks)


@pytest.mark.parametrize("mode", ["host", f"container:{NEIGHBOUR}"])
def test_a_network_that_belongs_to_somebody_else_is_neither_configured_nor_left(mode: str) -> None:
    networks = {mode: endpoint(Aliases=["a"])} if mode == "host" else {}
    copy = copied(container(host={"NetworkMode": mode}, networks=networks))
    assert "NetworkingConfig" not in copy.body
    assert (copy.connect, copy.disconnect) == ((), ())


def test_a_container_without_network_sends_none() -> None:
    copy = copied(on("none", none=endpoint()))
    assert "NetworkingConfig" not in copy.body
    assert copy.disconnect == ()


def test_what_the_engine_assigned_is_not_configuration() -> None:
    assert joined(copied(on("back", back=endpoint()))) == {"back": {}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Aliases", ["a1", "a2"]),
        ("IPAMConfig", {"IPv4Address": "10.9.0.77", "LinkLocalIPs": ["169.254.1.1"]}),
        ("Links", ["db:thedb"]),
        ("DriverOpts", {"com.docker.network.endpoint.ifname": "eth7"}),
        ("GwPriority", -3),
    ],
)
def test_what_the_user_configured_on_a_network_is_kept(key: str, value: Any) -> None:
    assert joined(copied(on("back", back=endpoint(**{key: value})))) == {"back": {key: value}}


@pytest.mark.parametrize("empty", [{}, {"IPv4Address": ""}, None])
def test_an_address_configuration_without_an_address_is_none(empty: Json | None) -> None:
    assert joined(copied(on("back", back=endpoint(IPAMConfig=empty)))) == {"back": {}}


def test_the_default_bridge_gets_no_alias_and_no_address() -> None:
    bridge = endpoint(
        Aliases=["a"],
        IPAMConfig={"IPv4Address": "1.2.3.4"},
        Links=["a:b"],
        GwPriority=4,
        DriverOpts={"o": "1"},
    )
    assert joined(copied(on("bridge", bridge=bridge))) == {
        "bridge": {"GwPriority": 4, "DriverOpts": {"o": "1"}}
    }


@pytest.mark.parametrize(("api", "left"), [((1, 44), ["a1"]), ((1, 45), ["a1", "h1"])])
def test_the_aliases_that_the_engine_adds_are_left_to_it(api: tuple[int, int], left: list[str]) -> None:
    """From 1.45 on an alias that equals the hostname is the user's."""
    aliases = ["a1", OLD_ID[:12], "h1"]
    old = on("back", config={"Hostname": "h1"}, back=endpoint(Aliases=aliases))
    assert joined(copied(old, api=api))["back"]["Aliases"] == left


def test_an_alias_that_is_the_id_of_a_lost_container_is_dropped() -> None:
    copy = copied(on("back", back=endpoint(Aliases=[GONE[:12], NEIGHBOUR[:12], "a1"])))
    assert joined(copy) == {"back": {"Aliases": [NEIGHBOUR[:12], "a1"]}}
    (dropped,) = (one for one in copy.dropped if "alias" in one.field)
    assert GONE[:12] in dropped.field


@pytest.mark.parametrize(("api", "at_create"), [((1, 43), 1), ((1, 44), 2)])
def test_version_1_44_of_the_api_brought_several_networks_at_create(
    api: tuple[int, int], at_create: int
) -> None:
    copy = copied(on("back", config={"MacAddress": MAC}, back=endpoint(), front=endpoint()), api=api)
    assert len(copy.body["NetworkingConfig"]["EndpointsConfig"]) == at_create
    assert ("MacAddress" in copy.body) == (at_create == 1)


def test_an_engine_since_25_gets_all_networks_at_create() -> None:
    copy = copied(on("back", front=endpoint(Aliases=["b"]), back=endpoint(), extra=endpoint()))
    at_create = copy.body["NetworkingConfig"]["EndpointsConfig"]
    assert at_create == {"back": {}, "front": {"Aliases": ["b"]}, "extra": {}}
    assert copy.connect == ()


def test_an_older_engine_gets_the_main_network_and_joins_the_others() -> None:
    old = on("back", engine="20.10", front=endpoint(Aliases=["b"]), back=endpoint(), extra=endpoint())
    copy = copied(old, engine="20.10")
    assert copy.body["NetworkingConfig"]["EndpointsConfig"] == {"back": {}}
    assert copy.connect == (("front", {"Aliases": ["b"]}), ("extra", {}))


@pytest.mark.parametrize("engine", ["20.10", "28.5"])
@pytest.mark.parametrize("mode", ["bridge", "back", "none"])
def test_a_network_that_was_left_by_hand_is_not_joined_again(engine: str, mode: str) -> None:
    copy = copied(on(mode, engine=engine, front=endpoint(), extra=endpoint()), engine=engine)
    assert joined(copy) == {"front": {}, "extra": {}}
    assert next(iter(copy.body["NetworkingConfig"]["EndpointsConfig"])) == "front"
    assert copy.body["HostConfig"]["NetworkMode"] == mode
    assert copy.disconnect == ()


@pytest.mark.parametrize(("mode", "left"), [("back", "back"), ("default", "bridge"), ("none", "none")])
def test_a_container_that_has_left_all_networks_leaves_the_one_that_create_joins(
    mode: str, left: str
) -> None:
    copy = copied(on(mode))
    assert "NetworkingConfig" not in copy.body
    assert copy.disconnect == (left,)


def test_networks_may_be_null() -> None:
    old = container()
    old["NetworkSettings"]["Networks"] = None
    assert copied(old).disconnect == ("bridge",)


def test_an_endpoint_may_be_null() -> None:
    old = container(networks={"bridge": None, "back": None})
    assert joined(copied(old)) == {"bridge": {}, "back": {}}


def test_a_container_with_networking_disabled_has_nothing_to_leave() -> None:
    copy = copied(on("default", config={"NetworkDisabled": True}))
    assert copy.disconnect == ()
    assert copy.body["NetworkDisabled"] is True


def test_the_default_mode_is_the_default_bridge() -> None:
    copy = copied(on("default", bridge=endpoint()))
    assert joined(copy) == {"bridge": {}}
    assert copy.body["HostConfig"]["NetworkMode"] == "default"


@pytest.mark.parametrize("mode", [ID, ID[:12]], ids=["id", "short id"])
def test_a_network_given_by_id_goes_by_its_full_id_everywhere(mode: str) -> None:
    copy = copied(on(mode, front=endpoint("33dd" * 16), back=endpoint(ID, Aliases=["a"])))
    assert copy.body["HostConfig"]["NetworkMode"] == ID
    assert joined(copy) == {ID: {"Aliases": ["a"]}, "front": {}}
    assert not copy.remarks[1:]


@pytest.mark.parametrize("mode", [ID[:12], ID])
def test_a_network_that_is_listed_under_its_id_too_is_joined_once(mode: str) -> None:
    networks = {mode: endpoint(ID), "back": endpoint(ID, Aliases=["a"])}
    copy = copied(container(host={"NetworkMode": mode}, networks=networks))
    assert joined(copy) == {ID: {"Aliases": ["a"]}}


def test_a_network_that_is_listed_under_its_id_alone_is_joined() -> None:
    old = container(host={"NetworkMode": ID}, networks={ID: endpoint(ID)})
    assert joined(copied(old)) == {ID: {}}


@pytest.mark.parametrize(
    ("mode", "name"),
    [(GONE, "back"), (GONE[:12], "back"), ("be" * 32, "front")],
    ids=["listed", "short", "not listed"],
)
def test_the_id_of_a_network_that_is_gone_gives_way_to_a_name(mode: str, name: str) -> None:
    copy = copied(on(mode, front=endpoint(), back=endpoint(GONE)))
    assert copy.body["HostConfig"]["NetworkMode"] == name
    assert joined(copy) == {"back": {}, "front": {}}
    (remark,) = (r for r in copy.remarks if "network" in r)
    assert mode[:12] in remark


@pytest.mark.parametrize("mode", ["", None])
def test_no_mode_is_the_default_bridge(mode: str | None) -> None:
    old = container(config={"MacAddress": MAC}, host={"NetworkMode": mode})
    assert joined(copied(old)) == {"bridge": {"MacAddress": MAC}}


def test_the_mac_address_of_the_main_network_is_sent_only_if_config_has_it() -> None:
    back = endpoint(MacAddress="aa:8e:c5:6e:11:0d")
    assert joined(copied(on("back", back=back))) == {"back": {}}
    copy = copied(on("back", config={"MacAddress": MAC}, back=back))
    assert joined(copy) == {"back": {"MacAddress": MAC}}
    assert "MacAddress" not in copy.body


def test_the_mac_address_of_the_default_bridge_is_sent_too() -> None:
    copy = copied(on("default", config={"MacAddress": MAC}, bridge=endpoint()))
    assert joined(copy) == {"bridge": {"MacAddress": MAC}}


def test_an_older_engine_takes_the_mac_address_in_config() -> None:
    old = on(
        "back", engine="20.10", config={"MacAddress": MAC}, back=endpoint(), front=endpoint(MacAddress=MAC)
    )
    copy = copied(old, engine="20.10")
    assert copy.body["MacAddress"] == MAC
    assert joined(copy) == {"back": {}, "front": {}}


@pytest.mark.parametrize(
    ("mac", "kept"),
    [
        pytest.param(MAC, True, id="configured, or random"),
        pytest.param("02:42:0a:09:00:02", False, id="derived from the address"),
        pytest.param("02:42:0a:09:00:03", True, id="derived from another address"),
        pytest.param("", False, id="none"),
    ],
)
def test_the_mac_address_of_another_network_is_kept_unless_it_was_derived(mac: str, kept: bool) -> None:
    copy = copied(on("back", back=endpoint(), front=endpoint(MacAddress=mac, IPAddress="10.9.0.2")))
    assert joined(copy)["front"] == ({"MacAddress": mac} if kept else {})


def test_the_mac_address_of_a_network_without_ipv4_cannot_be_derived() -> None:
    copy = copied(on("back", back=endpoint(), front=endpoint(MacAddress=MAC, IPAddress="")))
    assert joined(copy)["front"] == {"MacAddress": MAC}


def test_a_main_network_given_by_id_keeps_the_mac_address_that_it_has() -> None:
    assert joined(copied(on(ID, back=endpoint(ID, MacAddress=MAC)))) == {ID: {"MacAddress": MAC}}


@pytest.mark.parametrize(
    ("host", "config", "sent"),
    [
        pytest.param({}, {}, {}, id="the engine's own"),
        pytest.param(
            {},
            {"Hostname": "h1", "Domainname": "ex.org"},
            {"Hostname": "h1", "Domainname": "ex.org"},
            id="the user's",
        ),
        pytest.param({"NetworkMode": "host"}, {"Hostname": "docker-host"}, {}, id="the host's"),
        pytest.param(
            {"NetworkMode": "host"},
            {"Hostname": "h1"},
            {"Hostname": "h1"},
            id="the user's on the host's network",
        ),
        pytest.param({}, {"Hostname": "docker-host"}, {"Hostname": "docker-host"}, id="the user's by chance"),
        pytest.param(
            {"UTSMode": "host"},
            {"Hostname": "h1", "Domainname": "ex.org"},
            {"Domainname": "ex.org"},
            id="the host's UTS namespace",
        ),
        pytest.param(
            {"NetworkMode": f"container:{NEIGHBOUR}"},
            {"Hostname": "h1", "Domainname": "ex.org", "MacAddress": MAC},
            {},
            id="another container's network",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["20.10", "28.5"])
def test_a_hostname_is_sent_if_the_user_chose_it(engine: str, host: Json, config: Json, sent: Json) -> None:
    body = copied(container(engine, host=host, config=config), engine=engine).body
    assert {key: body[key] for key in ("Hostname", "Domainname", "MacAddress") if key in body} == sent


def test_a_hostname_that_looks_like_another_containers_id_is_kept_and_remarked() -> None:
    copy = copied(container(config={"Hostname": GONE[:12]}, mounts=[]))
    assert copy.body["Hostname"] == GONE[:12]
    (remark,) = copy.remarks
    assert GONE[:12] in remark


def test_two_endpoints_without_an_id_are_two_networks() -> None:
    """As on a container that has never been started."""
    old = on("back", back=endpoint(NetworkID=""), front=endpoint(NetworkID=""))
    assert joined(copied(old)) == {"back": {}, "front": {}}
