"""Who this Lookout is, and whether another one is still at work: it is written on what each makes."""

import os
import re
import socket
import time
from pathlib import Path

from lookout.engine import Engine
from lookout.errors import NotFound

_PROC = Path("/proc")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
# Where the engine mounts files of a container's own folder, which carries its id.
_OWN_MOUNT = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|hosts|resolv\.conf) /etc/")
_IMPORTED = int(time.time())  # where nothing tells when a process began
_START_TIME = 19  # of those: clock ticks since the machine was started


def own_id(mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The id of the container that this process runs in; None outside of one."""
    try:
        found = _OWN_MOUNT.search(mountinfo.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def identity(container_id: str | None) -> str:
    """Who this Lookout is: its container, which may be restarted, or this very process."""
    process = os.getpid()
    return container_id or f"{_place()}:{process}:{_start_time(process) or _IMPORTED}"


async def is_at_work(engine: Engine, by: str, *, own: str) -> bool | None:
    """Whether the Lookout with the identity `by` runs; None if that cannot be told by the one that is `own`."""
    if _CONTAINER.fullmatch(by):
        if (running := await _runs(engine, by)) is not None:
            return running
        # Gone, or on another engine than the one that it drives, as this Lookout itself may be.
        return False if _CONTAINER.fullmatch(own) and await _runs(engine, own) else None
    place, _, process = by.rpartition(":")[0].rpartition(":")
    if place != _place() or not re.fullmatch(r"[0-9]+", process):
        return None
    return _start_time(int(process)) == by.rpartition(":")[2]


async def _runs(engine: Engine, container: str) -> bool | None:
    try:
        return bool((await engine.container(container))["State"]["Running"])
    except NotFound:
        return None


def _place() -> str:
    """Where the number of a process means something: machine and namespace."""
    try:
        namespace = re.sub(r"\D", "", (_PROC / "self" / "ns" / "pid").readlink().name)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


def _start_time(process: int) -> str | None:
    """When a process began, so that another one with the same number is not taken for it."""
    try:
        stat = (_PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[_START_TIME]
    except (OSError, IndexError):
        return None
