"""What else the engine holds, as far as the copy of a container must know it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

_ID = re.compile(r"[0-9a-f]{64}")
_SHORT_ID = re.compile(r"[0-9a-f]{12}")
_BEGINNING = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Surroundings:
    """The engine around one container, read at one moment."""

    host_name: str  # `Name` of GET /info
    platform: str  # of the engine itself
    containers: Mapping[str, str]  # names without the leading slash, by id
    networks: frozenset[str]  # ids
    #: What each container has mounted: pairs of destination and source, by its id.
    mounts: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    running: frozenset[str] = frozenset()  # ids
    #: Of containers that the same deploy replaces: the name of the new one, by the id of the old.
    successors: Mapping[str, str] = field(default_factory=dict)

    def find(self, reference: str) -> str | None:
        """The id of the container that answers to this name, id, or short id.

        Of a shorter beginning of an id nobody can say that it is not the name of a container which is gone.
        """
        for container, name in self.containers.items():
            if reference in (container, name):
                return container
        if not _BEGINNING.fullmatch(reference):
            return None
        return next((container for container in self.containers if container.startswith(reference)), None)

    def holds(self, reference: str) -> bool:
        """Whether a container answers to it, or has a successor that will."""
        return self.find(reference) is not None or reference in self.successors

    def successor(self, reference: str) -> str:
        """The container that will stand where `reference` stands: mostly itself."""
        return self.successors.get(self.find(reference) or reference, reference)

    def followed_by(self, successors: Mapping[str, str]) -> Self:
        """The same, once these containers are replaced."""
        return replace(self, successors=successors)


def is_id(text: str) -> bool:
    return bool(_ID.fullmatch(text))


def is_short_id(text: str) -> bool:
    """Whether it looks like the name that the engine makes of an id where nobody chose one."""
    return bool(_SHORT_ID.fullmatch(text))
