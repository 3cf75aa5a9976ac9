"""What will be done with a container, before anything is done: made by `recreate`, carried out by `swap`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

from lookout.model import ImageRef, Json
from lookout.names import policy_of

#: Fields of HostConfig that may name the container whose namespace is shared.
NAMESPACES = ("NetworkMode", "PidMode", "IpcMode")


@dataclass(frozen=True)
class Change:
    """A value that the container has from its image, and what the new image makes of it; None is none."""

    field: str  # `User`, `Env LEVEL`, `Labels role`
    old: object
    new: object


@dataclass(frozen=True)
class Dropped:
    """Something that inspect shows and that is not asked for again, and why."""

    field: str
    why: str


@dataclass(frozen=True)
class Plan:
    """How one container is replaced; nothing in it needs another look at the engine."""

    container: Json  # as it was inspected
    name: str
    new_name: str  # of the new container, until it takes over
    image: str  # the new reference
    image_id: str  # empty where the image is not on the engine yet
    platform: str  # to ask for in create; empty where it is the engine's own
    body: Json  # the create request, with HostConfig and NetworkingConfig
    disconnect: tuple[str, ...]  # networks to leave after create, before any is connected
    connect: tuple[tuple[str, Json], ...]  # networks to join then, with their EndpointConfig
    archives: tuple[str, ...]  # paths of files that live in the old container's own layer
    chooses_ports: bool  # whether the engine chooses some host port anew
    changes: tuple[Change, ...]  # what comes from the new image
    dropped: tuple[Dropped, ...]
    remarks: tuple[str, ...]  # what could not be decided, and what will be different
    #: Names of the containers because of which it is recreated, on its own image; none for a target.
    follows: tuple[str, ...] = ()
    #: The same on the old image, where the engine removes the old container when it stops: the way back.
    standin: "Plan | None" = None
    monitor_seconds: float | None = None  # what the container's label asks for

    @property
    def policy(self) -> Json:
        """Its restart policy."""
        return policy_of(self.container)

    @property
    def old_id(self) -> str:
        return str(self.container["Id"])

    @property
    def runs(self) -> bool:
        """Whether the container runs, or tries to: a stopped one is replaced by a stopped one."""
        state = self.container["State"]
        return bool(state.get("Running") or state.get("Restarting"))

    @property
    def shares_namespace(self) -> bool:
        return lives_in_another(self.container)


def lives_in_another(container: Json) -> bool:
    """Whether an inspected container lives in a namespace of another one."""
    host = container["HostConfig"]
    return any(str(host.get(mode)).startswith("container:") for mode in NAMESPACES)


#: Containers that must be replaced together, each after those that it depends on.
Group = tuple[Plan, ...]


@dataclass(frozen=True)
class DeployPlan:
    """What a message does on this engine."""

    image: ImageRef
    groups: tuple[Group, ...]
    unchanged: tuple[str, ...]  # names of containers that run the image already
    left_alone: tuple[tuple[str, str], ...]  # names, and why

    @property
    def plans(self) -> Iterator[Plan]:
        return chain.from_iterable(self.groups)

    @property
    def names(self) -> set[str]:
        """Of the containers that would be touched."""
        return {plan.name for plan in self.plans}

    @property
    def stale(self) -> set[str]:
        """Names of the containers that get another image."""
        return {plan.name for plan in self.plans if not plan.follows}

    def about(self, name: str) -> "DeployPlan":
        """The part of it in which this container has a place."""
        return replace(
            self,
            groups=tuple(group for group in self.groups if any(plan.name == name for plan in group)),
            unchanged=tuple(other for other in self.unchanged if other == name),
            left_alone=tuple(pair for pair in self.left_alone if pair[0] == name),
        )
