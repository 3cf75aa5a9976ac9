"""What a copy of a container must look like, told without any of Lookout's code.

The measure is the twin: a container that was made from the very same options on the new image. A
faithful copy agrees with it in everything but identity. Where inspect cannot tell what the user
said from what the old image said, the copy may differ, and only in the way that is worked out here
from the options and the two images. Nothing is left out of the comparison because it is hard.
"""

import copy as copying
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.integration.create_options import GONE

Json = dict[str, Any]

#: Labels that stay with the container even if its image carries the same.
OWNED = ("com.docker.compose.", "com.docker.stack.", "com.docker.swarm.", "desktop.docker.io/")

_MASKED_CORE = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}
_READONLY_CORE = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
#: Two copies of a container are told apart by these, and by their ids in all other places.
_IDENTITY = ("Id", "Created", "Name", "State", "RestartCount", "GraphDriver", "ImageManifestDescriptor")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_SHORT_ID = re.compile(r"[0-9a-f]{12}")
#: Of an endpoint: what the engine assigns while the container runs.
_ASSIGNED = (
    *("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway"),
    *("GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames"),
)


@dataclass(frozen=True)
class Case:
    """One container that was made of `options`, and all that its copy must follow from."""

    options: Json  # the body of its create request
    source: Json  # its inspect
    old: Json  # Config of the image that it was made on
    new: Json  # Config of the image that it was copied to
    twin: Json  # inspect of a container made of the same options on the new image
    plain: Json  # HostConfig of a container that was made of no options at all
    shared: frozenset[str]  # destinations that VolumesFrom brings again
    gone: frozenset[str]  # destinations that it brought from containers which are not there any more
    api: tuple[int, int]
    same_image: bool = False


def differences(copy: Json, case: Case) -> list[str]:
    """Where `copy`, an inspect, is not what it must be; empty if it is faithful."""
    expected, found = _expected(case), _comparable(copy)
    _settle_mounts(expected, found, case)
    return sorted(_compare("", expected, found))


def unlike(one: Json, other: Json) -> list[str]:
    """Where two inspects differ in more than identity."""
    first, second = _comparable(one), _comparable(other)
    for said in (first, second):
        hidden = {_place(path) for path in said["HostConfig"].get("Tmpfs") or ()}
        said["Mounts"] = {
            mount["Destination"]: _fresh(mount, ()) if mount["Destination"] in hidden else _known(mount)
            for mount in said["Mounts"]
        }
    return sorted(_compare("", first, second))


def unfounded(case: Case) -> list[str]:
    """Where a copy would be allowed to differ from its twin although there is nothing to confuse.

    With an old image whose defaults nobody can have repeated, the expectation is the twin itself.
    This keeps the model honest: whatever it makes of the options must be what the engine made of them.
    """
    strange = {"Entrypoint": ["?"], "Cmd": ["?"]}
    options = case.options | {"Labels": _without_pins(case.options.get("Labels") or {})}
    expected = _expected(replace(case, options=options, old=strange, same_image=False))
    twin = _comparable(case.twin)
    for said in (expected, twin):
        del said["HostConfig"], said["NetworkSettings"], said["Config"]["Volumes"]
        said["Config"]["Labels"] = _without_pins(said["Config"]["Labels"])
        said["Config"]["Labels"].pop("com.docker.compose.replace", None)
    return sorted(_compare("", twin, expected))


def _without_pins(labels: Json) -> Json:
    return {key: value for key, value in labels.items() if key != "lookout.pin"}


# The expectation: the twin, and what cannot be told


def _expected(case: Case) -> Json:
    expected = _comparable(case.twin)
    config, host = expected["Config"], expected["HostConfig"]
    config["Entrypoint"], config["Cmd"] = _command(case)
    config["Env"] = _env(case) or None
    for field in ("User", "StopSignal", "WorkingDir"):
        if _said(case, field) and _same(field, case.options[field], case.old.get(field)):
            config[field] = case.new.get(field)
        if _pinned(case, field):
            config[field] = case.source["Config"][field]
    config["Labels"] = _labels(case)
    config["ExposedPorts"] = _exposed_ports(case)
    config["Healthcheck"] = _healthcheck(case, config.get("Healthcheck"))
    config["Volumes"] = _volumes(case)
    config["Cmd"] = config["Cmd"] or None
    words = [*(config["Entrypoint"] or []), *(config["Cmd"] or [])]
    expected["Path"], expected["Args"] = words[0], words[1:]
    host["ContainerIDFile"] = ""
    here = [source for source in host["VolumesFrom"] or [] if not source.startswith(GONE)]
    host["VolumesFrom"] = here or None
    for field, core in (("MaskedPaths", _MASKED_CORE), ("ReadonlyPaths", _READONLY_CORE)):
        if _looks_default(host.get(field), case.plain[field], core):
            host[field] = None if host.get("Privileged") else case.plain[field]
    _settle_networks(expected, case)
    return expected


