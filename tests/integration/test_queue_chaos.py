"""Whatever the queue does, and however often Lookout ends, each image ends on what was asked for last."""

import random
from collections.abc import Sequence

import pytest

from testbed.engine import PrivateEngine
from testbed.faulty_sqs import ANY, Fault, FaultySqs, OneIn
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.crash_points import IS_SAMPLE
from tests.integration.deploys import leftovers
from tests.integration.fleet import Fleet
from tests.integration.queue_judge import Judge
from tests.integration.running import RunningLookout
from tests.integration.service import ENDED_WITHIN, Service
from tests.integration.traffic import Traffic, Wish, wishes

#: Engine 20.10 may lock itself up for good where many containers end at the same time (moby/moby#46661).
MANY = pytest.mark.newest(only=True)

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(900)]

IMAGES, MESSAGES = (10, 90) if IS_SAMPLE else (30, 300)
SENDERS = 3
FAULTY = MESSAGES // 15  # one in so many calls to the queue goes wrong
RESTARTS = 6
SEED = 1


@MANY
@pytest.mark.parametrize("restarts", [0, RESTARTS], ids=["one Lookout", "restarted again and again"])
def test_each_image_ends_on_what_was_sent_last_and_each_message_is_settled_once(
    engine: PrivateEngine,
    registry: Registry,
    sqs: LocalSqs,
    queue_line: FaultySqs,
    service: Service,
    restarts: int,
) -> None:
    queue_line.choose = OneIn(FAULTY, SEED)
    chance = random.Random(SEED)  # noqa: S311  to be drawn again, not a secret
    with (
        Fleet(engine, registry, size=IMAGES) as fleet,
        Traffic(sqs, service.queue_url, SENDERS) as traffic,
    ):
        shares = in_shares(wishes(fleet, MESSAGES, chance), restarts + 1)
        for share in shares[:-1]:
            lookout = service.start(AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
            traffic.send(share)
            in_the_middle(lookout, chance, len(share))
            assert lookout.terminate(ENDED_WITHIN) == 0
        lookout = service.start(AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
        traffic.send(shares[-1])
        traffic.wait_until_sent()
        service.wait_until_settled()
        assert lookout.terminate(ENDED_WITHIN) == 0

        judge = Judge(traffic.messages, service.runs, queue_line.sent)
        if complaints := judge.complaints(fleet, service.dead_letters()):
            pytest.fail("\n".join(complaints), pytrace=False)
        assert leftovers(engine) == []
    assert {*ANY, Fault.NOT_DONE} <= queue_line.met["DeleteMessage"].keys(), "else this was no test"
    assert queue_line.met["ReceiveMessage"]


def in_shares(messages: Sequence[Wish], count: int) -> list[Sequence[Wish]]:
    """The same messages in order, in so many shares."""
    return [messages[len(messages) * n // count : len(messages) * (n + 1) // count] for n in range(count)]


def in_the_middle(lookout: RunningLookout, chance: random.Random, sent: int) -> None:
    """Wait for a moment at which it has much in hand: another one each time."""
    event, most = chance.choice([("received", sent // 2), ("started", sent // 6), ("deployed", sent // 6)])
    lookout.wait_for(event, count=chance.randint((most + 1) // 2, most), seconds=120)
