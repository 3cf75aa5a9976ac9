"""Two images that differ in every default, and a bench on which containers of the one are copied to the other."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from lookout.engine import Engine
from lookout.errors import NotFound
from lookout.model import Json
from lookout.names import PREFIX
from testbed.engine import PrivateEngine
from testbed.images import make_image
from tests.integration.deploys import Clone, clone
from tests.integration.watching import volumes

SECOND = 10**9  # nanoseconds

REPOSITORY = "lookout-test/merging"
V1, V2 = f"{REPOSITORY}:v1", f"{REPOSITORY}:v2"

#: The first API in which a healthcheck has a StartInterval.
START_INTERVAL = (1, 44)

#: Config of the images. StartInterval is left out where the engine does not know it.
ONE: Json = {
    "User": "guest",
    "Env": ["PATH=/one:/bin", "LEVEL=info", "VERSION=1", "MODE=prod", "GONE=1"],
    "Cmd": ["/app", "cmd1"],
    "Entrypoint": ["/entry1"],
    "WorkingDir": "/srv/one",
    "StopSignal": "SIGINT",
    "Labels": {"role": "one", "tier": "web", "only.in.v1": "yes"},
    "ExposedPorts": {"8080/tcp": {}, "9000/udp": {}},
    "Volumes": {"/data": {}, "/oldvol": {}},
    "Healthcheck": {
        "Test": ["CMD", "test", "-d", "/srv/one"],
        "Interval": 11 * SECOND,
        "Timeout": 12 * SECOND,
        "StartPeriod": 13 * SECOND,
        "StartInterval": 14 * SECOND,
        "Retries": 15,
    },
}
TWO: Json = {
    "User": "root",
    "Env": ["PATH=/two:/bin", "LEVEL=debug", "VERSION=2", "MODE=test", "NEWENV=2"],
    "Cmd": ["/app", "cmd2"],
    "Entrypoint": ["/entry2"],
    "WorkingDir": "/srv/two",
    "StopSignal": "SIGQUIT",
    "Labels": {"role": "two", "tier": "db", "only.in.v2": "yes"},
    "ExposedPorts": {"8081/tcp": {}},
    "Volumes": {"/data": {}, "/newvol": {}},
    "Healthcheck": {
        "Test": ["CMD", "test", "-d", "/srv/two"],
        "Interval": 21 * SECOND,
        "Timeout": 22 * SECOND,
        "StartPeriod": 23 * SECOND,
        "StartInterval": 24 * SECOND,
        "Retries": 25,
    },
}


class Bench:
    """Containers of v1 and their copies on one engine; all of them are removed when the test ends."""

    def __init__(self, engine: PrivateEngine, connection: Engine, api: tuple[int, int]) -> None:
        self.engine, self.connection, self.api = engine, connection, api
        self.one, self.two = _defaults(ONE, api), _defaults(TWO, api)
        self._run = f"lookout-test-{secrets.token_hex(4)}"
        self._count = 0
        self._containers: list[str] = []
        self._networks: list[str] = []
        self._volumes: list[str] = []

    async def create(self, body: Json | None = None, image: str = V1) -> str:
        """Make a container by the API, from this request exactly, and return its id."""
        # Without a HostConfig the engine does not even fill in its own defaults; no client does that.
        request = {"Image": image, "HostConfig": {}} | (body or {})
        self._containers.append(await self.connection.create(self.name(), request))
        return self._containers[-1]

    async def run(self, body: Json | None = None, image: str = V1) -> str:
        """Make a container and start it."""
        container = await self.create(body, image)
        await self.connection.start(container)
        return container

    async def clone(self, container: str, image: str = V2, **options: Any) -> Clone:
        """Copy a container to another image as a deploy would, without starting it."""
        copy = await clone(self.connection, container, image, **options)
        self._containers.append(copy.id)
        return copy

    async def inspect(self, container: str) -> Json:
        return await self.connection.container(container)

    async def swap(self, old: str, new: str) -> Json:
        """Stop the one, start the other, and inspect the latter."""
        await self.connection.stop(old, within=0)
        await self.connection.start(new)
        return await self.inspect(new)

    def execute(self, container: str, *command: str) -> str:
        return self.engine.docker("exec", container, *command)

    def name(self) -> str:
        """A name that no other test uses, for whatever is made here."""
        self._count += 1
        return f"{self._run}-{self._count}"

    def network(self, *arguments: str) -> tuple[str, str]:
        """Make a network; its name and its id."""
        self._networks.append(self.name())
        name = self._networks[-1]
        return name, self.engine.docker("network", "create", *arguments, name)

    def volume(self, *arguments: str) -> str:
        """Make a volume; its name."""
        self._volumes.append(self.name())
        return self.engine.docker("volume", "create", *arguments, self._volumes[-1])

    def volumes(self) -> set[str]:
        """Names of all volumes that the engine has."""
        return volumes(self.engine)

    async def close(self) -> None:
        removals = [self.connection.remove(made, volumes=True, force=True) for made in self._containers]
        problems = await asyncio.gather(*removals, return_exceptions=True)
        for kind, made in (("networks", self._networks), ("volumes", self._volumes)):
            for name in made:
                self.engine.delete(f"/{kind}/{name}")
        for problem in problems:
            if problem and not isinstance(problem, NotFound):
                raise problem


@asynccontextmanager
async def bench_on(engine: PrivateEngine, connection: Engine) -> AsyncIterator[Bench]:
    """A bench on an engine that has both images."""
    api = await connection.api()
    _make_images(engine, api)
    bench = Bench(engine, connection, api)
    try:
        yield bench
    finally:
        await bench.close()


def without_swap(labels: Json) -> Json:
    """The labels that are not Lookout's own notes on the swap."""
    return {key: value for key, value in labels.items() if not key.startswith(PREFIX)}