def _said(case: Case, field: str) -> bool:
    return bool(case.options.get(field))


_PINS = {"User": "user", "StopSignal": "stop-signal", "WorkingDir": "workdir", "Healthcheck": "healthcheck"}


def _pinned(case: Case, field: str, part: str = "") -> bool:
    """Whether the container's label keeps the field, or this part of it, for what it is now."""
    label = (case.options.get("Labels") or {}).get("lookout.pin", "")
    words = {word.strip() for word in label.split(",")}
    return _PINS.get(field, field) in words or f"{field}:{part}" in words


def _words(value: Any) -> list[str]:
    """A command, which may be given as one string."""
    return [value] if isinstance(value, str) else list(value or [])


def _command(case: Case) -> tuple[Any, Any]:
    """Entrypoint and Cmd, as the table in section 3.2 of the specification has it."""
    twin, source = case.twin["Config"], case.source["Config"]
    if _pinned(case, "entrypoint") or (_pinned(case, "cmd") and not source.get("Cmd")):
        return source.get("Entrypoint"), source.get("Cmd")
    if _pinned(case, "cmd"):
        said = case.options.get("Entrypoint")
        inherited = _words(said) == _words(case.old.get("Entrypoint")) if said else said is None
        entrypoint = case.new.get("Entrypoint") if inherited else source.get("Entrypoint")
        return entrypoint, source.get("Cmd")
    old_entrypoint, old_cmd = _words(case.old.get("Entrypoint")), _words(case.old.get("Cmd"))
    new_entrypoint, new_cmd = case.new.get("Entrypoint"), case.new.get("Cmd")
    # null and [""] differ for the engine: with the second one the image's is cleared.
    said_entrypoint, said_cmd = case.options.get("Entrypoint"), _words(case.options.get("Cmd"))
    cleared = said_entrypoint in ([], [""])
    same_cmd = said_cmd == old_cmd
    if cleared and old_entrypoint:
        if said_entrypoint == [] and said_cmd and same_cmd:
            return [], new_cmd
        return twin.get("Entrypoint"), twin.get("Cmd")
    repeats = bool(said_entrypoint) and _words(said_entrypoint) == old_entrypoint
    if cleared or repeats:
        # As if no entrypoint had been given, but for the Cmd of the image: that was cleared with it.
        if said_cmd and not same_cmd:
            return new_entrypoint, said_cmd
        if said_cmd or not old_cmd or said_entrypoint == []:
            return new_entrypoint, new_cmd
        return twin.get("Entrypoint"), twin.get("Cmd")
    if not said_entrypoint and said_cmd and same_cmd:
        return new_entrypoint, new_cmd
    return twin.get("Entrypoint"), twin.get("Cmd")


def _env(case: Case) -> list[str]:
    """The user's entries but for those at the end that are just what the image would have added."""
    said: list[str] = case.options.get("Env") or []
    mine = len(said)
    for count in range(len(said), -1, -1):
        if said[count:] == _added(case.old, said[:count])[: len(said) - count]:
            mine = count
    others = said[mine:] + _added(case.old, said)
    kept = said[:mine] + [entry for entry in others if _pinned(case, "env", entry.split("=")[0])]
    return kept + _added(case.new, kept)


def _added(image: Json, said: list[str]) -> list[str]:
    keys = {entry.split("=")[0] for entry in said}
    return [entry for entry in image.get("Env") or [] if entry.split("=")[0] not in keys]


