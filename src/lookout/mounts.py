"""Data outlives its container: every mount of the old one is mounted again by name.

Inspect shows what was asked for (Binds, Mounts and VolumesFrom of HostConfig, Volumes of Config) and
what came of it (Mounts, at the top). A volume that was asked for without a name has one in the latter
only, so a copy of the request alone would get a new, empty volume in its place.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lookout.errors import CopyRefused
from lookout.model import Json
from lookout.plan import Change
from lookout.surroundings import Surroundings

_VOLUME_FOLDER = re.compile(r"/volumes/([^/]+)/_data$")

#: How a bind mount propagates where nobody has said it.
_DEFAULT_PROPAGATION = "rprivate"


@dataclass(frozen=True)
class Storage:
    """The request's part that brings the mounts back."""

    volumes: Json  # Config.Volumes
    host: Json  # Binds, Mounts and VolumesFrom of HostConfig


def storage(container: Json, defaults: Json, around: Surroundings) -> Storage:
    """Everything that is mounted in `container`, whose image has the Config `defaults`."""
    host = container["HostConfig"]
    there = mounted(container)
    binds = [_with_name(bind, there) for bind in host.get("Binds") or []]
    mounts = [_with_source(mount, there) for mount in host.get("Mounts") or []]
    sources = [
        _followed(source, around) for source in host.get("VolumesFrom") or [] if _resolves(source, around)
    ]
    carried = _carried(container, around)
    request = {
        "Binds": binds + [_bind(mount) for mount in carried.values()],
        "Mounts": mounts,
        "VolumesFrom": sources,
    }
    return Storage(
        volumes=_volumes(container, defaults, carried),
        # A list that was null or absent stays so, as long as there is nothing to put in it.
        host={key: value for key, value in request.items() if value or host.get(key)},
    )


def mounted(container: Json) -> dict[str, Json]:
    """What is mounted where. The destinations are normalised: `/d/` is asked for, `/d` shown."""
    return {_path(mount["Destination"]): mount for mount in container.get("Mounts") or []}


def _path(destination: str) -> str:
    return "/" + posixpath.normpath(destination).lstrip("/")


def _with_name(bind: str, there: dict[str, Json]) -> str:
    """A bind that is a path alone made an anonymous volume; ask for that very volume."""
    mount = there.get(_path(bind))
    return _bind(mount) if mount else bind


def _with_source(asked: Json, there: dict[str, Json]) -> Json:
    """`--mount type=volume` without a source made an anonymous volume too."""
    mount = there.get(_path(asked["Target"]))
    if asked.get("Type") != "volume" or asked.get("Source") or not mount:
        return asked
    options = (asked.get("VolumeOptions") or {}) | {"NoCopy": True}
    return asked | {"Source": volume_name(mount), "VolumeOptions": options}


def _bind(mount: Json) -> str:
    """The `-v` form of something that is mounted.

    `nocopy`, because create alone already writes: into a volume that is empty it copies the files of
    the new image, and changes its owner, while the old container is running on it.
    """
    options = [] if mount["RW"] else ["ro"]
    if mount["Type"] == "volume":
        return _joined(volume_name(mount), mount["Destination"], [*options, "nocopy"])
    if mount["Propagation"] not in ("", _DEFAULT_PROPAGATION):
        options.append(mount["Propagation"])
    return _joined(mount["Source"], mount["Destination"], options)


def _joined(source: str, destination: str, options: list[str]) -> str:
    return ":".join([source, destination, *([",".join(options)] if options else [])])


def volume_name(mount: Json) -> str:
    """The name of what is mounted. Engine 28 leaves it out where the bind was a path alone; its folder tells it."""
    if name := mount.get("Name"):
        return str(name)
    if folder := _VOLUME_FOLDER.search(mount["Source"]):
        return folder[1]
    raise CopyRefused(f"the engine does not tell the name of its volume at {mount['Destination']}")


def _carried(container: Json, around: Surroundings) -> dict[str, Json]:
    """What is mounted, and would not come back by asking again for what was asked for.

    These are the anonymous volumes, of the image and of `-v /path`, and all that came from containers
    which are gone, or have something else there by now. A volume of the old image is carried even if the
    new image declares none there.
    """
    host = container["HostConfig"]
    asked = {
        *(_destination(bind) for bind in host.get("Binds") or []),
        *(_path(mount["Target"]) for mount in host.get("Mounts") or []),
        # A tmpfs hides what VolumesFrom or the image put there, and no bind may share its path.
        *(_path(tmpfs) for tmpfs in host.get("Tmpfs") or {}),
    }
    shared = _shared(container, around)
    return {
        path: mount
        for path, mount in mounted(container).items()
        if path not in asked
        and (path, mount.get("Source")) not in shared
        and mount["Type"] in ("volume", "bind")
    }


def _shared(container: Json, around: Surroundings) -> set[tuple[str, str]]:
    """What the containers in VolumesFrom have mounted now, and so will bring again."""
    sources = (_container(source) for source in container["HostConfig"].get("VolumesFrom") or [])
    found = (around.mounts.get(around.find(source) or "", ()) for source in sources)
    return {(_path(destination), source) for pairs in found for destination, source in pairs}


def _destination(bind: str) -> str:
    parts = bind.split(":")
    return _path(parts[1] if len(parts) > 1 else bind)


def _paths(volumes: Iterable[str] | None) -> Iterator[str]:
    return map(_path, volumes or ())


def _volumes(container: Json, defaults: Json, carried: Iterable[str]) -> Json:
    """The user's own declarations of volumes, without those that are now bound by name."""
    settled = {*_paths(defaults.get("Volumes")), *carried}
    asked: Json = container["Config"].get("Volumes") or {}
    return {path: value for path, value in asked.items() if _path(path) not in settled}


def _resolves(source: str, around: Surroundings) -> bool:
    return around.holds(_container(source))


def _container(source: str) -> str:
    """The container in an entry of VolumesFrom: `name` or `name:ro`."""
    return source.partition(":")[0]


def _followed(source: str, around: Surroundings) -> str:
    """An id goes to the successor; a name will be the successor's by itself."""
    container, colon, mode = source.partition(":")
    if container in around.containers.values():
        return source
    return around.successor(container) + colon + mode


def remarks(container: Json, defaults: Json, new: Json, around: Surroundings) -> Iterator[str]:
    """What the mounts will be where that may surprise; `new` is the Config of the new image."""
    dropped = set(_paths(defaults.get("Volumes"))) - set(_paths(new.get("Volumes")))
    for path in _carried(container, around):
        if path in dropped:
            yield f"the new image declares no volume at {path}; the old one stays mounted there"
    for source in container["HostConfig"].get("VolumesFrom") or []:
        if not _resolves(source, around):
            yield (
                f"{_container(source)}, whose volumes it shares, is gone; "
                "they are mounted by name from now on, each as a whole"
            )


def changes(container: Json, new: Json) -> Iterator[Change]:
    """The volumes that the new image, whose Config is `new`, declares where nothing is mounted yet."""
    taken = {*mounted(container), *(_path(tmpfs) for tmpfs in container["HostConfig"].get("Tmpfs") or {})}
    for path in sorted(set(_paths(new.get("Volumes"))) - taken):
        yield Change(f"Volumes {path}", None, "a new volume")


def sources(container: Json) -> frozenset[tuple[str, str]]:
    """What a container has mounted: pairs of destination and source."""
    return frozenset(
        (str(mount["Destination"]), str(mount.get("Source"))) for mount in container.get("Mounts") or ()
    )
