"""Whether a container that was just started is there to stay."""

import json
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace

from lookout.engine import Engine
from lookout.errors import CopyRefused, NotReady
from lookout.model import Json
from lookout.names import name_of, policy_of

#: Of a container: how long its successor must run before it counts, in seconds.
MONITOR_SECONDS = "lookout.monitor-seconds"
LONGEST_MONITOR = 3600.0  # seconds

LOOK_EVERY = 5.0  # seconds: an event wakes us, but one may have come just before we listened
HEALTH_MARGIN = 10.0  # seconds on top of what the health check itself allows
SECOND = 1_000_000_000  # in the nanoseconds of a health check
# The engine's defaults where a health check leaves a field out.
INTERVAL, TIMEOUT, RETRIES = 30 * SECOND, 30 * SECOND, 3
ENDLESS = ("always", "unless-stopped")  # a container with one of these policies is never done


@dataclass(frozen=True)
class Monitor:
    """What is asked of a new container. All times are seconds."""

    seconds: float  # that it must run without a restart
    deploy_time: float  # that its health check may take, if its own numbers do not allow for more
    may_end: bool = False  # with exit code 0, if its restart policy lets it: it does one job
    may_fail: bool = False  # nothing is asked: it was no good before

    def once_more(self) -> "Monitor":
        """The same for a container that has been watched already."""
        return replace(self, seconds=0)

    def to_label(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_label(cls, label: str) -> "Monitor":
        """Raises ValueError, TypeError where it is none."""
        return cls(**json.loads(label))


def own_monitor_seconds(container: Json) -> float | None:
    """What the label of the container asks for; None without one. Raises CopyRefused if it means nothing."""
    value = (container["Config"].get("Labels") or {}).get(MONITOR_SECONDS)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= LONGEST_MONITOR:
        raise CopyRefused(
            f"{name_of(container)} is labelled {MONITOR_SECONDS}={value[:40]!a}; "
            f"expected seconds from 0 to {LONGEST_MONITOR:.0f}"
        )
    return seconds


async def wait_until_ready(engine: Engine, container: str, monitor: Monitor) -> bool:
    """Return once it has run long enough without a restart, and is healthy if it can tell.

    True if it is to run on, false if it is done, or nothing is asked of it.

    The engine's events say when to look. Raises NotReady as soon as it has exited, restarted or
    become unhealthy, or when it is not ready in the time that its own health check and the deploy
    time allow. Where it is started anew without a crash, as by an engine that restarts, or is paused,
    the time begins again.
    """
    if monitor.may_fail:
        return False
    async with AsyncExitStack() as stack:
        changed = await stack.enter_async_context(engine.changes_of_state(container))
        first = begun = time.monotonic()
        started_at = None
        while True:
            inspected = await _inspect(engine, container)
            now = time.monotonic()
            state = inspected["State"]
            if state.get("StartedAt") != started_at or state.get("Paused"):
                started_at, begun = state.get("StartedAt"), now
            if _has_done_its_work(inspected, monitor):
                return False
            _check_alive(inspected, now - begun)
            health = _health(inspected)
            if now - begun >= monitor.seconds and health in (None, "healthy") and not state.get("Paused"):
                return True
            left = first + _longest(inspected, monitor) - now
            if left <= 0:
                raise NotReady(_too_long(state, health, now - first))
            to_go = begun + monitor.seconds - now
            await changed(min(LOOK_EVERY, left, *((to_go,) if to_go > 0 else ())))


def health_patience(healthcheck: Json) -> float:
    """Seconds after which a health check has made up its mind: its own numbers and a margin."""
    probe = (healthcheck.get("Interval") or INTERVAL) + (healthcheck.get("Timeout") or TIMEOUT)
    total = (healthcheck.get("StartPeriod") or 0) + (healthcheck.get("Retries") or RETRIES) * probe
    return float(total / SECOND + HEALTH_MARGIN)


def has_crashed(inspected: Json) -> bool:
    """Whether its restart policy has started it again. A crash loop may be met while it runs."""
    return bool(inspected["State"].get("Restarting") or inspected.get("RestartCount"))


def has_ended_well(inspected: Json) -> bool:
    """Whether it has done one job, and its restart policy lets it rest."""
    state = inspected["State"]
    return (
        policy_of(inspected)["Name"] not in ENDLESS
        and state.get("Status") == "exited"
        and state["ExitCode"] == 0
    )


async def _inspect(engine: Engine, container: str) -> Json:
    if inspected := await engine.find(container):
        return inspected
    raise NotReady("it is gone: it was removed, or has ended and was run with --rm")


def _longest(inspected: Json, monitor: Monitor) -> float:
    check = inspected["Config"].get("Healthcheck") or {}
    return monitor.seconds + max(health_patience(check) if check else HEALTH_MARGIN, monitor.deploy_time)


def _too_long(state: Json, health: str | None, seconds: float) -> str:
    if state.get("Paused"):
        return f"it is paused, {seconds:.0f} s after its start"
    if health == "starting":
        return f"its health check gave no answer in {seconds:.0f} s"
    return f"it was started again and again for {seconds:.0f} s"


def _has_done_its_work(inspected: Json, monitor: Monitor) -> bool:
    return monitor.may_end and has_ended_well(inspected)


def _check_alive(inspected: Json, elapsed: float) -> None:
    state = inspected["State"]
    if has_crashed(inspected):
        raise NotReady(f"it exited and was restarted within {elapsed:.1f} s")
    if not state["Running"]:
        detail = f": {state['Error']}" if state.get("Error") else ""
        killed = ", killed for want of memory" if state.get("OOMKilled") else ""
        raise NotReady(f"it exited with code {state['ExitCode']}{killed} within {elapsed:.1f} s{detail}")


def _health(inspected: Json) -> str | None:
    """`starting`, `healthy`, or None where there is no health check; raises NotReady if unhealthy."""
    health = inspected["State"].get("Health")
    if not health or health["Status"] in ("none", ""):
        return None
    if health["Status"] == "unhealthy":
        probes = health.get("Log") or []
        raise NotReady("it is unhealthy", check_output=str(probes[-1].get("Output", "")) if probes else "")
    return str(health["Status"])
