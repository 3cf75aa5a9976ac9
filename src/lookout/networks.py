"""How the copy joins the same networks: what was configured, and nothing of what was assigned.

Inspect shows both in one object. An address, an id or a generated MAC that is copied along turns a
run-time value into configuration, and it may clash with the container that still holds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lookout.model import Json
from lookout.names import short_id
from lookout.plan import Dropped
from lookout.surroundings import Surroundings, is_id, is_short_id

#: The first API that takes several networks, each with its own MAC address, at create.
ALL_AT_CREATE = (1, 44)

#: The first API in which the hostname is no alias, but one of the engine's own DNSNames.
HOSTNAME_APART = (1, 45)

DEFAULT_BRIDGE = "bridge"

#: How engines up to 27 begin the MAC address that they derive from an IPv4 address.
_DERIVED_MAC = "02:42"


@dataclass(frozen=True)
class Attachment:
    """How to put a container on its networks."""

    mode: str  # HostConfig.NetworkMode
    at_create: Json  # NetworkingConfig.EndpointsConfig
    connect: tuple[tuple[str, Json], ...]
    disconnect: tuple[str, ...]


def attachment(container: Json, api: tuple[int, int], around: Surroundings) -> Attachment:
    """The networks of `container`.

    The first one listed at create takes the place of the one that NetworkMode names; that one is
    joined only if the list is empty. So a container that was taken off it by hand stays off it, and
    only the container without any network needs to be taken off again.
    """
    mode = _mode(container, around)
    if not has_own_networks(mode):
        return Attachment(mode, {}, (), ())
    endpoints = _endpoints(container, mode, api, around)
    if not endpoints:
        return Attachment(mode, {}, (), _unwanted(container, mode))
    count = len(endpoints) if api >= ALL_AT_CREATE else 1
    return Attachment(mode, dict(endpoints[:count]), tuple(endpoints[count:]), ())


def has_own_networks(mode: str) -> bool:
    """Not on the host's network nor on another container's: these can be neither joined nor left."""
    return mode != "host" and not mode.startswith("container:")


def _networks(container: Json) -> dict[str, Json]:
    """The networks by name. One that the user gave by a short id is listed a second time by that."""
    listed = container["NetworkSettings"].get("Networks") or {}
    networks = {name: endpoint or {} for name, endpoint in listed.items()}
    named = {_id(endpoint) for name, endpoint in networks.items() if not _means(name, endpoint)}
    return {
        name: endpoint
        for name, endpoint in networks.items()
        if not (_means(name, endpoint) and _id(endpoint) in named)
    }


def _id(endpoint: Json) -> str:
    return endpoint.get("NetworkID") or ""


def _means(text: str, endpoint: Json) -> bool:
    """Whether `text` is the id, or the beginning of the id, of the network."""
    return _id(endpoint).startswith(text)


def _asked_mode(container: Json) -> str:
    return container["HostConfig"].get("NetworkMode") or "default"


def _mode(container: Json, around: Surroundings) -> str:
    """NetworkMode as it was given, but an id in full, and none of a network that is gone.

    The engine does not recognise the beginning of an id as the network that it has by its name.
    """
    mode, networks = _asked_mode(container), _networks(container)
    primary = _primary(mode, networks)
    if primary and primary != _key(mode):
        mode = _id(networks[primary])
    if is_id(mode) and mode not in around.networks:
        return primary or next(iter(networks), mode)
    return mode


def _primary(mode: str, networks: dict[str, Json]) -> str | None:
    """The name of the network that NetworkMode means, by name or by id, if the container is on it."""
    key = _key(mode)
    if key in networks:
        return key
    return next((name for name, endpoint in networks.items() if _means(key, endpoint)), None)


def _key(mode: str) -> str:
    return DEFAULT_BRIDGE if mode == "default" else mode


def _unwanted(container: Json, mode: str) -> tuple[str, ...]:
    """The network that create attaches by itself where the container is on none."""
    if _networks(container) or container["Config"].get("NetworkDisabled"):
        return ()
    return (_key(mode),)


def _endpoints(
    container: Json, mode: str, api: tuple[int, int], around: Surroundings
) -> list[tuple[str, Json]]:
    """What to send for each network, the primary one first.

    The primary goes by the very string of NetworkMode. With its name here and its id there, the
    engine takes it for two networks and refuses or forgets the MAC address.
    """
    networks = _networks(container)
    primary = _primary(mode, networks)
    return [
        (
            _key(mode) if name == primary else name,
            _endpoint(container, name, api, around) | (_mac(container, name) if api >= ALL_AT_CREATE else {}),
        )
        for name in sorted(networks, key=lambda name: name != primary)
        if name != "none"
    ]


def _endpoint(container: Json, name: str, api: tuple[int, int], around: Surroundings) -> Json:
    """What was configured for one network. The default bridge knows neither aliases nor addresses."""
    endpoint = _networks(container)[name]
    kept = {key: endpoint.get(key) for key in ("DriverOpts", "GwPriority")}
    if name != DEFAULT_BRIDGE:
        address = endpoint.get("IPAMConfig") or {}
        kept |= {
            "Aliases": [alias for alias in _aliases(container, name, api) if not _stale(alias, around)],
            "IPAMConfig": address if any(address.values()) else None,
            "Links": endpoint.get("Links"),
        }
    return {key: value for key, value in kept.items() if value}


def _aliases(container: Json, name: str, api: tuple[int, int]) -> list[str]:
    """The user's aliases. The engine adds the short id and the hostname, and will add them again."""
    added = {short_id(container["Id"])}
    if api < HOSTNAME_APART:
        added.add(container["Config"].get("Hostname"))
    return [a for a in _networks(container)[name].get("Aliases") or [] if a not in added]


