"""What real engines answered to inspect, to be changed and copied.

The images `app:v1` and `app:v2` differ in every default. `plain` is a container of v1 without any
option, `web` one with many, on two networks.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lookout.layers import Layer
from lookout.model import Json
from lookout.names import name_of
from lookout.plan import Plan
from lookout.recreate import recreate
from lookout.surroundings import Surroundings

API = {"20.10": (1, 41), "28.5": (1, 51)}
ENGINES = tuple(API)

#: Id of a container that is still there.
NEIGHBOUR = "ab12" * 16
#: Id of one that is not.
GONE = "de34" * 16


def recorded(engine: str, what: str) -> Json:
    path = Path(__file__).parent / "inspects" / f"engine-{engine}.json"
    found: Json = json.loads(path.read_text())[what]
    return found


def container(
    engine: str = "28.5",
    what: str = "plain",
    *,
    config: Json | None = None,
    host: Json | None = None,
    networks: Json | None = None,
    mounts: list[Json] | None = None,
) -> Json:
    """A recorded container, with some fields of it changed; `networks` and `mounts` replace all."""
    found = recorded(engine, what)
    found["Config"] |= config or {}
    found["HostConfig"] |= host or {}
    if networks is not None:
        found["NetworkSettings"]["Networks"] = networks
    if mounts is not None:
        found["Mounts"] = mounts
    return found


def image(tag: str = "v1", engine: str = "28.5", **config: Any) -> Json:
    """A recorded image, with some fields of its Config changed; None removes the key, as engines do."""
    found = recorded(engine, tag)
    changed = found["Config"] | config
    return found | {"Config": {key: value for key, value in changed.items() if value is not None}}


def volume(name: str, destination: str, **changes: Any) -> Json:
    """An entry of Mounts."""
    return {
        "Type": "volume",
        "Name": name,
        "Source": f"/var/lib/docker/volumes/{name}/_data",
        "Destination": destination,
        "Driver": "local",
        "Mode": "",
        "RW": True,
        "Propagation": "",
    } | changes


def endpoint(network_id: str = "", **changes: Any) -> Json:
    """An entry of NetworkSettings.Networks, as a running container shows it."""
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": "02:42:0a:09:00:02",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": network_id or "11ff" * 16,
        "EndpointID": "22ee" * 16,
        "Gateway": "10.9.0.1",
        "IPAddress": "10.9.0.2",
        "IPPrefixLen": 24,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": ["plain"],
    } | changes


def around(**changes: Any) -> Surroundings:
    """An engine with one neighbour, whose network ids are those of `endpoint`."""
    known: Json = {
        "platform": "linux/amd64",
        "host_name": "docker-host",
        "containers": {NEIGHBOUR: "neighbour"},
        "networks": frozenset({"11ff" * 16}),
    }
    return Surroundings(**(known | changes))


def copied(
    old: Json,
    *,
    engine: str = "28.5",
    api: tuple[int, int] | None = None,
    old_image: Json | None = None,
    new_image: Json | None = None,
    reference: str = "app:v2",
    surroundings: Surroundings | None = None,
    changes: list[Json] | None = None,
    stats: Json | None = None,
) -> Plan:
    """The copy of a container of v1 onto v2."""
    known = surroundings or around()
    return recreate(
        old,
        image("v1", engine) if old_image is None else old_image,
        image("v2", engine) if new_image is None else new_image,
        reference,
        api or API[engine],
        replace(known, containers={**known.containers, old["Id"]: name_of(old)}),
        Layer(changes or (), stats or {}),
    )
