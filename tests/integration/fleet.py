"""Many containers, each of an image of its own, made with as little work as real parts allow."""

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from testbed.engine import PrivateEngine
from testbed.images import make_image
from testbed.registry import Registry

OLD = "old"  # the tag that all of them run at first, and that nobody asks for
AT_A_TIME = 4


@dataclass(frozen=True)
class Runs:
    """What one container runs."""

    reference: str
    image: str  # the id
    is_running: bool


class Fleet:
    """So many containers, one for each of `repositories`, whose images of `tags` are in the registry.

    The content of an image tells its tag: `images` has the ids.
    """

    def __init__(
        self,
        engine: PrivateEngine,
        registry: Registry,
        *,
        size: int,
        tags: Sequence[str] = ("1", "2", "3", "4"),
    ) -> None:
        self.tags = tags
        self._engine = engine
        run = secrets.token_hex(4)
        self._label = f"lookout.test={run}"
        prefix = f"{registry.host}/test-{run}"
        self._names = {f"{prefix}/app{number}": f"lookout-test-{run}-{number}" for number in range(size)}
        self.repositories = [*self._names]
        self.images = {tag: make_image(engine, f"lookout-test-{run}:{tag}") for tag in (OLD, *tags)}

    def __enter__(self) -> Self:
        self._at_a_time(self._make)
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.remove_all(label=self._label)

    def runs(self) -> dict[str, Runs]:
        """What the container of each repository runs; those of another name, by that."""
        repositories = {name: repository for repository, name in self._names.items()}
        found = {}
        for container in map(self._engine.inspected, self._containers()):
            name = container["Name"][1:]
            found[repositories.get(name, name)] = Runs(
                container["Config"]["Image"], container["Image"], container["State"]["Running"]
            )
        return found

    def expected(self, repository: str, tag: str) -> Runs:
        return Runs(f"{repository}:{tag}", self.images[tag], is_running=True)

    def _containers(self) -> list[str]:
        return [container["Id"] for container in self._engine.listed(label=self._label)]

    def _at_a_time(self, make: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            [*pool.map(make, self.repositories)]

    def _make(self, repository: str) -> None:
        for tag in (OLD, *self.tags):
            self._engine.tag(self.images[tag], f"{repository}:{tag}")
        self._engine.push(repository)
        run = ("run", "-d", f"--name={self._names[repository]}", f"--label={self._label}", "--network=none")
        self._engine.docker(*run, f"{repository}:{OLD}")