def _stale(alias: str, around: Surroundings) -> bool:
    """Whether it is the short id of a container that is gone, taken for a name by a careless copy."""
    return is_short_id(alias) and not around.holds(alias)


def _mac(container: Json, name: str) -> Json:
    """The MAC address of one network, as far as it may have been configured.

    For the primary network Config tells. For the others, and where NetworkMode is an id, the engine
    shows only the address in use: it is kept unless it has the generated form, because losing one
    that a licence or a DHCP server knows is worse than keeping a random one. Only safe when the old
    container is stopped before the new one starts.
    """
    endpoint = _networks(container)[name]
    if name == _key(_asked_mode(container)):
        mac = container["Config"].get("MacAddress")
    else:
        mac = endpoint.get("MacAddress")
        if mac == _derived_mac(endpoint.get("IPAddress") or ""):
            mac = None
    return {"MacAddress": mac} if mac else {}


def _derived_mac(ipv4: str) -> str:
    return ":".join([_DERIVED_MAC, *(f"{int(part):02x}" for part in ipv4.split(".") if part)])


def identity(container: Json, api: tuple[int, int], host_name: str) -> Json:
    """Hostname, Domainname and the old place of the MAC address, in Config."""
    config, host = container["Config"], container["HostConfig"]
    mode = _asked_mode(container)
    hostname = config.get("Hostname")
    # The engine fills in the id or the host's own name; where UTS or network belong to somebody
    # else it shows a hostname and yet refuses to be given one.
    assigned = (
        hostname == short_id(container["Id"])
        or host.get("UTSMode") == "host"
        or (mode == "host" and hostname == host_name)
    )
    said = {"Hostname": None if assigned else hostname, "Domainname": config.get("Domainname")}
    if mode.startswith("container:"):
        said = {}
    elif api < ALL_AT_CREATE:
        said["MacAddress"] = config.get("MacAddress")
    return {key: value for key, value in said.items() if value}


def remarks(container: Json, api: tuple[int, int], around: Surroundings) -> Iterator[str]:
    """What may be a leftover, and what changes because its network is gone."""
    hostname = identity(container, api, around.host_name).get("Hostname") or ""
    if is_short_id(hostname):
        yield (
            f"the hostname {hostname} is kept, but it looks like the id of an earlier container "
            "that a careless copy has turned into a setting"
        )
    asked, mode = _asked_mode(container), _mode(container, around)
    if not mode.startswith(asked):
        yield f"the network {short_id(asked)} is gone; {mode} takes its place as the main network"


def dropped(container: Json, api: tuple[int, int], around: Surroundings) -> Iterator[Dropped]:
    """What inspect shows of the networks and is not configuration."""
    hostname = container["Config"].get("Hostname")
    if hostname == short_id(container["Id"]):
        yield Dropped(f"Hostname {hostname}", "the engine made it of the old container's id")
    mode = _mode(container, around)
    if not has_own_networks(mode):
        return
    sent = dict(_endpoints(container, mode, api, around))
    primary = _primary(mode, _networks(container))
    for name, endpoint in _networks(container).items():
        asked = sent.get(_key(mode) if name == primary else name, {})
        address, fixed = endpoint.get("IPAddress"), (asked.get("IPAMConfig") or {}).get("IPv4Address")
        if address and not fixed:
            yield Dropped(f"address {address} on {name}", "the engine assigned it; the new one gets its own")
        mac, kept = (
            endpoint.get("MacAddress"),
            asked.get("MacAddress") or container["Config"].get("MacAddress"),
        )
        if mac and mac != kept:
            yield Dropped(f"MAC address {mac} on {name}", "the engine generated it")
        for alias in _aliases(container, name, api):
            if _stale(alias, around):
                yield Dropped(f"alias {alias} on {name}", "it is the id of a container that is gone")
