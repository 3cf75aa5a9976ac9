"""What the daemon takes of a machine, and what it does without for that."""

from pathlib import Path

import pytest

from footprint.measure import RSS_RATIO, footprint
from testbed.engine import PrivateEngine
from testbed.gate import Gate
from testbed.sqs import LocalSqs
from tests.integration import running

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(400)]

#: The modules of other commands, of settings that are off, and those that are used but once.
UNNEEDED = {
    *("aiohttp.web", "argparse", "cryptography", "dotenv", "prometheus_client", "pydantic", "pydantic_core"),
    *("pydantic_settings", "requests", "rich", "pygments", "multiprocessing", "ctypes"),
    *("lookout.arguments", "lookout.metrics", "lookout.preview", "lookout.printout", "lookout.queue_check"),
    *("lookout.reply_queue", "lookout.screen", "lookout.sender", "lookout.settings", "lookout.verdict"),
    "lookout.web",
}
#: The command as it is, with what it has imported in the end, and the services that it made clients for.
COMMAND = """import sys, json
{hidden}
import aiobotocore.session as s
made, create = [], s.AioSession.create_client
s.AioSession.create_client = lambda self, name, *a, **k: (made.append(name), create(self, name, *a, **k))[1]
from lookout.cli import main
code = main()
modules = [name for name, module in sys.modules.items() if module]
print(json.dumps(dict(event="imported", modules=modules, services=made)))
sys.exit(code)"""
WITHOUT_RICH = "sys.modules['rich'] = None"


@pytest.mark.parametrize("has_rich", [True, False], ids=["with rich", "without rich"])
def test_a_daemon_that_polls_has_imported_nothing_that_it_does_not_need(
    engine: PrivateEngine,
    sqs: LocalSqs,
    queue_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_rich: bool,
) -> None:
    command = COMMAND.replace("{hidden}", "" if has_rich else WITHOUT_RICH)
    monkeypatch.setattr(running, "COMMAND", command)
    environment = {"SqsQueueUrl": queue_url, "DOCKER_HOST": engine.docker_host, "PollTimeSeconds": "1"}
    with running.RunningLookout(environment | sqs.environment(), tmp_path) as lookout:
        lookout.wait_for("managing")
        assert lookout.terminate(30) == 0
        imported = lookout.wait_for("imported")
    assert UNNEEDED & set(imported["modules"]) == set()
    assert {"lookout.receiver", "lookout.deployer", "structlog.dev"} <= set(imported["modules"])
    assert imported["services"] == ["sqs"]


def test_the_image_idles_on_little_more_memory_than_a_bare_poll(
    engine: PrivateEngine, product_image: str, sqs: LocalSqs, gate: Gate
) -> None:
    taken = footprint(engine, product_image, sqs, gate, poll_time=1, window=1)
    assert 1 < taken.rss_ratio <= RSS_RATIO
