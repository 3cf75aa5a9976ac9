"""Containers that live on another one's namespaces or links, and fall with it when it is replaced.

The engine keeps the id of the other container, not its name: after a replacement such a container
runs on with a network of nothing but `lo`, dies with the pid namespace, cannot be started again, or
(a link of the default bridge) cannot even be looked into. So it is recreated in the same swap.
Volumes from another container, and links on networks of the user's own, need nothing of this.
"""

from collections.abc import Iterable, Iterator, Sequence

from lookout.model import Json
from lookout.names import final_name, name_of
from lookout.plan import NAMESPACES


def shares_namespace(container: Json, other: Json) -> bool:
    """Whether `container` lives in a namespace of `other`."""
    shared = f"container:{other['Id']}"
    return any(container["HostConfig"].get(mode) == shared for mode in NAMESPACES)


def depends_on(container: Json, other: Json) -> bool:
    """Whether `container` must be recreated when `other` is replaced."""
    return shares_namespace(container, other) or final_name(name_of(other)) in _link_targets(container)


def needed_to_start(container: Json) -> Iterator[str]:
    """The containers, by id or name, that must run when this one is started."""
    for mode in NAMESPACES:
        kind, _, other = str(container["HostConfig"].get(mode) or "").partition(":")
        if kind == "container":
            yield other
    yield from _link_targets(container)


def _link_targets(container: Json) -> Iterator[str]:
    """A link follows its target by id: while that was half replaced it has shown a temporary name."""
    for link in container["HostConfig"].get("Links") or ():
        yield final_name(link.partition(":")[0].lstrip("/"))


def groups(targets: Sequence[Json], everyone: Iterable[Json]) -> list[list[Json]]:
    """The targets with all that depends on them: each group can be replaced without any other.

    Within a group a container comes after those that it depends on; groups are in the order of their
    first container's name.
    """
    everyone = sorted(everyone, key=name_of)
    members = _closure(targets, everyone)
    found: list[list[Json]] = []
    for container in members:
        related = [group for group in found if any(_related(container, other) for other in group)]
        found = [group for group in found if group not in related]
        found.append([*(member for group in related for member in group), container])
    return sorted((_ordered(group) for group in found), key=lambda group: name_of(group[0]))


def _closure(targets: Sequence[Json], everyone: Sequence[Json]) -> list[Json]:
    members = sorted(targets, key=name_of)
    for member in members:  # grows while it is walked
        known = {container["Id"] for container in members}
        members += [other for other in everyone if other["Id"] not in known and depends_on(other, member)]
    return members


def _related(one: Json, other: Json) -> bool:
    return depends_on(one, other) or depends_on(other, one)


def _ordered(group: list[Json]) -> list[Json]:
    """By dependence, then by name. A ring of links, which no engine starts, is broken by name."""
    waiting = sorted(group, key=name_of)
    ordered: list[Json] = []
    while waiting:
        free = (c for c in waiting if not any(depends_on(c, other) for other in waiting if other is not c))
        ordered.append(next(free, waiting[0]))
        waiting.remove(ordered[-1])
    return ordered
