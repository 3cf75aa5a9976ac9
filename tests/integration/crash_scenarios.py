"""What is being deployed when something dies, and how it must look in the end."""

from dataclasses import dataclass
from typing import Literal

NEW, OLD = "2", "1"  # tags: what answers at the port of a container says which one it runs

#: The new image brings a volume of its own, which must go with it where it is given up.
FRESH = "VOLUME /fresh"
EXITS = 'CMD ["false"]'
#: Cannot work where a container has this variable, which the old image does not mind.
PICKY = 'CMD ["sh", "-c", "test -z \\"$BREAKS\\" && exec /app"]'


@dataclass(frozen=True)
class Part:
    """A container with all that a swap could lose.

    `number` makes its address and port its own. One with a `parent` shares the network of that one,
    and runs an image that is not deployed.
    """

    suffix: str
    number: int
    restart: str = "always"
    options: tuple[str, ...] = ()
    parent: str = ""

    @property
    def port(self) -> int:
        return 18300 + self.number


@dataclass(frozen=True)
class Scenario:
    """Containers of one image that get another one, and how that ends."""

    name: str
    parts: tuple[Part, ...]
    ends: Literal["new", "old"] = "new"
    changes: tuple[str, ...] = (FRESH,)  # Dockerfile lines of the new image

    def __str__(self) -> str:
        return self.name

    @property
    def tag(self) -> str:
        return NEW if self.ends == "new" else OLD


WEB = Part("web", 10)

GOOD = Scenario("good", (WEB,))
ROLLBACK = Scenario("rollback", (WEB,), "old", (FRESH, EXITS))
AUTO_REMOVE = Scenario("auto-remove", (Part("web", 10, "no", ("--rm",)),))
AUTO_REMOVE_ROLLBACK = Scenario("auto-remove-rollback", AUTO_REMOVE.parts, "old", (FRESH, EXITS))
REPLICAS = Scenario("replicas", (Part("a", 10), Part("b", 11, "unless-stopped")))
REPLICAS_ROLLBACK = Scenario(
    "replicas-rollback",
    (Part("a", 10), Part("b", 11, "on-failure:3", ("--env=BREAKS=yes",))),
    "old",
    (FRESH, PICKY),
)
CHILD = Scenario("child", (WEB, Part("child", 11, parent="web")))

SCENARIOS = (GOOD, ROLLBACK, AUTO_REMOVE, AUTO_REMOVE_ROLLBACK, REPLICAS, REPLICAS_ROLLBACK, CHILD)


def with_policy(restart: str) -> Scenario:
    """A good deploy of one container with this restart policy."""
    return Scenario(f"policy {restart}", (Part("web", 10, restart),))
