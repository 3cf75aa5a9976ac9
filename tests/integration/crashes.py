"""Plays a deploy on a real engine and queue, and lets something die at a chosen call to the engine."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag

from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.images import make_image, push
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.crash_judge import CONTENT, FILE, FOLDERS, Judge, complaints_of_message, ends
from tests.integration.crash_points import Lines, Point
from tests.integration.crash_scenarios import NEW, OLD, Part, Scenario
from tests.integration.running import Event, RunningLookout
from tests.integration.watching import state, volumes

SUBNET, ADDRESS = "10.97.31.0/24", "10.97.31.{number}"

#: Waits that are promises, made short: a message comes back about a second after its holder died.
PACE = {
    "lease_floor": 1,
    "lease_margin": 0,
    "backoff_base": 0.5,
    "longest_poll_backoff": 1,
    "repair_every": 1,
}
SETTINGS = {"MonitorSeconds": "0.4", "PollTimeSeconds": "1", "DeployTimeSeconds": "1"}
VISIBILITY = 2  # seconds: of the queue itself, which Lookout overrules

SETTLED_WITHIN = 20  # seconds from a start of Lookout to the end of the message
IN_ORDER_WITHIN = 3  # seconds from then until all is as it must be


class Ground:
    """What all plays of one scenario share: images, a network, and a folder to work in."""

    def __init__(
        self, engine: PrivateEngine, registry: Registry, sqs: LocalSqs, folder: Path, scenario: Scenario
    ) -> None:
        self.engine = engine
        self.sqs = sqs
        self.folder = folder
        self.scenario = scenario
        self.run = secrets.token_hex(4)
        self.prefix = f"lookout-test-{self.run}-"
        self.network = f"lookout-test-{self.run}"
        self.repository = f"{registry.host}/test-{self.run}/api"
        self.tool = f"lookout-test-{self.run}/tool:1"
        self.known: dict[str, str] = {}  # containers besides those of the scenario: a word for each id
        self.images = {
            OLD: make_image(engine, f"{self.repository}:{OLD}"),
            NEW: make_image(engine, f"{self.repository}:{NEW}", changes=scenario.changes),
        }
        push(engine, f"{self.repository}:{NEW}")
        make_image(engine, self.tool)
        engine.docker("network", "create", f"--subnet={SUBNET}", self.network)

    def close(self) -> None:
        self.engine.delete(f"/networks/{self.network}")

    @contextmanager
    def play(self) -> Iterator["Play"]:
        """Containers as they were before the deploy, and a message that asks for it."""
        with FaultProxy(self.engine.socket, self.engine.directory / f"{secrets.token_hex(4)}.sock") as line:
            play = Play(self, line)
            try:
                play.set_up()
                yield play
            finally:
                play.tear_down()


class Bystander:
    """A container with this restart policy that Lookout has no business with."""

    def __init__(self, ground: Ground, policy: str) -> None:
        self._engine = ground.engine
        self._name = f"lookout-bystander-{ground.run}"
        run = ("run", "-d", f"--name={self._name}", f"--restart={policy}", ground.tool)
        ground.known[self._engine.docker(*run)] = "bystander"

    def start(self) -> None:
        """Let it run, if it does not."""
        self._engine.docker("start", self._name)

    def runs(self) -> bool:
        return state(self._engine, self._name)[1]


@dataclass
class Fault:
    """What happens at a point; `met` is set when it has, and `calls` are those that came until then."""

    point: Point
    action: Callable[[RunningLookout], object] = RunningLookout.kill
    goes_on: bool = False  # the call itself is not cut
    met: Flag = field(default_factory=Flag)
    calls: list[str] = field(default_factory=list)

    @property
    def swap_has_begun(self) -> bool:
        """Whether the engine has been asked for a new container before."""
        seen = self.calls[:-1] if self.point.when == "before" else self.calls
        return any(line.startswith("POST /containers/create") for line in seen)


class Play:
    """One deploy, with as many Lookouts one after the other as it takes."""

    def __init__(self, ground: Ground, line: FaultProxy) -> None:
        self.ground = ground
        self.scenario = ground.scenario
        self.lookouts: list[RunningLookout] = []
        self._engine = ground.engine
        self._line = line
        self.label = f"lookout.test={secrets.token_hex(4)}"
        self._names = {part.suffix: ground.prefix + part.suffix for part in self.scenario.parts}

    def set_up(self) -> None:
        for part in self.scenario.parts:
            self.set_up_part(part)
        self.judge = Judge(
            self._engine, self.scenario, self._names, label=self.label, images=self.ground.images
        )
        words = {self.ground.prefix: "", self.ground.run: "run"}
        words |= {image: f"<{tag}>" for tag, image in self.ground.images.items()}
        self._lines = Lines(self.judge.ids | self.ground.known, words)
        sqs = self.ground.sqs
        self.queue_url = sqs.create_queue(f"test-{secrets.token_hex(4)}", VisibilityTimeout=VISIBILITY)
        self.message = sqs.send(
            self.queue_url, {"ImageName": self.ground.repository, "ImageTag": NEW, "DeployTimeSeconds": "1"}
        )

    def set_up_part(self, part: Part) -> None:
        """Run this container, with a file in each of its volumes."""
        name, engine = self._names[part.suffix], self._engine
        options = [f"--label={self.label}", f"--restart={part.restart}", "--env=OWN=yes", *part.options]
        options += [f"--volume={name}-data:{FOLDERS[0]}", f"--volume={FOLDERS[1]}"]
        if part.parent:
            image = self.ground.tool
            options += [f"--network=container:{self._names[part.parent]}", f"--env=PORT={part.port}"]
        else:
            image = f"{self.ground.repository}:{OLD}"
            options += [f"--network={self.ground.network}", f"--ip={ADDRESS.format(number=part.number)}"]
            options += [f"--network-alias=shop-{part.suffix}", f"--publish={part.port}:8080"]
        engine.docker("run", "-d", f"--name={name}", *options, image)
        fill = "; ".join(f"echo {CONTENT} > {folder}/{FILE}" for folder in FOLDERS)
        engine.inside(name, "sh", "-c", fill)

    def tear_down(self) -> None:
        for lookout in self.lookouts:
            lookout.__exit__()
        self._engine.remove_all(label=self.label)
        self._engine.remove_all(name=self.ground.prefix)
        # None but this play's: where there is no container, no volume is anybody's.
        for volume in volumes(self._engine):
            self._engine.delete(f"/volumes/{volume}")

    @property
    def runs(self) -> list[list[Event]]:
        """What each Lookout has logged."""
        return [lookout.events for lookout in self.lookouts]

    @property
    def calls(self) -> list[str]:
        """The calls to the engine so far, without what is another in each run, and how often it was pinged."""
        return [self._lines(request) for request in self._line.requests if not request.endswith("/_ping")]

    def start(self, fault: Fault | None = None, **settings: str) -> RunningLookout:
        """Start a Lookout, in which the fault will happen."""
        if fault:
            self._plan(fault)
        environment = {"SqsQueueUrl": self.queue_url, "DOCKER_HOST": self._line.docker_host, **SETTINGS}
        environment |= self.ground.sqs.environment()
        self.lookouts.append(RunningLookout(environment | settings, self.ground.folder, forked=True, **PACE))
        return self.lookouts[-1]

    def _plan(self, fault: Fault) -> None:
        def strike() -> None:
            fault.calls = self.calls
            fault.action(self.lookouts[-1])
            fault.met.set()

        plan = self._line.meet if fault.goes_on else self._line.cut
        point = fault.point
        plan(
            lambda request: self._lines(request) == point.line, action=strike, nth=point.nth, when=point.when
        )

    def wait(self, condition: Callable[[], object], seconds: float = SETTLED_WITHIN) -> bool:
        """Whether it came true in so many seconds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def is_settled(self) -> bool:
        """Whether the message has ended, and is gone from the queue."""
        ended = any(ends(events, self.message) for events in self.runs)
        return ended and self.ground.sqs.count(self.queue_url) == (0, 0)

    def wait_until_met(self, fault: Fault) -> bool:
        """Wait for the fault; false where the message ended without it."""
        self.wait(lambda: fault.met.is_set() or self.is_settled())
        return fault.met.is_set()

    def has_ended(self, seconds: float) -> bool:
        """Whether the last Lookout ends within so many seconds."""
        return self.wait(lambda: self.lookouts[-1].has_ended, seconds)

    def wait_until_settled(self, seconds: float = SETTLED_WITHIN) -> None:
        """Wait for the end of the message, and in any case for the last Lookout to be at work."""
        self.wait(lambda: self.lookouts[-1].logged("polling") and self.is_settled(), seconds)

    def finish(self) -> None:
        """Let another Lookout, in which nothing dies, bring all to its end."""
        self.start()
        self.wait_until_settled()

    def complaints(self) -> list[str]:
        """What is wrong in the end, which may take a moment longer than the message."""
        found: list[str] = []

        def in_order() -> bool:
            found[:] = self.judge.complaints()
            return not found

        self.wait(in_order, IN_ORDER_WITHIN)
        left = self.ground.sqs.count(self.queue_url)
        return found + complaints_of_message(self.scenario, left, self.message, self.runs)

    def story(self) -> str:
        """What each Lookout has said, for whoever must find out what went wrong."""
        runs = enumerate(self.runs, 1)
        return "\n".join(f"      run {number}: " + ", ".join(map(_told, events)) for number, events in runs)


def _told(event: Event) -> str:
    reason = event.get("reason") or event.get("error")
    return str(event["event"]) + (f" ({str(reason)[:150]})" if reason else "")


class Findings:
    """What came of the points that were tried."""

    def __init__(self, ground: Ground) -> None:
        self.tried = 0
        self.missed: list[str] = []
        self.failures: list[str] = []
        self._prefix = ground.prefix

    def add(self, play: Play, faults: Sequence[Fault], complaints: Sequence[str]) -> None:
        """Note what faults have led to; a point that did not occur is one unless it need not occur."""
        self.tried += 1
        where = ", then ".join(str(fault.point) for fault in faults)
        if missed := [fault.point for fault in faults if not fault.met.is_set()]:
            self.missed.append(where)
            if not all(point.may_be_missed for point in missed):
                complaints = [*complaints, "this point did not occur in the run"]
        if complaints:
            lines = "\n".join(f"    - {complaint}" for complaint in complaints)
            text = f"  {where}\n{lines}\n{play.story()}"
            self.failures.append(text.replace(self._prefix, ""))

    def report(self) -> str:
        return "\n".join([f"{len(self.failures)} of {self.tried} points failed", *self.failures])
