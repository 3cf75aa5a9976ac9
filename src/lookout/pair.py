"""Two containers of which one takes the place of the other, and what is seen of them."""

from dataclasses import dataclass

from lookout.model import Json
from lookout.names import done_name, is_leftover_name, name_of, new_name, old_name
from lookout.plan import Plan
from lookout.steps import Life, Named, Sight


@dataclass(frozen=True)
class Pair:
    """Which containers a swap is about, as it is known from its plan or read from labels."""

    name: str
    old_id: str  # of the container to go back to
    new_id: str  # empty where there is none
    served_id: str  # of the container that served: the old one, or the one that it stands in for
    policy: Json  # the old container's own restart policy
    serves: bool
    stop_timeout: int | None = None  # of the container that served, in seconds; None for the engine's own
    shares_namespace: bool = False  # of another container
    chooses_ports: bool = False  # whether the engine chooses some host port anew
    old_image: str = ""
    image: str = ""

    @property
    def stands_in(self) -> bool:
        return self.old_id != self.served_id

    @property
    def new_name(self) -> str:
        return new_name(self.name, self.served_id)

    @property
    def old_name(self) -> str:
        return old_name(self.name, self.served_id)

    @property
    def done_name(self) -> str:
        return done_name(self.name, self.served_id)


def mark_of(policy: Json) -> Json:
    """The restart policy that says that the stop may have begun, which the container has not had before.

    With either an engine that restarts leaves it stopped. Where it can be, it is `unless-stopped`: then a
    machine that restarts before the stop brings the container back.
    """
    return {"Name": "no" if policy.get("Name") == "unless-stopped" else "unless-stopped"}


def expected(plan: Plan) -> Sight:
    """What will be seen when the new container is made, and nothing is stopped yet."""
    served = Life.UP if plan.runs else Life.DOWN
    return Sight(
        old=Life.CREATED if plan.standin else served,
        old_named=Named.ASIDE if plan.standin else Named.OWN,
        new=Life.CREATED,
        new_named=Named.ASIDE,
        live=served if plan.standin else None,
        serves=plan.runs,
    )


def life_of(container: Json | None) -> Life:
    """The state of an inspected container; None is none."""
    if container is None:
        return Life.GONE
    state = container["State"]
    if state.get("Restarting"):
        return Life.LOOPING
    if state.get("Running") or state.get("Paused"):
        return Life.UP
    return Life.CREATED if state.get("Status") == "created" else Life.DOWN


def named(container: Json | None, pair: Pair) -> Named:
    """Which of its names a container of the pair has."""
    name = name_of(container) if container else ""
    if name == pair.name:
        return Named.OWN
    if name == pair.done_name:
        return Named.DONE
    return Named.ASIDE if is_leftover_name(name) else Named.OTHER
