"""However long a deploy takes, its message is delivered once; and where it is lost, nothing else is."""

import pytest

from testbed.engine import PrivateEngine
from testbed.faulty_sqs import Call, Fault, FaultySqs
from testbed.registry import Registry
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.deploys import leftovers
from tests.integration.fleet import Fleet
from tests.integration.service import ENDED_WITHIN, WAITS, Service, let_go
from tests.integration.watching import Watch

#: Engine 20.10 may lock itself up for good where many containers end at the same time (moby/moby#46661).
MANY = pytest.mark.newest(only=True)

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(300)]

IMAGES = 10
LEASE = 6  # seconds


class FirstBatchFails:
    """Half of the entries of the first batch, and no call after it."""

    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, call: Call) -> Fault | None:
        if self.failed or "Entries" not in call.parameters:
            return None
        self.failed = (len(call.parameters["Entries"]) + 1) // 2
        return Fault.FAILED_ENTRIES


@MANY
def test_each_message_of_ten_deploys_at_once_that_take_longer_than_its_lease_is_delivered_once(
    engine: PrivateEngine,
    registry: Registry,
    service: Service,
    queue_line: FaultySqs,
) -> None:
    """Each deploy lasts for two leases, and each lease is renewed when half of it is left."""
    queue_line.choose = first_batch = FirstBatchFails()
    with Fleet(engine, registry, size=IMAGES, tags=("1",)) as fleet:
        messages = [service.send(f"{repository}:1") for repository in fleet.repositories]
        lookout = service.start(
            pace={"lease_floor": LEASE},
            AWS_ENDPOINT_URL_SQS=queue_line.endpoint,
            MonitorSeconds=str(2 * LEASE),
        )
        lookout.wait_for("deployed", count=IMAGES, seconds=120)
        service.wait_until_settled()

    assert lookout.order("deploying", "deployed") == ["deploying"] * IMAGES + ["deployed"] * IMAGES
    received = {event["message_id"]: event["receive_count"] for event in lookout.logged("received")}
    assert received == dict.fromkeys(messages, 1)
    assert not lookout.logged("message delivered again while in hand")
    for message in messages:
        assert len(lookout.logged("lease renewed", message_id=message)) >= 3
    failed = lookout.logged("lease not renewed; trying again")
    assert len(failed) == first_batch.failed > 0


def test_a_swap_goes_on_when_its_lease_is_lost_and_the_next_delivery_finds_it_done(
    engine: PrivateEngine,
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    queue_line: FaultySqs,
    inspect: Inspect,
) -> None:
    """Two Lookouts: of the one in the middle of a swap, no call about its message comes through."""
    name = make_container(app_image("1"), "api")
    two = app_image("2", changes=[WAITS])
    watch = Watch(engine)
    queue_line.choose = renewals_fail_and_deletes_do_nothing
    # It holds the one message, and does not ask for it again.
    first = service.start(AWS_ENDPOINT_URL_SQS=queue_line.endpoint, MaxMessages="1")
    message = service.send(two, DeployTimeSeconds=900)
    first.wait_for("started", message_id=message)
    before, new = watch.touches(), inspect(name)["Id"]

    second = service.start()
    refused = second.wait_for("failed", message_id=message)
    # By its own clock, which began when it had received it, thus a little later than the server's.
    first.wait_for("lease lost; the deploy goes on, and its message will be delivered again")
    assert "another Lookout" in refused["reason"]
    assert "tried again" in refused["next"]
    assert watch.touches() == before

    let_go(engine, name)
    assert first.wait_for("deployed", message_id=message)["containers"] == [name]
    assert first.terminate(ENDED_WITHIN) == 0
    second.wait_for("unchanged", message_id=message)
    service.wait_until_settled()
    assert inspect(name)["Id"] == new
    assert [touched for action, touched in watch.touches() if action == "create"] == [
        touched for action, touched in before if action == "create"
    ]
    assert leftovers(engine) == []


def renewals_fail_and_deletes_do_nothing(call: Call) -> Fault | None:
    """A delete by the handle of a delivery that is over is answered well."""
    if call.action.startswith("ChangeMessageVisibility"):
        return Fault.INTERNAL_FAILURE
    return Fault.NOT_DONE if call.action == "DeleteMessage" else None
