"""All that the demo makes on an engine, under one label, and its removal."""

import contextlib
import fcntl
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.parts import REGISTRY_PORT, Parts
from testbed.debian import cache
from testbed.engine import DockerFailed, Engine
from testbed.images import push

LABEL = "lookout.demo"
PATIENCE_SECONDS = 20
COMPLAINT = "no database is configured"
BROKEN = f'CMD ["sh", "-c", "echo {COMPLAINT}; exit 1"]'


class Stage:
    """A registry and applications on an engine; their label, `lookout.demo=<run>`, is on nothing else."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.run = secrets.token_hex(3)
        self.registry = ""
        self._parts = Parts(engine)

    def start_registry(self) -> None:
        """Start a registry as a container, on a free loopback port of the engine's machine."""
        image = self._parts.make_registry(f"lookout-demo-registry:{self.run}", self._label)
        name = self.container("registry")
        self._run(image, name, f"--publish=127.0.0.1::{REGISTRY_PORT}")
        self.registry = self.engine.docker("port", name, str(REGISTRY_PORT)).splitlines()[0]
        self._until(lambda: self._get(name, f"{REGISTRY_PORT}/v2/"))

    def publish(self, application: str, tag: str, *, broken: bool = False) -> None:
        """Push a version as CI would, and leave no copy on the engine."""
        changes = [f"LABEL {self._label}", *([BROKEN] if broken else [])]
        self._parts.make_application(self.image(application, tag), *changes)
        push(self.engine, self.image(application, tag))
        self.engine.docker("rmi", self.image(application, tag))

    def start(self, application: str, tag: str) -> None:
        """Run a published version, and wait until it answers."""
        name = self.container(application)
        self._run(self.image(application, tag), name, "--restart=unless-stopped")
        self._until(lambda: self.answer(application))

    def repository(self, application: str) -> str:
        return f"{self.registry}/lookout-demo/{application}"

    def image(self, application: str, tag: str) -> str:
        return f"{self.repository(application)}:{tag}"

    def container(self, application: str) -> str:
        return f"lookout-demo-{self.run}-{application}"

    def answer(self, application: str) -> str:
        """What the application says over HTTP; empty if it does not answer."""
        return self._get(self.container(application), "8080/")

    def inspect(self, application: str) -> dict[str, Any]:
        """What the engine knows of the application's container; empty if there is none."""
        with contextlib.suppress(DockerFailed):
            found: dict[str, Any] = json.loads(
                self.engine.docker("container", "inspect", self.container(application))
            )[0]
            return found
        return {}

    def now(self) -> str:
        """The time by the engine's clock."""
        return self.engine.docker("info", "--format", "{{.SystemTime}}")

    def events(self, since: str) -> list[dict[str, Any]]:
        """What happened to the demo's containers since then, in order."""
        lines = self.engine.docker(
            *("events", f"--since={since}", f"--until={self.now()}", "--format={{json .}}"),
            *("--filter=type=container", f"--filter=label={self._label}"),
        )
        return [json.loads(line) for line in lines.splitlines()]

    def clear(self) -> None:
        """Remove all that bears the label, and what was pulled for it."""
        _remove(self.engine, self.run)
        for image in self._parts.pulled:
            self.engine.docker("rmi", image)

    @property
    def _label(self) -> str:
        return f"{LABEL}={self.run}"

    def _run(self, image: str, name: str, *arguments: str) -> None:
        self.engine.docker("run", "--detach", f"--label={self._label}", f"--name={name}", *arguments, image)

    def _get(self, container: str, path: str) -> str:
        command = ("exec", container, "wget", "-q", "-O", "-", f"http://127.0.0.1:{path}")
        with contextlib.suppress(DockerFailed):
            return self.engine.docker(*command)
        return ""

    def _until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("a container of the demo does not answer; see `docker ps`")
            time.sleep(0.1)


@contextmanager
def stage(engine: Engine) -> Iterator[Stage]:
    """A stage that is cleared at the end; first clears those of demos that were killed."""
    made = Stage(engine)
    locks = cache() / "demo"
    locks.mkdir(parents=True, exist_ok=True)
    with _claimed(locks / made.run):
        try:
            for run in _runs(engine) - {made.run}:
                _clear_abandoned(engine, locks / run)
            yield made
        finally:
            made.clear()


def _clear_abandoned(engine: Engine, lock: Path) -> None:
    """Clear a run unless it is going on, or was started from elsewhere, where its lock is."""
    if lock.exists():
        with contextlib.suppress(BlockingIOError), _claimed(lock):
            _remove(engine, lock.name)


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            path.unlink()


def _runs(engine: Engine) -> set[str]:
    chosen = f"--filter=label={LABEL}"
    runs = set(engine.docker("ps", "--all", chosen, f'--format={{{{.Label "{LABEL}"}}}}').split())
    for image in set(engine.docker("images", "--quiet", chosen).split()):
        # Another demo may remove it meanwhile.
        with contextlib.suppress(DockerFailed):
            label = f'{{{{index .Config.Labels "{LABEL}"}}}}'
            runs.add(engine.docker("image", "inspect", f"--format={label}", image))
    return runs


def _remove(engine: Engine, run: str) -> None:
    chosen = f"--filter=label={LABEL}={run}"
    if containers := engine.docker("ps", "--all", "--quiet", "--no-trunc", chosen).split():
        engine.docker("rm", "--force", "--volumes", *containers)
    if images := set(engine.docker("images", "--quiet", chosen).split()):
        engine.docker("rmi", "--force", *images)
