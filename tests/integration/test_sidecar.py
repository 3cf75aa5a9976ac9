"""The compose files that people copy, as they stand: Lookout as a sidecar beside an application."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookout.model import Json
from testbed import sqs_image
from testbed.compose import Compose
from testbed.engine import PrivateEngine
from testbed.gate import Gate
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect
from tests.integration.contained import SOCKET, ContainedLookout

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(400)]

FILES = Path(__file__).parents[2] / "docker"
#: That of the compose files, unless they are told another one.
IMAGE = "lookout:latest"
SOCKET_GROUP = 4243
LOOKOUT_USER = 65532


class Sidecar:
    """A project of Lookout and an application, made of the repository's compose files."""

    def __init__(self, engine: PrivateEngine, folder: Path, *names: str) -> None:
        file, *overlays = [Path(shutil.copy(FILES / name, folder)) for name in names]
        self.engine = engine
        self.compose = Compose(engine, engine.suite, file, *overlays)

    @property
    def lookout(self) -> ContainedLookout:
        return ContainedLookout(self.engine, self.id("lookout"))

    def id(self, service: str) -> str:
        """Of the container that is the service's by now, also after a deploy."""
        (found,) = self.engine.listed(
            label=f"com.docker.compose.project={self.compose.name}", name=f"-{service}-1"
        )
        return str(found["Id"])

    def down(self) -> int:
        """As it is written; the exit code of Lookout, which is gone afterwards."""
        lookout, since = self.id("lookout"), time.time()
        self.compose.run("down")
        chosen = json.dumps({"type": ["container"], "event": ["die"], "container": [lookout]})
        told = self.engine.get("/events", since=f"{since:.6f}", until=f"{time.time():.6f}", filters=chosen)
        (died,) = map(json.loads, told.splitlines())
        return int(died["Actor"]["Attributes"]["exitCode"])


@pytest.fixture
def sidecar(
    request: pytest.FixtureRequest, engine: PrivateEngine, product_image: str, tmp_path: Path
) -> Iterator[Sidecar]:
    """Of the compose files that the test names; the engine's socket is where it usually is."""
    engine.sandbox.run(["sh", "-c", f"touch {SOCKET} && mount --bind {engine.socket} {SOCKET}"])
    engine.tag(product_image, IMAGE)
    sidecar = Sidecar(engine, tmp_path, *request.param)
    yield sidecar
    sidecar.compose.down()
    engine.docker("rmi", IMAGE)
    engine.sandbox.run(["umount", SOCKET])


@pytest.mark.parametrize("sidecar", [["compose.yml"]], indirect=True)
def test_a_message_deploys_beside_lookout_which_may_do_nothing_but_that(
    sidecar: Sidecar,
    engine: PrivateEngine,
    gate: Gate,
    sqs: LocalSqs,
    queue_url: str,
    app_image: AppImage,
    inspect: Inspect,
) -> None:
    engine.sandbox.run(["chgrp", str(SOCKET_GROUP), engine.socket])
    name, two = app_image("1").removesuffix(":1"), app_image("2")
    settings = settings_for(sqs, queue_url, gate) | {"DOCKER_GID": str(SOCKET_GROUP), "APP_IMAGE": name}
    sidecar.compose.write(settings | {"TAG": "1"})
    sidecar.compose.up()
    assert_harmless(engine, inspect(sidecar.id("lookout")))

    sqs.send(queue_url, {"ImageName": name, "ImageTag": "2"})
    sidecar.lookout.wait_for("deployed", image=two)
    assert inspect(sidecar.id("app"))["Config"]["Image"] == two
    sidecar.lookout.wait_until_healthy()

    # Another tag in the file that both read is the application's affair alone.
    lookout = sidecar.id("lookout")
    sidecar.compose.write(settings | {"TAG": "2"})
    sidecar.compose.up()
    assert sidecar.id("lookout") == lookout
    assert inspect(sidecar.id("app"))["Config"]["Image"] == two
    assert sidecar.down() == 0


def settings_for(sqs: LocalSqs, queue_url: str, gate: Gate) -> dict[str, str]:
    """What an `.env` holds, for a queue that containers reach by the gate."""
    variables = {
        name: gate.endpoint if name.startswith("AWS_ENDPOINT_URL") else value
        for name, value in sqs.environment().items()
    }
    quick = {"MonitorSeconds": "0.2", "PollTimeSeconds": "1", "LogFormat": "json"}
    return variables | quick | {"SqsQueueUrl": queue_url.replace(sqs.endpoint, gate.endpoint)}


def assert_harmless(engine: PrivateEngine, lookout: Json) -> None:
    """By what its first process is, and not by what it was asked to be."""
    status = Path("/proc", str(lookout["State"]["Pid"]), "status")
    fields = dict(line.split(":\t") for line in engine.sandbox.run(["cat", status]).splitlines())
    assert {int(number) for number in fields["Uid"].split()} == {LOOKOUT_USER}
    assert str(SOCKET_GROUP) in fields["Groups"].split()
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    host = lookout["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.parametrize("sidecar", [["compose.yml", "compose.local.yml"]], indirect=True)
def test_all_of_it_runs_without_aws_and_answers_whoever_asks_for_a_deploy(
    sidecar: Sidecar,
    engine: PrivateEngine,
    app_image: AppImage,
    inspect: Inspect,
) -> None:
    """Here Lookout is root, though without any capability: the socket is its own."""
    sqs_image.have(engine)
    engine.sandbox.run(["chgrp", "0", engine.socket])
    name, two = app_image("1").removesuffix(":1"), app_image("2")
    sidecar.compose.write({"APP_IMAGE": name, "TAG": "1", "DeadLetterQueueUrl": "https://sqs.invalid/1/dead"})
    sidecar.compose.up()
    told = json.loads(sidecar.compose.run("exec", "-T", "lookout", "lookout", "deploy", "--json", two))
    assert told["Outcome"] == "deployed"
    assert inspect(sidecar.id("app"))["Config"]["Image"] == two
    assert sidecar.down() == 0