def _labels(case: Case) -> Json:
    said, old, new = (
        case.options.get("Labels") or {},
        case.old.get("Labels") or {},
        case.new.get("Labels") or {},
    )
    kept = {key: value for key, value in said.items() if old.get(key) != value or key.startswith(OWNED)}
    inherited = {key: value for key, value in old.items() if key.startswith(OWNED)}
    pinned = {key: v for key, v in {**old, **said}.items() if _pinned(case, "label", key)}
    pinned |= {**old, **said} if _pinned(case, "labels") else {}
    labels: Json = {**new, **inherited, **kept, **pinned}
    labels.pop("com.docker.compose.replace", None)
    return {key: value for key, value in labels.items() if not key.startswith("lookout.swap.")}


def _exposed_ports(case: Case) -> Any:
    said, old = set(case.options.get("ExposedPorts") or ()), set(case.old.get("ExposedPorts") or ())
    bound = set((case.options.get("HostConfig") or {}).get("PortBindings") or ())
    if (case.options.get("HostConfig") or {}).get("NetworkMode", "").startswith("container:"):
        return case.twin["Config"].get("ExposedPorts")
    ports = set(case.new.get("ExposedPorts") or ()) | (said - old) | (bound & (said | old))
    ports |= {port for port in said | old if _pinned(case, "expose", port.removesuffix("/tcp"))}
    return {port: {} for port in ports} or None


def _healthcheck(case: Case, twin: Json | None) -> Json | None:
    """Of the fields that the user gave, those that are equal to the old image's become the new one's."""
    said, old, new = (where.get("Healthcheck") or {} for where in (case.options, case.old, case.new))
    if _pinned(case, "Healthcheck"):
        source: Json | None = case.source["Config"].get("Healthcheck")
        return source
    merged = dict(twin or {})
    for field, value in said.items():
        if value and value == old.get(field):
            merged.pop(field, None)
            if field in new:
                merged[field] = new[field]
    return merged or None


def _looks_default(paths: list[str] | None, default: list[str], core: set[str]) -> bool:
    """Whether a list of hidden paths cannot be told from the default of this engine or an older one."""
    return bool(paths) and core <= set(paths or ()) <= set(default)


def _same(field: str, one: str, other: str | None) -> bool:
    if field == "WorkingDir":
        return posixpath.normpath(one) == posixpath.normpath(other or "")
    return one == other


# Mounts: what is anonymous is carried by name


