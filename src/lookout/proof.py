"""The proof of a copy, before anything is stopped: the created container is held against its plan.

An engine drops what it does not know without a word, and another program may stand between Lookout
and the engine. So every value that was sent must be found again, and every mount and network that
the old container has. What an engine fills in where nothing was said is its own affair: it is
remarked where it differs from before, and refuses nothing.
"""

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lookout.model import Json
from lookout.mounts import mounted, volume_name
from lookout.plan import Plan

#: Fields of HostConfig in which an empty list is a setting: nothing is masked.
EMPTY_COUNTS = ("MaskedPaths", "ReadonlyPaths")
#: Lists to which the engine may add, or which it may order anew.
SETS = ("SecurityOpt", "CapAdd", "CapDrop", "Ulimits")
#: Fields that map what the user names to a value, which may be empty: the name must be there.
NAMED = (
    *("ExposedPorts", "Labels"),
    *("Annotations", "PortBindings", "StorageOpt", "Sysctls", "Tmpfs"),
)
#: What newer engines, or kernels with the second version of control groups, have no place for.
OBSOLETE = ("KernelMemory", "KernelMemoryTCP", "MemorySwappiness", "OomKillDisable")


@dataclass(frozen=True)
class Proof:
    """What differs from the plan, by field and never with a text that could be a secret."""

    differences: tuple[str, ...]
    remarks: tuple[str, ...]


def compare(plan: Plan, body: Json, new: Json, networks: Mapping[str, str]) -> Proof:
    """Hold the created container `new` against its plan and the request `body` that made it.

    `networks` are the names of all networks by id.
    """
    old = plan.container
    sent_networks = dict((body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}) | dict(
        plan.connect
    )
    return Proof(
        differences=(
            *_config(body, new["Config"]),
            *_host_config(body["HostConfig"], new["HostConfig"]),
            *_mounts(old, new),
            *_networks(sent_networks, old, new, networks),
        ),
        remarks=tuple(_engine_defaults(body["HostConfig"], old["HostConfig"], new["HostConfig"])),
    )


def _config(sent: Json, arrived: Json) -> Iterator[str]:
    for field, value in sent.items():
        if field not in ("HostConfig", "NetworkingConfig") and not _config_arrived(
            field, value, arrived.get(field)
        ):
            yield _told(field, value, arrived.get(field))


def _config_arrived(field: str, sent: Any, arrived: Any) -> bool:
    """Where the image has a say too, the user's part must be there."""
    match field:
        case "Env":
            return bool((arrived or [])[: len(sent)] == sent)
        case "Entrypoint":
            return bool((arrived or []) == ([] if sent == [""] else sent))
        case "WorkingDir":
            return _path(arrived or "") == _path(sent)
        case "MacAddress":
            return str(arrived).lower() == str(sent).lower()
        case "Volumes":
            return {_path(path) for path in sent} <= {_path(path) for path in arrived or {}}
        case _:
            return _named(field, sent, arrived) and _arrived(sent, arrived)


def _host_config(sent: Json, arrived: Json) -> Iterator[str]:
    for field, value in sent.items():
        gone = field in OBSOLETE and not arrived.get(field)
        if not gone and not _host_arrived(field, value, arrived.get(field)):
            yield _told(f"HostConfig.{field}", value, arrived.get(field))


def _host_arrived(field: str, sent: Any, arrived: Any) -> bool:
    if field in EMPTY_COUNTS and sent == []:
        return bool(arrived == [])
    if field in SETS:
        return not Counter(map(_comparable, sent or ())) - Counter(map(_comparable, arrived or ()))
    match field:
        case "NetworkMode":
            return _mode(sent) == _mode(arrived)
        case "Links":
            return Counter(map(_alias, sent or ())) == Counter(map(_alias, arrived or ()))
        case _:
            return _named(field, sent, arrived) and _arrived(sent, arrived)


def _named(field: str, sent: Any, arrived: Any) -> bool:
    return field not in NAMED or set(sent or ()) <= set(arrived or ())


def _comparable(entry: Any) -> str:
    """Engines write `NET_ADMIN` as `CAP_NET_ADMIN`; of the other entries the spelling stays."""
    return str(sorted(entry.items())) if isinstance(entry, dict) else entry.upper().removeprefix("CAP_")


