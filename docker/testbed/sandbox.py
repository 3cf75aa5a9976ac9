"""A sandbox: network, mounts and processes of its own, gone without a trace when its maker is."""

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Self, TypeVar

from testbed.debian import Unavailable

INIT = Path(__file__).with_name("init.py")
CGROUPS = Path("/sys/fs/cgroup")
PREFIX = "lookout-bed-"
LOOPBACK = "127.0.0.1"
HTTP_PORT = 80
START_SECONDS = 60
# Names that a sandbox knows, for hosts with a loopback address each: an engine reads such a list only
# every few seconds, so it is there from the start.
HOSTS = {
    "registry.test": "127.0.0.2",
    "other.test": "127.0.0.3",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com": "127.0.0.4",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com": "127.0.0.5",
}
CLONE_NEWNET = 0x40000000  # of the kernel's sched.h

Result = TypeVar("Result")


class Sandbox:
    """Namespaces held by one small process; `name` is also its control group, if it needs one.

    The sandbox has a loopback and no way out, sees the machine's files except for an empty /run, and
    has a short temporary `directory`. It lives until `down()`, or until its maker ends in any way.
    """

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        self.directory = Path(tempfile.gettempdir()) / self.name
        self._holder: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Make the namespaces; first removes what sandboxes left whose makers were killed."""
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            raise Unavailable(
                "a sandbox needs Linux and root; run as root there, or start Docker for the demo"
            )
        for name in _abandoned():
            _remove(name)
        self.directory.mkdir(mode=0o700)
        self._holder = subprocess.Popen(
            [
                *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, "-I", "-S", str(INIT)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for the maker, which then takes the sandbox down in order.
            start_new_session=True,
        )
        assert self._holder.stdout
        assert self._holder.stderr
        if self._holder.stdout.readline() != b"up\n":
            problem = self._holder.stderr.read().decode().strip()
            self.down()
            raise Unavailable(f"this machine does not allow namespaces: {problem}; use a virtual machine")
        self._init = _child_of(self._holder)
        # Other engines, containerd and systemd have their sockets there; dockerd would use them.
        self.run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
        hosts = self.directory / "hosts"
        known = "".join(f"{address} {name}\n" for name, address in HOSTS.items())
        hosts.write_text(known + Path("/etc/hosts").read_text())
        self.run(["mount", "--bind", hosts, "/etc/hosts"])

    def down(self) -> None:
        """Kill everything inside; harmless when it is down already."""
        if self._holder is None:
            return
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        # Returns only after the kernel has ended every process of the namespace.
        self._holder.communicate()
        for process in self._started:
            process.wait()
        self._holder, self._init = None, 0
        _remove(self.name)

    def popen(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command inside; ends with the sandbox, or with `end`."""
        namespaces = ["nsenter", f"--target={self._init}", "--net", "--mount", "--pid"]
        process = subprocess.Popen(
            [*namespaces, f"--wd={Path.cwd()}", *map(str, command)],
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> str:
        """Run a command inside to its end and return its output; raises if it fails."""
        process = self.popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, problem = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {problem.decode().strip()}")
        return output.decode()

    def enter_network(self) -> None:
        """Let the calling thread, and those that it starts, use the sandbox's network from now on."""
        kernel = ctypes.CDLL(None, use_errno=True)
        with Path(f"/proc/{self._init}/ns/net").open() as network:
            if kernel.setns(network.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the sandbox's network cannot be entered")

    def call(self, function: Callable[[], Result]) -> Result:
        """What a function returns that is called in the sandbox's network."""
        with ThreadPoolExecutor(1, initializer=self.enter_network) as pool:
            return pool.submit(function).result()

    def wait_for_port(self, port: int, process: subprocess.Popen[bytes], *, address: str = LOOPBACK) -> None:
        """Wait until a process inside listens on a loopback port; raises if it ends instead."""
        kernels = socket.inet_aton(address)[::-1].hex().upper()
        listening = f"{kernels}:{port:04X} 00000000:0000 0A"
        sockets = Path(f"/proc/{self._init}/net/tcp")
        wait_until(lambda: listening in sockets.read_text(), process)


def host_of(at: int | str) -> str:
    """The host of a server that is at a port of the loopback, or is one of HOSTS, as image names have it."""
    return at if isinstance(at, str) else f"{LOOPBACK}:{at}"


def address_of(at: int | str) -> tuple[str, int]:
    """The address and port at which that server listens."""
    return (HOSTS[at], HTTP_PORT) if isinstance(at, str) else (LOOPBACK, at)


def wait_until(
    answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path | None = None
) -> None:
    """Wait until what was started answers; raises RuntimeError, with the end of its log, if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:] if log else ""
            raise RuntimeError(f"{process.args!r} did not start:\n{said}")
        time.sleep(0.01)


def listens(path: Path) -> bool:
    """Whether somebody takes connections at this socket of the file system."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        return True
    return False


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """Signal what `Sandbox.popen` started, and wait for its end; harmless when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(_child_of(process), number)
    process.wait()


def _child_of(process: subprocess.Popen[bytes]) -> int:
    """The process that unshare or nsenter started, by its number outside of the sandbox."""
    while process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            return int(children[0])
    raise ProcessLookupError(f"{process.args!r} has ended with {process.returncode}")


def _abandoned() -> Iterator[str]:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        maker = path.name.removeprefix(PREFIX).split("-")[0]
        if not Path("/proc", maker).exists():
            yield path.name


def _remove(name: str) -> None:
    for group in [CGROUPS / name, *CGROUPS.glob(f"*/{name}")]:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)
