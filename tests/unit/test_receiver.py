"""What is logged of what comes in."""

import asyncio
import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from structlog.testing import capture_logs
from tests.unit import hostile
from tests.unit.bench import Bench
from tests.unit.bodies import SECRET

from lookout.model import Message
from lookout.receiver import Receiver

BODIES = int(os.environ.get("LOOKOUT_TEST_FUZZ", "2000")) // 10  # each is received, which takes its time


async def take_in(body: str) -> None:
    """Receive a message with this body, and settle it if it asks for no deploy."""
    bench = Bench(aside="dead")
    receiver = Receiver(
        bench.queue,
        bench.leases,
        bench.settler,
        asyncio.Queue(),
        wait=1,
        deploy_time=30,
        host_id="a",
        stopping=asyncio.Event(),
    )
    message = Message("m-1", body, "handle")
    bench.leases.hold(message, time.monotonic())
    if ending := receiver._admit(message):
        await ending


@pytest.mark.timeout(180 + BODIES // 20)
@settings(max_examples=max(1, BODIES), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile.NEARLY_RIGHT | hostile.damaged())
def test_of_a_body_only_the_image_that_it_asks_for_is_logged_above_debug_level(body: str) -> None:
    with capture_logs() as logs:
        asyncio.run(take_in(body))
    assert any(event["event"] == "received" and event["body"] for event in logs) or not body
    told = [{**event, "image": ""} for event in logs if event["log_level"] != "debug"]
    assert SECRET not in json.dumps(told).lower()
