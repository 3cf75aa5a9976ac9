"""Whether a container that was just started is there to stay."""

import asyncio
import time

from lookout.engine import Engine
from lookout.errors import NotFound, NotReady
from lookout.model import Json

LOOK_EVERY = 0.25  # seconds
HEALTH_MARGIN = 10.0  # seconds on top of what the health check itself allows
SECOND = 1_000_000_000  # in the nanoseconds of a health check
# The engine's defaults where a health check leaves a field out.
INTERVAL, TIMEOUT, RETRIES = 30 * SECOND, 30 * SECOND, 3


async def wait_until_ready(engine: Engine, container: str, *, monitor: float, deploy_time: float) -> None:
    """Return once it has run for `monitor` seconds without a restart, and is healthy if it can tell.

    Raises NotReady as soon as it has exited, restarted or become unhealthy, or when it is still
    `starting` after the time that its own health check and the deploy time allow.
    """
    begun = time.monotonic()
    while True:
        try:
            inspected = await engine.container(container)
        except NotFound:
            raise NotReady("it was removed by somebody else") from None
        elapsed = time.monotonic() - begun
        _check_alive(inspected, elapsed)
        health = _health(inspected)
        if elapsed >= monitor and health in (None, "healthy"):
            return
        if health == "starting" and elapsed > max(
            patience(inspected["Config"].get("Healthcheck") or {}), deploy_time
        ):
            raise NotReady(f"its health check gave no answer in {elapsed:.0f} s")
        await asyncio.sleep(LOOK_EVERY)


def patience(healthcheck: Json) -> float:
    """Seconds after which a health check has made up its mind: its own numbers and a margin."""
    probe = (healthcheck.get("Interval") or INTERVAL) + (healthcheck.get("Timeout") or TIMEOUT)
    total = (healthcheck.get("StartPeriod") or 0) + (healthcheck.get("Retries") or RETRIES) * probe
    return float(total / SECOND + HEALTH_MARGIN)


def _check_alive(inspected: Json, elapsed: float) -> None:
    state = inspected["State"]
    if state.get("Restarting") or inspected.get("RestartCount"):
        raise NotReady(f"it exited and was restarted within {elapsed:.1f} s")
    if not state["Running"]:
        detail = f": {state['Error']}" if state.get("Error") else ""
        raise NotReady(f"it exited with code {state['ExitCode']} within {elapsed:.1f} s{detail}")


def _health(inspected: Json) -> str | None:
    """`starting`, `healthy`, or None where there is no health check; raises NotReady if unhealthy."""
    health = inspected["State"].get("Health")
    if not health or health["Status"] in ("none", ""):
        return None
    if health["Status"] == "unhealthy":
        probes = health.get("Log") or []
        said = " ".join(str(probes[-1].get("Output", "")).split())[:200] if probes else ""
        raise NotReady(f"it is unhealthy{f': {said}' if said else ''}")
    return str(health["Status"])
