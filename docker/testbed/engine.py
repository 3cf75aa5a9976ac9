"""Docker Engines: any that answers at a DOCKER_HOST, and private ones in a sandbox."""

import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from testbed.debian import BASE_SUITE, unpacked
from testbed.sandbox import HOSTS, Sandbox, end, listens, wait_until

ANSWER_SECONDS = 60
LONGEST_SOCKET_PATH = 107  # the kernel's limit
USUAL_SOCKET = Path("/var/run/docker.sock")
# One of our own, since dockerd gives the one that it starts no such settings. Without them containerd 1.6
# looks a hundred times a second whether there is something to collect.
CONTAINERD = """
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.gc.v1.scheduler"]
pause_threshold = 0.0
"""


class DockerFailed(Exception):
    """The docker command line failed; says how."""


def version(suite: str) -> str:
    """The version of the engine that a suite has, as it says itself: "20.10.24+dfsg1"."""
    packages = unpacked(suite)
    said = subprocess.run(
        [packages.program("dockerd"), "--version"],
        env=packages.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.split()[2].rstrip(",")


class Engine:
    """An engine, as the docker command line sees it."""

    def __init__(self, docker_host: str, program: Path, environment: Mapping[str, str]) -> None:
        self.docker_host = docker_host
        self._set_client(program, environment)

    def _set_client(self, program: Path, environment: Mapping[str, str]) -> None:
        self._program = program
        # The person's own client configuration, with its contexts and passwords, stays out of this.
        self._environment = {
            "PATH": os.defpath,
            **environment,
            "DOCKER_HOST": self.docker_host,
            "DOCKER_CONFIG": "/nonexistent",
        }

    @property
    def command(self) -> str:
        """The docker command line for this engine, as a shell writes it."""
        variables = (f"{name}={value}" for name, value in self._environment.items())
        return shlex.join(["env", *variables, str(self._program)])

    def docker(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run the docker command line and return its output, stripped; raises DockerFailed."""
        result = subprocess.run(
            [self._program, *arguments],
            input=stdin,
            capture_output=True,
            env=self._environment,
            check=False,
            # Ctrl-C is for the maker, which may need the engine to clean up.
            start_new_session=True,
        )
        if result.returncode:
            raise DockerFailed(f"docker {' '.join(arguments)}: {result.stderr.decode().strip()}")
        return result.stdout.decode().strip()

    def lines(self, *arguments: str, seconds: float) -> Iterator[str]:
        """What a docker command writes, errors too, line by line as it comes; it is ended after so long."""
        with subprocess.Popen(
            [self._program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            timer = threading.Timer(seconds, process.kill)
            timer.start()
            try:
                assert process.stdout
                yield from process.stdout
            finally:
                timer.cancel()
                process.kill()

    def import_image(self, archive: bytes, reference: str, changes: Sequence[str]) -> str:
        """Make an image of one layer, and of these Dockerfile lines; returns its id."""
        flags = [f"--change={change}" for change in changes]
        return self.docker("import", *flags, "-", reference, stdin=archive)

    def push(self, reference: str) -> None:
        """Push a tag, or all of them where `reference` has none, to a registry that is open to all."""
        everything = [] if _parts(reference)[1] else ["--all-tags"]
        self.docker("push", *everything, reference)

    def at(self, docker_host: str) -> "Engine":
        """The same command line, for an engine that is reached in another way."""
        return Engine(docker_host, self._program, self._environment)


class _Connection(http.client.HTTPConnection):
    """To a socket of the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _parts(reference: str) -> tuple[str, str]:
    """The repository of a reference, and its tag, if it has one."""
    host, slash, path = reference.rpartition("/")
    name, _, tag = path.partition(":")
    return f"{host}{slash}{name}", tag


def _last(said: bytes) -> dict[str, Any]:
    """The last message of an answer that tells how something goes on; raises if it has gone wrong."""
    message = dict(json.loads(said.splitlines()[-1]))
    if "error" in message:
        raise DockerFailed(message["error"])
    return message


class PrivateEngine(Engine):
    """An engine of our own in a sandbox; it cannot touch the machine's network or another engine.

    Its data live in the sandbox's memory: they stay when it is stopped, killed and started again, even
    as the engine of another suite, and go with `close()` or with the process that made it. `flags` and
    `environment` are the daemon's; `room` is how many bytes its data may take, or None.
    """

    def __init__(
        self,
        suite: str = BASE_SUITE,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        *,
        room: int | None = None,
    ) -> None:
        packages = unpacked(suite)
        self.sandbox = Sandbox()
        self.directory = self.sandbox.directory
        self.socket = self.directory / "docker.sock"
        assert len(bytes(self.socket)) <= LONGEST_SOCKET_PATH, f"{self.socket} is too long; see TMPDIR"
        super().__init__(f"unix://{self.socket}", packages.program("docker"), packages.environment())
        self.suite = suite
        self._packages = packages
        self._variables = dict(environment or {})
        self._room = room
        self._arguments = [
            f"--host={self.docker_host}",
            f"--host=unix://{USUAL_SOCKET}",  # as seen inside: who mounts it has this engine's
            f"--config-file={self.directory / 'daemon.json'}",
            f"--containerd={self._containerd_socket}",
            f"--data-root={self.directory / 'data'}",
            f"--exec-root={self.directory / 'exec'}",
            f"--pidfile={self.directory / 'docker.pid'}",
            f"--cgroup-parent=/{self.sandbox.name}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            # What has a name is not taken for the loopback by every image store.
            *(f"--insecure-registry={name}" for name in HOSTS),
            *flags,
        ]
        self._daemon: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, suite: str | None = None) -> None:
        """Start the engine, on the data it had before, and wait until it answers.

        With a suite it is that suite's engine from now on, and `docker` that suite's command line.
        """
        if suite:
            self.suite, self._packages = suite, unpacked(suite)
            self._set_client(self._packages.program("docker"), self._packages.environment())
        if not self.directory.exists():
            self._prepare()
        self._containerd = self._launch(
            "containerd",
            f"--config={self.directory / 'containerd.toml'}",
            f"--address={self._containerd_socket}",
            f"--root={self.directory / 'data/containerd'}",
            f"--state={self.directory / 'exec/containerd'}",
        )
        wait_until(lambda: listens(self._containerd_socket), self._containerd, self._log)
        self._daemon = self._launch("dockerd", *self._arguments)
        wait_until(self.answers, self._daemon, self._log)

    def stop(self) -> None:
        """Stop the engine in order, its containers with it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the engine as a crash would: its containers run on until it starts again."""
        self._end(signal.SIGKILL)
        # The next start would take what has this number then for a running engine.
        (self.directory / "docker.pid").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the engine and all that it holds, at once."""
        self.sandbox.down()

    # The API, in the newest version that the engine has. A call costs a small part of what the command
    # line does, and what fails raises DockerFailed just so.

    def get(self, path: str, **query: str) -> bytes:
        """What the API answers."""
        return self._call("GET", path, query)

    def delete(self, path: str, **query: str) -> None:
        """Let the API remove something."""
        self._call("DELETE", path, query)

    def import_image(self, archive: bytes, reference: str, changes: Sequence[str]) -> str:
        repository, tag = _parts(reference)
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
        return str(_last(self._call("POST", "/images/create", query, archive))["status"])

    def load(self, archive: Path) -> None:
        """Have the images of an archive that `docker save` has made."""
        _last(self._call("POST", "/images/load", {"quiet": "1"}, archive.read_bytes()))

    def push(self, reference: str) -> None:
        repository, tag = _parts(reference)
        nobody = {"X-Registry-Auth": "e30="}  # an empty object
        _last(self._call("POST", f"/images/{repository}/push", {"tag": tag}, headers=nobody))

    def tag(self, image: str, reference: str) -> None:
        """Give an image one more reference."""
        repository, tag = _parts(reference)
        self._call("POST", f"/images/{image}/tag", {"repo": repository, "tag": tag})

    def remove_all(self, **filters: str) -> None:
        """Remove all containers that fit these filters, running or not, with their anonymous volumes."""
        for container in self.listed(**filters):
            self.delete(f"/containers/{container['Id']}", force="1", v="1")

    def inspected(self, container: str) -> dict[str, Any]:
        """A container, by its id, or its name as people or the engine write it."""
        return dict(json.loads(self.get(f"/containers/{container.removeprefix('/')}/json")))

    def listed(self, **filters: str) -> list[dict[str, Any]]:
        """All containers, also those that do not run, that fit these filters: `name`, `label` and so on."""
        chosen = json.dumps({key: [value] for key, value in filters.items()})
        return list(json.loads(self.get("/containers/json", all="1", filters=chosen)))

    def inside(self, container: str, *command: str) -> str:
        """Run a command as root among the processes of a running container; its output, stripped.

        It sees what they see: their files, network, processes and folder. `docker exec` would start
        several processes more for it. Raises DockerFailed.
        """
        state = self.inspected(container)["State"]
        if not state["Running"]:
            raise DockerFailed(f"{container} does not run: it is {state['Status']}")
        enter = ("nsenter", f"--target={state['Pid']}", "--all", "--root", "--wd")
        try:
            return self.sandbox.run([*enter, *command], env={"PATH": os.defpath}).strip()
        except RuntimeError as exc:
            raise DockerFailed(str(exc)) from exc

    def answers(self) -> bool:
        """Whether the engine answers now."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(32)
        return False

    def log(self) -> str:
        """What the engine has logged so far."""
        return self._log.read_text(errors="replace")

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | Sequence[str]],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        with contextlib.closing(_Connection(self.socket)) as connection:
            # An engine that refuses may do so before it has read all of the body.
            with contextlib.suppress(BrokenPipeError):
                connection.request(
                    method, f"{path}?{urlencode(query, doseq=True)}", body, dict(headers or {})
                )
            answer = connection.getresponse()
            said = answer.read()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise DockerFailed(f"{method} {path}: {said.decode().strip()}")
        return said

    @property
    def _containerd_socket(self) -> Path:
        return self.directory / "containerd.sock"

    @property
    def _log(self) -> Path:
        return self.directory / "dockerd.log"

    def _prepare(self) -> None:
        self.sandbox.up()
        # An empty configuration of its own: the machine's is for the machine's engine.
        (self.directory / "daemon.json").write_text("{}")
        (self.directory / "containerd.toml").write_text(CONTAINERD)
        data = self.directory / "data"
        data.mkdir()
        # In memory: fast, gone with the sandbox, and overlayfs works even where /tmp is one.
        limit = [] if self._room is None else [f"--options=size={self._room}"]
        self.sandbox.run(["mount", "-t", "tmpfs", *limit, "tmpfs", data])

    def _launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return self.sandbox.popen(
                [self._packages.program(program), *arguments],
                env=self._packages.environment() | self._variables,
                stdout=log,
                stderr=log,
            )

    def _end(self, number: signal.Signals) -> None:
        assert self._daemon, "the engine was never started"
        assert self._containerd
        end(self._daemon, number)
        end(self._containerd, number)