@cache
def derived(engine: PrivateEngine, base: str, line: str) -> str:
    """An image with one Dockerfile line more than `base`; returns its reference."""
    reference = f"{REPOSITORY}:derived-{secrets.token_hex(4)}"
    dockerfile = f"FROM {base}\n{line}\n".encode()
    engine.docker("build", "--quiet", f"--tag={reference}", "-", stdin=dockerfile)
    return reference


@cache
def _make_images(engine: PrivateEngine, api: tuple[int, int]) -> None:
    """Make both, once for each engine."""
    pass_on = b'#!/bin/sh\nexec "$@"\n'
    for reference, defaults, entry in ((V1, ONE, "/entry1"), (V2, TWO, "/entry2")):
        make_image(engine, reference, changes=_dockerfile(_defaults(defaults, api)), files={entry: pass_on})


def _defaults(config: Json, api: tuple[int, int]) -> Json:
    check = config["Healthcheck"]
    known = {key: check[key] for key in check if key != "StartInterval" or api >= START_INTERVAL}
    return config | {"Healthcheck": known}


def _dockerfile(config: Json) -> list[str]:
    """The lines that give an image this Config."""
    check = dict(config["Healthcheck"])
    kind, *test = check.pop("Test")
    retries = check.pop("Retries")
    flags = {
        "Interval": "--interval",
        "Timeout": "--timeout",
        "StartPeriod": "--start-period",
        "StartInterval": "--start-interval",
    }
    waits = " ".join(f"{flags[key]}={value // SECOND}s" for key, value in check.items())
    return [
        f"USER {config['User']}",
        *(f"ENV {entry}" for entry in config["Env"]),
        f"CMD {json.dumps(config['Cmd'])}",
        f"ENTRYPOINT {json.dumps(config['Entrypoint'])}",
        f"WORKDIR {config['WorkingDir']}",
        f"STOPSIGNAL {config['StopSignal']}",
        *(f"LABEL {key}={value}" for key, value in config["Labels"].items()),
        *(f"EXPOSE {port}" for port in config["ExposedPorts"]),
        f"VOLUME {json.dumps(list(config['Volumes']))}",
        f"HEALTHCHECK {waits} --retries={retries} {kind} {json.dumps(test)}",
    ]
