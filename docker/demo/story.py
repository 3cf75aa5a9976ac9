"""What happens in the demo, and how it is judged: by the state of the engine and of the queue."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demo import screen
from demo.ci import Ask
from demo.daemon import Daemon
from demo.screen import Step
from demo.stage import COMPLAINT, Stage
from testbed.sqs import LocalSqs

LONGEST_STEP_SECONDS = 90
SHOP, BLOG = "shop", "blog"


@dataclass
class Story:
    """The steps, told one after the other."""

    stage: Stage
    sqs: LocalSqs
    queue: str
    lookout: Daemon
    environment: Mapping[str, str]  # of CI
    steps: list[Step] = field(default_factory=list)

    def tell(self) -> None:
        """Let everything happen; afterwards `steps` says what did."""
        self._new_version()
        self._broken_version()
        self._side_by_side()

    def _new_version(self) -> None:
        screen.heading("A new version: CI has pushed shop 2 and asks for its deploy")
        told = self._ask(SHOP, "2").exit_code()
        self._settle()
        self._judge(
            "a new version is deployed",
            ["CI is told 0", "shop runs 2 and answers 2", "queue empty"],
            [f"CI is told {told}", self._look(SHOP)],
        )

    def _broken_version(self) -> None:
        screen.heading("A broken version: shop 3 ends as soon as it starts")
        before, since = self.stage.inspect(SHOP).get("Id"), self.stage.now()
        asked = self._ask(SHOP, "3")
        told = asked.exit_code()
        self._settle()
        tried = any(
            event["Action"] == "start"
            and event["Actor"]["Attributes"]["image"] == self.stage.image(SHOP, "3")
            for event in self.stage.events(since)
        )
        same = before == self.stage.inspect(SHOP).get("Id")
        self._judge(
            "a broken version is rolled back",
            [
                "CI is told 1 and why",
                "shop runs 2 and answers 2",
                "3 was started",
                "the container is the one before",
                "queue empty",
            ],
            [
                f"CI is told {told}{' and why' if asked.has_printed(COMPLAINT) else ''}",
                self._look(SHOP),
                "3 was started" if tried else "3 was never started",
                "the container is the one before" if same else "the container is another one",
            ],
        )

    def _side_by_side(self) -> None:
        screen.heading("Two images at once: shop 4 and blog 2")
        since = self.stage.now()
        asked = [self._ask(SHOP, "4"), self._ask(BLOG, "2")]
        told = [ask.exit_code() for ask in asked]
        self._settle()
        together = self._overlap(self.stage.events(since))
        self._judge(
            "two images deploy side by side",
            [
                "CI is told 0 and 0",
                "shop runs 4 and answers 4",
                "blog runs 2 and answers 2",
                "at the same time",
                "queue empty",
            ],
            [
                f"CI is told {' and '.join(map(str, told))}",
                self._look(SHOP),
                self._look(BLOG),
                "at the same time" if together > 0 else "one after the other",
            ],
        )
        if together > 0:
            screen.say("engine", f"both swaps were under way for {together:.1f} s at the same time")

    def _ask(self, application: str, tag: str) -> Ask:
        return Ask(self.environment, self.stage.image(application, tag))

    def _settle(self) -> None:
        """Wait until the queue is empty, which is when every message has been dealt with."""
        deadline = time.monotonic() + LONGEST_STEP_SECONDS
        while self.sqs.count(self.queue) != (0, 0) and self.lookout.runs() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _look(self, application: str) -> str:
        image = self.stage.inspect(application).get("Config", {}).get("Image", "")
        answer = self.stage.answer(application)
        screen.say(application, f"answers {answer!r}", screen.COLORS["answer"])
        return f"{application} runs {image.rpartition(':')[2] or 'nothing'} and answers {answer or 'nothing'}"

    def _judge(self, name: str, expected: list[str], seen: list[str]) -> None:
        visible, in_flight = self.sqs.count(self.queue)
        empty = (visible, in_flight) == (0, 0)
        seen.append("queue empty" if empty else f"queue: {visible} waiting, {in_flight} in flight")
        self.steps.append(Step(name, ", ".join(expected), ", ".join(seen)))

    def _overlap(self, events: list[dict[str, Any]]) -> float:
        """For how many seconds both swaps were under way; negative if they were not."""
        spans = []
        for application in (SHOP, BLOG):
            moments = [
                event["timeNano"] / 1e9
                for event in events
                # Lookout's working names begin with the container's own.
                if event["Actor"]["Attributes"]["name"].startswith(self.stage.container(application))
                and event["Action"] in ("create", "destroy")
            ]
            spans.append((min(moments, default=0.0), max(moments, default=0.0)))
        return min(end for _, end in spans) - max(start for start, _ in spans)
