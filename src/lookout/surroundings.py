"""What else the engine holds, as far as the copy of a container must know it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_ID = re.compile(r"[0-9a-f]{64}")
_SHORT_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Surroundings:
    """The engine around one container, read at one moment."""

    host_name: str  # `Name` of GET /info
    containers: frozenset[str]  # ids, and names without the leading slash
    networks: frozenset[str]  # ids
    #: Of containers that were replaced just now: old id to new id.
    successors: Mapping[str, str] = field(default_factory=dict)

    def holds(self, reference: str) -> bool:
        """Whether a container answers to this name, id, or beginning of an id."""
        return reference in self.containers or any(
            is_id(known) and known.startswith(reference) for known in self.containers
        )

    def successor(self, reference: str) -> str:
        """The container that stands now where `reference` stood: mostly itself."""
        return self.successors.get(reference, reference)


def is_id(text: str) -> bool:
    return bool(_ID.fullmatch(text))


def is_short_id(text: str) -> bool:
    """Whether it looks like the name that the engine makes of an id where nobody chose one."""
    return bool(_SHORT_ID.fullmatch(text))
