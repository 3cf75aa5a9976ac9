"""Whatever the queue does, and however often Lookout ends, each image ends on what was asked for last."""

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from testbed.engine import PrivateEngine
from testbed.faulty_sqs import ANY, Fault, FaultySqs, OneIn
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.deploys import leftovers
from tests.integration.fleet import Fleet, Runs
from tests.integration.running import Event, RunningLookout
from tests.integration.traffic import Traffic, Wish, wishes

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(900)]

IMAGES, MESSAGES, SENDERS = 30, 300, 3
FAULTY = 20  # one in so many calls to the queue goes wrong
RESTARTS = 6
SEED = 1

#: Waits that are promises, made short: what is lost on the way comes back after three seconds.
PACE = {
    "lease_floor": 3,
    "lease_margin": 0,
    "backoff_base": 0.5,
    "longest_poll_backoff": 0.3,
    "repair_every": 1,
}
SETTINGS = {"MonitorSeconds": "0.2", "PollTimeSeconds": "1", "DeployTimeSeconds": "2"}

STEPS = ("deploying", "started", "deployed")  # events of each deploy

SETTLED_WITHIN = 300  # seconds: it is no test of speed
ENDED_WITHIN = 20  # seconds; other tests say how fast an end has to be


class Service:
    """Lookouts one after the other, on one faulty line to one queue."""

    def __init__(self, engine: PrivateEngine, sqs: LocalSqs, line: FaultySqs, folder: Path) -> None:
        self.queue_url, self.dead_letters_url = (
            sqs.create_queue(f"test-{token_hex(4)}{end}") for end in ("", "-dead")
        )
        self.lookouts: list[RunningLookout] = []
        self._sqs = sqs
        self._folder = folder
        self._environment = {
            "SqsQueueUrl": self.queue_url,
            "DeadLetterQueueUrl": self.dead_letters_url,
            "DOCKER_HOST": engine.docker_host,
            **SETTINGS,
            **sqs.environment(),
            "AWS_ENDPOINT_URL_SQS": line.endpoint,
        }

    @property
    def runs(self) -> list[list[Event]]:
        """What each Lookout has logged."""
        return [lookout.events for lookout in self.lookouts]

    def start(self) -> RunningLookout:
        self.lookouts.append(RunningLookout(self._environment, self._folder, **PACE))
        return self.lookouts[-1]

    def end(self) -> None:
        assert self.lookouts[-1].terminate(ENDED_WITHIN) == 0

    def wait_until_settled(self) -> None:
        """Wait until no message is left, neither on the queue nor in flight."""
        deadline = time.monotonic() + SETTLED_WITHIN
        while (left := self._sqs.count(self.queue_url)) != (0, 0):
            assert time.monotonic() < deadline, f"visible and in flight are still {left}"
            time.sleep(0.1)

    def dead_letters(self) -> Iterator[dict[str, Any]]:
        """All of them; they are hidden from whoever asks next."""
        while some := self._sqs.receive(self.dead_letters_url):
            yield from some

    def close(self) -> None:
        for lookout in self.lookouts:
            lookout.__exit__()


@pytest.fixture
def line(sqs: LocalSqs) -> Iterator[FaultySqs]:
    with FaultySqs(sqs.endpoint, OneIn(FAULTY, SEED)) as line:
        yield line


@pytest.fixture
def service(engine: PrivateEngine, sqs: LocalSqs, line: FaultySqs, tmp_path: Path) -> Iterator[Service]:
    service = Service(engine, sqs, line, tmp_path)
    yield service
    service.close()


@pytest.mark.parametrize("restarts", [0, RESTARTS], ids=["one Lookout", "restarted again and again"])
def test_each_image_ends_on_what_was_sent_last_and_each_message_is_settled_once(
    engine: PrivateEngine,
    registry: Registry,
    sqs: LocalSqs,
    line: FaultySqs,
    service: Service,
    restarts: int,
) -> None:
    chance = random.Random(SEED)  # noqa: S311  to be drawn again, not a secret
    traffic = Traffic(sqs, service.queue_url, SENDERS)
    with Fleet(engine, registry, size=IMAGES) as fleet:
        shares = in_shares(wishes(fleet, MESSAGES, chance), restarts + 1)
        for share in shares[:-1]:
            lookout = service.start()
            traffic.send(share)
            in_the_middle(lookout, chance, len(share))
            service.end()
        service.start()
        traffic.send(shares[-1])
        traffic.wait_until_sent()
        service.wait_until_settled()
        service.end()

        assert [*traffic.complaints_of_ends(service.runs)] == []
        assert [*traffic.complaints_of_order(service.runs, line.sent)] == []
        assert [*traffic.complaints_of_dead_letters(service.dead_letters())] == []
        runs = fleet.runs()
        for repository in fleet.repositories:
            allowed = [
                Runs(f"{repository}:{wish.tag}", fleet.images[wish.tag], is_running=True)
                for wish in traffic.newest(line.sent, repository).values()
            ]
            assert runs.pop(repository) in allowed
        assert runs == {}
        assert leftovers(engine) == []
    assert {*ANY, Fault.NOT_DONE} <= line.met["DeleteMessage"].keys(), "else this was no test"
    assert line.met["ReceiveMessage"]


def in_shares(messages: Sequence[Wish], count: int) -> list[Sequence[Wish]]:
    """The same messages in order, in so many shares."""
    return [messages[len(messages) * n // count : len(messages) * (n + 1) // count] for n in range(count)]


def in_the_middle(lookout: RunningLookout, chance: random.Random, sent: int) -> None:
    """Wait for a moment at which it has much in hand: another one each time."""
    event, most = chance.choice([("received", sent // 2), *((name, sent // 8) for name in STEPS)])
    lookout.wait_for(event, count=chance.randint(1, max(1, most)), seconds=120)
