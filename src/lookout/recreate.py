"""The pure copy: what to ask the engine for, so that a container runs again on another image.

It is what the user would have asked for, had the same command been run with the new image. Inspect
does not keep that command; `overrides`, `mounts` and `networks` each recover one part of it.
"""

import json
import re
from collections.abc import Iterator

from lookout import compose, layers, merge, mounts, names, networks, overrides, pins
from lookout.errors import CopyRefused
from lookout.layers import NOTHING, Layer
from lookout.model import Json
from lookout.names import name_of, policy_of
from lookout.plan import Dropped, Plan
from lookout.platforms import fits, platform_of_container, platform_of_image
from lookout.surroundings import Surroundings

__all__ = ["recreate"]

#: The Config fields that a rule of this package decides. All others come from the user alone.
RULED = {
    *("Image", "Env", "Entrypoint", "Cmd", "User", "WorkingDir", "StopSignal", "Labels"),
    *("ExposedPorts", "Healthcheck", "Volumes", "Hostname", "Domainname", "MacAddress"),
}

#: What engines hide of /proc and /sys when they are not told otherwise, over all their versions.
_MASKED = re.compile(
    r"/proc/(?:acpi|asound|interrupts|kcore|keys|latency_stats|sched_debug|scsi|timer_list|timer_stats)"
    r"|/sys/firmware|/sys/devices/virtual/powercap|/sys/devices/system/cpu/cpu\d+/thermal_throttle"
)
_ALWAYS_MASKED = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}
_READONLY = re.compile(r"/proc/(?:asound|bus|fs|irq|sys|sysrq-trigger)")
_ALWAYS_READONLY = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}


def recreate(
    container: Json,
    old_image: Json,
    new_image: Json,
    reference: str,
    api: tuple[int, int],
    around: Surroundings,
    layer: Layer = NOTHING,
) -> Plan:
    """The plan for `container` on the image `reference`, to be started once `container` is stopped.

    `old_image` is the image whose id the container carries, never the one that its tag means today;
    `layer` is what its own layer holds. All must be read with one and the same version of the
    API, and the request sent with it. Raises CopyRefused where a faithful copy cannot be made.
    """
    config, host = container["Config"], container["HostConfig"]
    defaults, new_defaults = old_image.get("Config") or {}, new_image.get("Config") or {}
    storage = mounts.storage(container, defaults, around)
    attachment = networks.attachment(container, api, around)
    pinned = pins.of(container)
    said = overrides.overrides(config, defaults, host.get("PortBindings") or {}, pinned)
    files = layers.injected(container, layer)
    ports = tuple(_port_remarks(host))
    body = {
        **{key: value for key, value in config.items() if key not in RULED and value is not None},
        **said,
        **networks.identity(container, api, around.host_name),
        "Image": reference,
        "Labels": _labels(container, said.get("Labels") or {}, reference, new_image["Id"])
        | layers.label(files),
        "HostConfig": _host_config(container, attachment.mode, around) | storage.host,
    }
    if storage.volumes:
        body["Volumes"] = storage.volumes
    if attachment.at_create:
        body["NetworkingConfig"] = {"EndpointsConfig": attachment.at_create}
    return Plan(
        container=container,
        name=name_of(container),
        new_name=names.new_name(name_of(container), container["Id"]),
        image=reference,
        image_id=new_image["Id"],
        platform=_platform(container, old_image, new_image, around),
        body=body,
        disconnect=attachment.disconnect,
        connect=attachment.connect,
        archives=(*layers.secrets(container, layer), *files),
        chooses_ports=bool(ports),
        changes=(*merge.changes(config, body, new_defaults), *mounts.changes(container, new_defaults)),
        dropped=(
            *_dropped_labels(config),
            *networks.dropped(container, api, around),
            *_dropped_masks(host, body["HostConfig"]),
        ),
        remarks=(
            *overrides.remarks(config, defaults, pinned),
            *mounts.remarks(container, defaults, new_defaults, around),
            *networks.remarks(container, api, around),
            *ports,
            *layers.remarks(container, layer),
            *compose.remarks(container, reference, around),
        ),
    )