def _place(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def _bind_parts(bind: str) -> tuple[str, str, frozenset[str]]:
    """Source (empty for an anonymous volume), destination and options."""
    parts = bind.split(":")
    if len(parts) == 1:
        return "", _place(bind), frozenset()
    return parts[0], _place(parts[1]), frozenset(parts[2].split(",") if len(parts) > 2 else ())


def _host(case: Case, field: str) -> Any:
    return (case.options.get("HostConfig") or {}).get(field) or []


def _bound(case: Case) -> dict[str, str]:
    """What stands at each destination by HostConfig: its kind, `anonymous` where only the place is given."""
    bound = {_place(path): "tmpfs" for path in _host(case, "Tmpfs")}
    for bind in _host(case, "Binds"):
        source, destination, _ = _bind_parts(bind)
        bound[destination] = "bind" if source else "anonymous bind"
    for mount in _host(case, "Mounts"):
        anonymous = mount["Type"] == "volume" and not mount.get("Source")
        bound[_place(mount["Target"])] = "anonymous mount" if anonymous else "mount"
    return bound


def _declared(*configs: Mapping[str, Any]) -> set[str]:
    return {_place(path) for config in configs for path in config.get("Volumes") or ()}


def _source_mounts(case: Case) -> dict[str, Json]:
    return {mount["Destination"]: mount for mount in case.source["Mounts"]}


def _carried(case: Case) -> dict[str, Json]:
    """What is mounted and would not come again by itself, by destination.

    These are the anonymous volumes, and what VolumesFrom brought from containers that are gone.
    """
    bound, declared = _bound(case), _declared(case.options, case.old)
    own = declared - case.shared | case.gone
    return {
        place: mount
        for place, mount in _source_mounts(case).items()
        if (place in own and place not in bound) or bound.get(place, "").startswith("anonymous")
    }


def _name(mount: Json) -> str:
    """The name of a volume; 28.5 leaves it out where the bind was a path alone."""
    if mount.get("Name"):
        return str(mount["Name"])
    return str(mount["Source"].split("/")[-2])


def _volumes(case: Case) -> Json | None:
    """Those of the new image, and the user's own except where they are now bound by name."""
    settled = _declared(case.old) | (_carried(case).keys() - _bound(case).keys())
    volumes: Json = {path: {} for path in case.new.get("Volumes") or ()}
    volumes |= {path: {} for path in case.options.get("Volumes") or () if _place(path) not in settled}
    return volumes or None


def _settle_mounts(expected: Json, found: Json, case: Case) -> None:
    """Turn what is carried into binds, of volumes by name and with no copy into them."""
    carried = _carried(case)
    by_mount = {place for place, kind in _bound(case).items() if kind == "anonymous mount"}
    volumes = {_name(mount) for mount in carried.values() if mount["Type"] == "volume"}
    host = expected["HostConfig"]

    binds = [_bind_parts(bind) for bind in host.get("Binds") or []]
    binds = [bind for bind in binds if bind[1] not in carried]
    binds += [
        (_source(mount), place, frozenset(_options(mount)))
        for place, mount in carried.items()
        if place not in by_mount
    ]
    host["Binds"] = _as_sorted(binds)
    found["HostConfig"]["Binds"] = _as_sorted(map(_bind_parts, found["HostConfig"].get("Binds") or []))

    for mount in host.get("Mounts") or []:
        if (place := _place(mount["Target"])) in carried:
            mount["Source"] = _source(carried[place])
            mount["VolumeOptions"] = (mount.get("VolumeOptions") or {}) | {"NoCopy": True}
            _forget_anonymity(mount)
    for mount in found["HostConfig"].get("Mounts") or []:
        _forget_anonymity(mount)

    mounts = {mount["Destination"]: mount for mount in expected["Mounts"]}
    # Under a tmpfs there can be a volume that nobody sees: what VolumesFrom brings, or a fresh one if
    # one is declared there and the two are spelt differently.
    tmpfs = host.get("Tmpfs") or {}
    for place in {_place(path) for path in tmpfs} - case.shared:
        if place not in _declared(expected["Config"]) or (place in case.gone and place in tmpfs):
            mounts.pop(place, None)
        elif place in case.gone:
            mounts[place] = _mounted_volume(place, "<fresh>", "<fresh>")
    for place, mount in carried.items():
        if mount["Type"] == "volume":
            mode = "z" if place in by_mount else ",".join(_options(mount))
            mounts[place] = _mounted_volume(place, _name(mount), mount["Source"], mode, writable=mount["RW"])
        else:
            mounts[place] = mount | {"Mode": ",".join(_options(mount))}
    expected["Mounts"] = {place: _fresh(mount, volumes) for place, mount in mounts.items()}
    found["Mounts"] = {mount["Destination"]: _fresh(mount, volumes) for mount in found["Mounts"]}


def _mounted_volume(place: str, name: str, source: str, mode: str = "", *, writable: bool = True) -> Json:
    told = {"Type": "volume", "Name": name, "Source": source, "Destination": place, "Driver": "local"}
    return told | {"Mode": mode, "RW": writable, "Propagation": ""}


def _source(mount: Json) -> str:
    return _name(mount) if mount["Type"] == "volume" else str(mount["Source"])


def _options(mount: Json) -> list[str]:
    return ["ro"] * (not mount["RW"]) + ["nocopy"] * (mount["Type"] == "volume")


def _forget_anonymity(mount: Json) -> None:
    """28.5 marks the options of a volume without a source, and the mark comes along."""
    labels = (mount.get("VolumeOptions") or {}).get("Labels")
    if labels:
        labels.pop("com.docker.volume.anonymous", None)
        if not labels:
            del mount["VolumeOptions"]["Labels"]


def _fresh(mount: Json, known: Collection[str]) -> Json:
    """A volume that was made just now for this one container has a name that nobody can know."""
    name = mount.get("Name") or ""
    if mount["Type"] == "volume" and name not in known and _ANONYMOUS.fullmatch(name):
        return mount | {"Name": "<fresh>", "Source": "<fresh>"}
    return _known(mount)


def _known(mount: Json) -> Json:
    """An image is mounted from a folder of its own for each container."""
    return mount | {"Source": "<layers>"} if mount["Type"] == "image" else mount


def _as_sorted(binds: Iterable[tuple[str, str, frozenset[str]]]) -> list[str]:
    return sorted(":".join([source, place, ",".join(sorted(options))]) for source, place, options in binds)


# Networks


def _settle_networks(expected: Json, case: Case) -> None:
    """Aliases and MAC addresses that may be the user's, or not."""
    primary = case.source["HostConfig"]["NetworkMode"]
    primary = "bridge" if primary == "default" else primary
    if primary not in case.source["NetworkSettings"]["Networks"] and case.api >= (1, 44):
        # It was meant for a network that was left by hand.
        expected["Config"].pop("MacAddress", None)
    for name, endpoint in expected["NetworkSettings"]["Networks"].items():
        # No container has this short id, so it is what a careless copy has left.
        aliases = [alias for alias in endpoint["Aliases"] or [] if not _SHORT_ID.fullmatch(alias)]
        endpoint["Aliases"] = aliases or None
        # A MAC address on another network than the first may be the user's, so it comes along.
        running = (case.source["NetworkSettings"]["Networks"].get(name) or {}).get("MacAddress") or ""
        address = (case.source["NetworkSettings"]["Networks"].get(name) or {}).get("IPAddress") or ""
        if name != primary and (running or _has_left_its_networks(case.source)) and case.api >= (1, 44):
            derived = ":".join(["02:42", *(f"{int(part):02x}" for part in address.split(".") if part)])
            endpoint["MacAddress"] = None if running == derived else running or None


def _has_left_its_networks(container: Json) -> bool:
    """After an end, or a start that failed, nothing shows the MAC address of a further network any more."""
    state = container["State"]
    return not state["Running"] and bool(state.get("Error") or not state["StartedAt"].startswith("0001"))


# Comparing


def _comparable(inspect: Json) -> Json:
    """Without what makes it this container and no other."""
    short, name = inspect["Id"][:12], inspect["Name"].lstrip("/")
    seen: Json = _renamed(copying.deepcopy(inspect), {inspect["Id"]: "<id>", name: "<name>"})
    for field in _IDENTITY:
        seen.pop(field, None)
    config, host = seen["Config"], seen["HostConfig"]
    # These mean the same empty and absent; and links the engine itself lists in any order.
    config |= {field: config.get(field) or None for field in ("Cmd", "Env", "Healthcheck")}
    host["Runtime"] = _runtime(host)
    host["VolumesFrom"] = host["VolumesFrom"] or None
    host["Links"] = sorted(host["Links"]) if host["Links"] else None
    config["Labels"] = {k: v for k, v in config["Labels"].items() if not k.startswith("lookout.swap.")}
    hostname = config["Hostname"]
    if hostname == short:
        config["Hostname"] = "<short id>"
    for endpoint in seen["NetworkSettings"]["Networks"].values():
        for field in _ASSIGNED:
            endpoint.pop(field, None)
        # The engine keeps an empty list or object apart from none here, and means the same.
        endpoint |= {field: value or None for field, value in endpoint.items()}
        # Both of these answer as names of the container without being asked for.
        aliases = [alias for alias in endpoint["Aliases"] or [] if alias not in (short, hostname)]
        endpoint["Aliases"] = aliases or None
    return seen


def _runtime(host: Json) -> str:
    """20.10 writes down its default only where HostConfig was sent at all."""
    return host.get("Runtime") or "runc"


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {_renamed(key, names): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, str):
        for name, replacement in names.items():
            value = value.replace(name, replacement)
    return value


def _compare(path: str, expected: Any, found: Any) -> Iterable[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            yield from _compare(f"{path}.{key}".lstrip("."), expected.get(key), found.get(key))
    elif expected != found:
        yield f"{path}: expected {expected!r}, found {found!r}"


def drifted(requests: Collection[Json], networks: Mapping[str, str]) -> list[str]:
    """Where requests for copies of copies, on one image, are not all the same.

    `networks` are names by id: as long as a container has not run, it does not tell the ids.
    """
    first, *others = (_renamed(_without_swap(request), networks) for request in requests)
    return sorted(difference for other in others for difference in _compare("", first, other))


def _without_swap(request: Json) -> Json:
    labels = {k: v for k, v in request.get("Labels", {}).items() if not k.startswith("lookout.swap.")}
    host = request["HostConfig"]
    links = {"Links": sorted(host["Links"])} if host.get("Links") else {}
    return request | {"Labels": labels, "HostConfig": host | links | {"Runtime": _runtime(host)}}
