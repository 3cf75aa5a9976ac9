"""`make demo`: exit code 0 only if all went as it should."""

import os
import signal
import sys
from contextlib import ExitStack
from typing import NoReturn

from demo import screen
from demo.daemon import Daemon
from demo.stage import Stage, stage
from demo.story import BLOG, SHOP, Story
from testbed import own
from testbed.debian import Unavailable
from testbed.engine import DockerFailed, Engine, PrivateEngine
from testbed.sqs import LocalSqs

WENT_WELL, WENT_WRONG, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 130


def main() -> int:
    """Run the demo, and remove all that it made, whatever happens."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            story = _set_up(stack)
            story.tell()
            screen.heading("What happened")
            screen.table(story.steps)
    except (Unavailable, DockerFailed, TimeoutError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return UNAVAILABLE
    except KeyboardInterrupt:
        print("demo: interrupted; what it had made is removed", file=sys.stderr)
        return INTERRUPTED
    return WENT_WELL if all(step.ok for step in story.steps) else WENT_WRONG


def _set_up(stack: ExitStack) -> Story:
    screen.heading("Setting up")
    engine = stack.enter_context(own.engine())
    version = engine.docker("version", "--format", "{{.Server.Version}}")
    whose = "a private one" if isinstance(engine, PrivateEngine) else "yours"
    screen.say("engine", f"{whose}, {version}, at {engine.docker_host}")
    sqs = stack.enter_context(LocalSqs())
    queue = sqs.create_queue("lookout-demo", VisibilityTimeout=30)
    screen.say("sqs", f"a local server: {queue}")
    made = stack.enter_context(stage(engine))
    _publish(made)
    environment = _environment(engine, sqs, queue)
    lookout = stack.enter_context(Daemon(environment, screen.show_event))
    stack.callback(_finish_in_peace)
    return Story(made, sqs, queue, lookout, environment)


def _publish(made: Stage) -> None:
    made.start_registry()
    screen.say("registry", f"a container of its own: {made.registry}")
    for application, tags in {SHOP: ("1", "2", "4"), BLOG: ("1", "2")}.items():
        for tag in tags:
            made.publish(application, tag)
    made.publish(SHOP, "3", broken=True)
    for application in (SHOP, BLOG):
        made.start(application, "1")
        screen.say(application, f"answers {made.answer(application)!r}", screen.COLORS["answer"])


def _environment(engine: Engine, sqs: LocalSqs, queue: str) -> dict[str, str]:
    """All that Lookout needs; of the person's variables only those that reach the engine."""
    docker = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    return {
        "PATH": os.environ["PATH"],
        **docker,
        **sqs.environment(),
        "DOCKER_HOST": engine.docker_host,
        "SqsQueueUrl": queue,
        "LogFormat": "json",
        "MonitorSeconds": "2",
        "PollTimeSeconds": "2",
    }


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _finish_in_peace() -> None:
    """A second Ctrl-C must not leave anything behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
