"""Small application images, made without a registry, a compiler or a network."""

import base64
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from testbed.debian import unpacked
from testbed.engine import Engine

APPLETS = (
    *("awk", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "echo", "env", "expr", "false"),
    *("grep", "head", "hostname", "httpd", "id", "ip", "kill", "ln", "ls", "md5sum", "mkdir", "mount"),
    *("mv", "nc", "nslookup", "ping", "printenv", "printf", "ps", "pwd", "rm", "rmdir", "sed", "seq"),
    *("sh", "sleep", "sort", "stat", "sync", "tail", "test", "touch", "tr", "true", "umask", "wc", "wget"),
)
# As process 1 a program without a handler ignores SIGTERM, so the shell is process 1.
APPLICATION = b"""#!/bin/sh
trap 'exit 0' TERM INT
echo "version $(cat /www/index.html) is up"
httpd -f -p "${PORT:-8080}" -h /www &
wait
"""
EXECUTABLE = 0o755


def make_image(
    engine: Engine,
    reference: str,
    *,
    changes: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    ballast: int = 0,
    busybox: bytes | None = None,
) -> str:
    """Make an image of busybox and an application, and return its id.

    The application answers on port 8080 (or $PORT) with the reference's tag and ends at once on SIGTERM.
    `changes` are Dockerfile lines, such as 'ENV A=b'; one with CMD or ENTRYPOINT replaces the
    application. `files` are added by absolute path, executable; `ballast` is a file of that many bytes
    that do not compress. `busybox` is the program, for machines that cannot have Debian's.
    """
    files = {
        "/bin/busybox": busybox or _busybox(),
        "/etc/passwd": b"root:x:0:0::/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n",
        "/app": APPLICATION,
        "/www/index.html": reference.rpartition(":")[2].encode(),
        **(files or {}),
    }
    if ballast:
        files["/ballast"] = os.urandom(ballast)
    if not any(change.startswith(("CMD", "ENTRYPOINT")) for change in changes):
        changes = ['CMD ["/app"]', *changes]
    # Older engines know these two only when they build.
    late = [change for change in changes if change.startswith(("STOPSIGNAL", "SHELL"))]
    early = [change for change in changes if change not in late]
    image = engine.import_image(_archive(files), reference, early)
    if late:
        dockerfile = "\n".join([f"FROM {reference}", *late])
        image = engine.docker("build", "--quiet", f"--tag={reference}", "-", stdin=dockerfile.encode())
    return image


def push(engine: Engine, reference: str, user: str = "", password: str = "") -> None:
    """Push an image to the registry that its reference names."""
    if not user:
        engine.push(reference)
        return
    _docker(engine, "push", reference, _basic(user, password))


def pull(engine: Engine, reference: str, user: str = "", password: str = "", identity: str = "") -> None:
    """Pull an image, as a user or with the identity token of one."""
    _docker(engine, "pull", reference, {"identitytoken": identity} if identity else _basic(user, password))


def _basic(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()} if user else {}


def _docker(engine: Engine, command: str, reference: str, credentials: Mapping[str, str]) -> None:
    if not credentials:
        engine.docker(command, reference)
        return
    with tempfile.TemporaryDirectory(prefix="lookout-docker-") as directory:
        configuration = {"auths": {reference.partition("/")[0]: credentials}}
        Path(directory, "config.json").write_text(json.dumps(configuration))
        engine.docker("--config", directory, command, reference)


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else EXECUTABLE
            archive.addfile(entry)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), EXECUTABLE
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@cache
def _busybox() -> bytes:
    return unpacked().program("busybox").read_bytes()
