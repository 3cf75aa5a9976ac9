"""What the README tells a newcomer to type, typed as it stands there."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testbed.debian import unpacked
from testbed.engine import PrivateEngine
from testbed.gate import Gate
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.contained import SOCKET, ContainedLookout

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
#: The name that the README gives to the image, wherever it came from.
IMAGE = "lookout:latest"
QUEUES = ("deploys", "deploys-dead")
SOCKET_GROUP = 4242


def block(heading: str, language: str, *, number: int = 0) -> str:
    """The number-th block of code in this language below a heading."""
    section = re.split(r"\n##+ ", README.partition(f"# {heading}\n")[2])[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[number]


class Shell:
    """Runs lines of the README on the engine's machine, in a folder with an `.env`, and with Docker as people have it."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        packages = unpacked("forky")
        plugins = folder / ".docker" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(packages.program("docker-compose"))
        self.folder = folder
        self._engine = engine
        docker = packages.program("docker").parent
        self._environment = {"PATH": f"{docker}:{os.defpath}", "HOME": str(folder)}

    def run(self, lines: str) -> str:
        return self._engine.sandbox.run(["sh", "-ec", f"cd {self.folder}; {lines}"], env=self._environment)


@pytest.fixture
def shell(engine: PrivateEngine, product_image: str, tmp_path: Path) -> Iterator[Shell]:
    """A machine whose engine is where Docker is, with the image; it is rid of what was started as `lookout`."""
    engine.sandbox.run(["chgrp", str(SOCKET_GROUP), engine.socket])
    engine.sandbox.run(["sh", "-c", f"touch {SOCKET} && mount --bind {engine.socket} {SOCKET}"])
    engine.tag(product_image, IMAGE)
    yield Shell(engine, tmp_path)
    engine.remove_all(ancestor=IMAGE)
    engine.docker("rmi", IMAGE)
    engine.sandbox.run(["umount", SOCKET])


@pytest.fixture
def queues(sqs: LocalSqs) -> Mapping[str, str]:
    """The README's two queues, empty; their URLs by their names."""
    return {name: sqs.create_queue(name) for name in QUEUES}


@pytest.fixture
def env_file(gate: Gate, sqs: LocalSqs, queues: Mapping[str, str]) -> str:
    """The README's `.env`, with keys in it, and where SQS is to be found meanwhile."""
    lines = block("Five minutes to the first deploy", "ini").replace("=...", "=testing")
    return lines + f"AWS_ENDPOINT_URL_SQS={gate.endpoint}\nMonitorSeconds=0.2\nLogFormat=json\n"


def test_the_docker_run_of_the_first_five_minutes_deploys(
    shell: Shell,
    engine: PrivateEngine,
    env_file: str,
    app_image: AppImage,
    make_container: MakeContainer,
    queues: Mapping[str, str],
    sqs: LocalSqs,
    inspect: Inspect,
) -> None:
    name, image = make_container(app_image("41"), "api"), app_image("42")
    (shell.folder / ".env").write_text(env_file)
    shell.run(block("Five minutes to the first deploy", "sh"))
    lookout = ContainedLookout(engine, "lookout")
    message = json.loads(block("Lookout", "json"))
    sqs.send(queues["deploys"], message | {"ImageName": image.removesuffix(":42")})
    lookout.wait_for("deployed", image=image)
    assert inspect(name)["Config"]["Image"] == image
    assert lookout.stop() == 0
