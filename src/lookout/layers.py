"""Files of a container's own layer that were put there before it was started, and so are configuration.

The rest of that layer is the program's, and lost with every redeploy. Compose gives inline secrets and
configs (`content:`, `environment:`) no mount: it writes them into the layer as an archive, right before it
starts the container, from 2.40 on before each start. So such a file has a modification time in whole
seconds, which a program's own files do not have, between the creation and the latest start.
"""

import datetime
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lookout.model import Json
from lookout.names import FILES

#: Where compose puts secrets if it is told nothing else; nobody but it writes there.
SECRETS = "/run/secrets"
COMPOSE_PROJECT = "com.docker.compose.project"

#: More changed files than this are a program's own, and are not looked at one by one.
MOST_FILES = 1000
LONGEST_FILE = 1 << 20  # bytes; compose itself allows less than a mebibyte
#: An archive rounds a time to the next second, up or down.
ROUNDING = datetime.timedelta(seconds=1)
#: More files that look like it are no configs: some program sets times in whole seconds.
MOST_INJECTED = 100

_MODIFIED, _ADDED = 0, 1  # `Kind` of a file in GET /containers/{id}/changes
_NOT_REGULAR = 0x8F280000  # in the mode of a file as Go has it: folder, link, device, pipe, socket


@dataclass(frozen=True)
class Layer:
    """What a container's own layer holds."""

    changes: Sequence[Json] = ()  # GET /containers/{id}/changes
    stats: Mapping[str, Json] = field(default_factory=dict)  # of the `candidates` that are still there


NOTHING = Layer()


def candidates(container: Json, changes: Sequence[Json]) -> list[str]:
    """The paths of files that compose may have written, if it has made this container."""
    if not _is_composes(container) or FILES in _labels(container):
        return []
    paths = [path for path in _leaves(changes, _MODIFIED, _ADDED) if not _is_in(path, _places(container))]
    return paths if len(paths) <= MOST_FILES else []


def secrets(container: Json, layer: Layer) -> tuple[str, ...]:
    """What to copy of the folder for secrets: all of it, or if parts are mounted, the rest of it.

    The place of a mount is in the layer too, as an empty file or folder.
    """
    mounted = _mounted(container)
    found = [path for path in _leaves(layer.changes, _ADDED) if _is_below(path, SECRETS)]
    found = [path for path in found if not _is_in(path, mounted)]
    parts_mounted = any(_is_below(path, SECRETS) for path in mounted)
    return tuple(found) if parts_mounted else ((SECRETS,) if found else ())


def injected(container: Json, layer: Layer) -> tuple[str, ...]:
    """The other files that compose has written. On a copy its label names them: there they are older."""
    if FILES in _labels(container):
        there = set(_leaves(layer.changes, _MODIFIED, _ADDED))
        return tuple(path for path in json.loads(_labels(container)[FILES]) if path in there)
    found = sorted(path for path, stat in layer.stats.items() if _was_injected(container, stat))
    return tuple(found) if len(found) <= MOST_INJECTED else ()


def label(files: Sequence[str]) -> dict[str, str]:
    """The label by which the next copy knows these files again."""
    return {FILES: json.dumps(files)} if files else {}


def remarks(container: Json, layer: Layer) -> Iterator[str]:
    """Files at the root, where compose puts a config if it is told nothing else, that are not carried."""
    if not _is_composes(container):
        return
    if FILES not in _labels(container) and len(_leaves(layer.changes, _MODIFIED, _ADDED)) > MOST_FILES:
        yield f"more than {MOST_FILES} files of its own: inline configs are not looked for among them"
    carried = {*injected(container, layer), *_places(container)}
    for path in _leaves(layer.changes, _ADDED):
        if path.count("/") == 1 and not _is_in(path, carried):
            yield f"{path} is not copied; if it is an inline config, let compose recreate the container"


def _was_injected(container: Json, stat: Json) -> bool:
    if stat["mode"] & _NOT_REGULAR or stat["size"] > LONGEST_FILE:
        return False
    modified, created = _time(stat["mtime"]), _time(container["Created"])
    latest = max(created, _time(container["State"].get("StartedAt") or container["Created"]))
    return not modified.microsecond and created - ROUNDING <= modified <= latest + ROUNDING


def _time(text: str) -> datetime.datetime:
    """An engine's time; of its nanoseconds the microseconds are kept, rounded up so that some stay some."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.datetime.fromisoformat(f"{seconds[:19]}+00:00")
    return moment.replace(microsecond=min(-(-int(fraction.ljust(9, "0")[:9] or 0) // 1000), 999_999))


def _labels(container: Json) -> Mapping[str, str]:
    return container["Config"].get("Labels") or {}


def _is_composes(container: Json) -> bool:
    return COMPOSE_PROJECT in _labels(container)


def _places(container: Json) -> set[str]:
    """Where nothing is looked for: what is mounted, and the folder for secrets, which has a rule of its own."""
    return {*_mounted(container), SECRETS}


def _mounted(container: Json) -> set[str]:
    mounted = {mount["Destination"] for mount in container.get("Mounts") or []}
    return mounted | set(container["HostConfig"].get("Tmpfs") or {})


def _leaves(changes: Sequence[Json], *kinds: int) -> list[str]:
    """Changed files, and changed folders without anything changed below."""
    paths = {change["Path"] for change in changes if change.get("Kind") in kinds}
    folders = {path.rpartition("/")[0] for path in paths}
    return sorted(paths - folders)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _is_in(path: str, places: Collection[str]) -> bool:
    return any(path == place or _is_below(path, place) for place in places)