def _mode(mode: str | None) -> str:
    return "bridge" if mode in (None, "", "default") else mode


def _alias(link: str) -> str:
    """Of `target:alias`, as it is asked for, and of `/target:/self/alias`, as it is shown."""
    return link.rpartition(":")[2].rpartition("/")[2]


def _arrived(sent: object, arrived: Any) -> bool:
    """Whether all of `sent` is in `arrived`. What was sent empty is the engine's to fill."""
    if isinstance(sent, dict):
        return all(_arrived(value, (arrived or {}).get(key)) for key, value in sent.items())
    if isinstance(sent, list) and isinstance(arrived, list) and sent:
        return len(sent) == len(arrived) and all(map(_arrived, sent, arrived))
    if sent is False:
        return not arrived
    return not sent or bool(sent == arrived)


def _engine_defaults(sent: Json, old: Json, new: Json) -> Iterator[str]:
    """Where nothing was said, an engine of another version may mean another thing by it."""
    for field in OBSOLETE:
        if sent.get(field) and not new.get(field):
            yield f"HostConfig.{field} is nothing that this engine and its kernel know any more"
    for field in sorted(new.keys() | old.keys() - {"ContainerIDFile"}):
        before, after = old.get(field) or None, new.get(field) or None
        left_to_it = not sent.get(field) and (field not in sent or not before)
        if left_to_it and before != after:
            yield f"HostConfig.{field} is the engine's, whose default has changed since it made the container"


def _mounts(old: Json, new: Json) -> Iterator[str]:
    there, hidden = mounted(new), {_path(tmpfs) for tmpfs in old["HostConfig"].get("Tmpfs") or {}}
    for path, mount in mounted(old).items():
        if path in hidden:
            continue
        if path not in there:
            yield f"the mount at {path} (missing)"
            continue
        for what, before, after in _sides(mount, there[path]):
            if before != after:
                yield f"the mount at {path} (another {what})"


def _sides(old: Json, new: Json) -> Iterator[tuple[str, Any, Any]]:
    yield "type", old["Type"], new["Type"]
    if old["Type"] == new["Type"] == "volume":
        yield "volume", volume_name(old), volume_name(new)
    elif old["Type"] == new["Type"] == "bind":
        yield "source", old.get("Source"), new.get("Source")
        yield "propagation", _propagation(old), _propagation(new)
    yield "access mode", old["RW"], new["RW"]


def _propagation(mount: Json) -> str:
    return str(mount.get("Propagation") or "rprivate")


def _networks(sent: Json, old: Json, new: Json, names: Mapping[str, str]) -> Iterator[str]:
    before, after = _by_name(old, names), _by_name(new, names)
    for name in sorted(before.keys() - after.keys()):
        yield f"network {name} (missing)"
    for name in sorted(after.keys() - before.keys()):
        yield f"network {name} (joined)"
    for key, asked in sent.items():
        endpoint = after.get(_name(key, names), {})
        for field, value in asked.items():
            if not _endpoint_arrived(field, value, endpoint.get(field)):
                yield f"network {_name(key, names)} ({field})"


def _endpoint_arrived(field: str, sent: Any, arrived: Any) -> bool:
    match field:
        case "Aliases" | "Links":
            return set(sent or ()) <= set(arrived or ())
        case "MacAddress":
            return str(arrived).lower() == str(sent).lower()
        case _:
            return _arrived(sent, arrived)


def _by_name(container: Json, names: Mapping[str, str]) -> dict[str, Json]:
    """The networks; one that was asked for by its id, or the beginning of it, is listed by that as well."""
    listed = container["NetworkSettings"].get("Networks") or {}
    return {
        names.get((endpoint or {}).get("NetworkID") or "", _name(key, names)): endpoint or {}
        for key, endpoint in listed.items()
    }


def _name(key: str, names: Mapping[str, str]) -> str:
    if key in names.values():
        return key
    if key == "default":
        return "bridge"
    return next((name for network, name in names.items() if network.startswith(key)), key)


def _path(destination: str) -> str:
    return posixpath.normpath(destination)


def _told(field: str, sent: Any, arrived: Any) -> str:
    """Numbers are told; a text could be a secret."""
    if isinstance(sent, int) and isinstance(arrived, int | None):
        return f"{field} ({sent} was asked for, the engine has {arrived})"
    return field