def _platform(container: Json, old_image: Json, new_image: Json, around: Surroundings) -> str:
    """That of the new image, where the container is not for the one that the engine takes by itself."""
    own = platform_of_container(container) or platform_of_image(old_image)
    return "" if fits(own, around.platform) else platform_of_image(new_image) or own


def _labels(container: Json, said: Json, reference: str, image_id: str) -> Json:
    """The user's labels, and those by which this swap can be finished or undone after a crash."""
    swap = {
        names.REPLACES: container["Id"],
        names.NAME: name_of(container),
        names.MODE: names.STOP_FIRST,
        names.RESTART: json.dumps(policy_of(container)),
    }
    if reference.startswith("sha256:"):
        swap[names.IMAGE] = names.reference_of(container)
    return said | compose.labels(container, reference, image_id) | swap


def _host_config(container: Json, network_mode: str, around: Surroundings) -> Json:
    """HostConfig comes from the user alone, so it is sent as it is, but for a few fields."""
    host = container["HostConfig"] | {"NetworkMode": network_mode}
    kept = {key: value for key, value in host.items() if key != "ContainerIDFile"}
    for field in ("NetworkMode", "PidMode", "IpcMode"):
        if mode := host.get(field):
            kept[field] = _namespace(container, mode, around)
    if links := host.get("Links"):
        kept["Links"] = [_link(container, link, around) for link in links]
    if _is_default(host.get("MaskedPaths") or [], _MASKED, _ALWAYS_MASKED):
        del kept["MaskedPaths"]
    if _is_default(host.get("ReadonlyPaths") or [], _READONLY, _ALWAYS_READONLY):
        del kept["ReadonlyPaths"]
    return kept


def _namespace(container: Json, mode: str, around: Surroundings) -> str:
    """The namespace of another container goes by its id, even where the user gave a name."""
    kind, _, target = mode.partition(":")
    if kind != "container":
        return mode
    if not around.holds(target):
        raise CopyRefused(f"{name_of(container)} shares a namespace of container {target}, which is gone")
    return f"container:{around.successor(target)}"


def _link(container: Json, link: str, around: Surroundings) -> str:
    """`/target:/self/alias`, as inspect shows it, in the form of a request: `target:alias`.

    A link follows its target by id: while the target was replaced it has shown its temporary name.
    """
    target, _, alias = link.partition(":")
    name = names.final_name(target.lstrip("/"))
    if not around.holds(name):
        raise CopyRefused(f"{name_of(container)} is linked to container {name}, which is gone")
    return f"{around.successor(name)}:{alias.rpartition('/')[2]}"


def _is_default(paths: list[str], known: re.Pattern[str], core: set[str]) -> bool:
    """Whether it is what some engine filled in by itself.

    That must not be pinned: a later engine hides more. But a list that is empty or absent says that
    the user wants nothing hidden, and stays as it is.
    """
    return core.issubset(paths) and all(map(known.fullmatch, paths))


def _dropped_labels(config: Json) -> Iterator[Dropped]:
    for label in config.get("Labels") or {}:
        if label.startswith(names.PREFIX):
            yield Dropped(f"Labels {label}", "it is about an earlier swap")
        elif label == overrides.COMPOSE_REPLACE:
            yield Dropped(f"Labels {label}", "it is left of an earlier recreation by compose")


def _dropped_masks(host: Json, sent: Json) -> Iterator[Dropped]:
    for field in ("MaskedPaths", "ReadonlyPaths"):
        if host.get(field) and field not in sent:
            yield Dropped(field, "the default of the engine that made it; the present engine has its own")
    if host.get("ContainerIDFile"):
        yield Dropped("ContainerIDFile", "it was written by the client that made the container")


def _port_remarks(host: Json) -> Iterator[str]:
    """A port that the engine chose is run-time state: the copy gets one of its own."""
    if host.get("PublishAllPorts"):
        yield "all exposed ports are published on host ports that the engine chooses anew"
    for port, bindings in (host.get("PortBindings") or {}).items():
        if any(_is_chosen(binding.get("HostPort") or "0") for binding in bindings or []):
            yield f"port {port} is published on a host port that the engine chooses anew"


def _is_chosen(host_port: str) -> bool:
    return host_port == "0" or "-" in host_port
