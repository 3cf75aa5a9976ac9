"""What the README tells a newcomer to type, typed as it stands there; only the images have other names."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lookout.model import Json
from testbed import sqs_image
from testbed.engine import USUAL_SOCKET, PrivateEngine
from testbed.gate import Gate
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.contained import LOOKOUT_USER, ContainedLookout
from tests.integration.readme import ROOT, Shell, block

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(400)]

#: The name that the README gives to the image, wherever it came from.
IMAGE = "lookout:latest"
FIRST = "Five minutes to the first deploy"
SIDECAR = "As a sidecar, with Compose"
QUEUES = ("deploys", "deploys-dead")
SOCKET_GROUP = 4242


@pytest.fixture
def shell(engine: PrivateEngine, product_image: str, tmp_path: Path) -> Iterator[Shell]:
    """A machine with Docker where it usually is, with the image, and with the compose files of a clone."""
    engine.sandbox.run(["chgrp", str(SOCKET_GROUP), USUAL_SOCKET])
    engine.tag(product_image, IMAGE)
    (tmp_path / "docker").mkdir()
    for file in (ROOT / "docker").glob("compose*.yml"):
        shutil.copy(file, tmp_path / "docker")
    shell = Shell(engine, tmp_path)
    yield shell
    for name in ("docker-lookout-1", "docker-app-1", "docker-sqs-1", "lookout"):
        engine.remove_all(name=f"^/{name}$")
    engine.docker("network", "prune", "--force")
    engine.docker("rmi", IMAGE)


@pytest.fixture
def queues(sqs: LocalSqs) -> Iterator[Mapping[str, str]]:
    """The README's two queues; their URLs by their names."""
    urls = {name: sqs.create_queue(name) for name in QUEUES}
    yield urls
    for url in urls.values():
        sqs.delete_queue(url)


@pytest.fixture
def env_file(gate: Gate, queues: Mapping[str, str]) -> str:
    """The README's `.env`, with keys in it, where SQS is to be found, and waits that are short enough for a test."""
    keys = block(FIRST, "ini").replace("=...", "=testing")
    return (
        f"{keys}AWS_ENDPOINT_URL_SQS={gate.endpoint}\nMonitorSeconds=0.2\nPollTimeSeconds=1\nLogFormat=json\n"
    )


def message_for(image: str) -> dict[str, object]:
    """The README's own, for another image."""
    name, _, tag = image.rpartition(":")
    return dict(json.loads(block("Lookout", "json"))) | {"ImageName": name, "ImageTag": tag}


def test_the_first_five_minutes_end_with_a_deploy(
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
    shell.run(block(FIRST, "sh"))
    lookout = ContainedLookout(engine, "lookout")
    assert_harmless(engine, inspect("lookout"))
    sqs.send(queues["deploys"], message_for(image))
    lookout.wait_for("deployed", image=image)
    assert inspect(name)["Config"]["Image"] == image
    assert lookout.stop() == 0


def test_lookout_as_a_sidecar_deploys_what_is_beside_it(
    shell: Shell,
    engine: PrivateEngine,
    env_file: str,
    app_image: AppImage,
    queues: Mapping[str, str],
    sqs: LocalSqs,
    inspect: Inspect,
) -> None:
    name, two = app_image("1").removesuffix(":1"), app_image("2")
    settings = f"{env_file}DOCKER_GID={SOCKET_GROUP}\nAPP_IMAGE={name}\n"
    (shell.folder / "docker" / ".env").write_text(f"{settings}TAG=1\n")
    shell.run(block(SIDECAR, "sh"))
    lookout = ContainedLookout(engine, id_of(engine, "lookout"))
    assert_harmless(engine, inspect(lookout.container))
    sqs.send(queues["deploys"], message_for(two))
    lookout.wait_for("deployed", image=two)
    assert inspect(id_of(engine, "app"))["Config"]["Image"] == two
    lookout.wait_until_healthy()

    # Another tag in the file that both read is the application's affair alone.
    (shell.folder / "docker" / ".env").write_text(f"{settings}TAG=2\n")
    shell.run(block(SIDECAR, "sh"))
    assert id_of(engine, "lookout") == lookout.container
    assert inspect(id_of(engine, "app"))["Config"]["Image"] == two
    assert lookout.stop() == 0


def test_all_of_it_runs_without_aws_and_answers_whoever_asks_for_a_deploy(
    shell: Shell, engine: PrivateEngine, app_image: AppImage, inspect: Inspect
) -> None:
    """Here Lookout is root, though without any capability: the socket is its own."""
    sqs_image.have(engine)
    engine.sandbox.run(["chgrp", "0", USUAL_SOCKET])
    name, two = app_image("1").removesuffix(":1"), app_image("2")
    (shell.folder / "docker" / ".env").write_text(f"APP_IMAGE={name}\nTAG=1\n")
    shell.run(block(SIDECAR, "sh", 1).replace("nginx:1.29", two))
    assert inspect(id_of(engine, "app"))["Config"]["Image"] == two
    lookout = ContainedLookout(engine, id_of(engine, "lookout"))
    assert lookout.stop() == 0


def id_of(engine: PrivateEngine, service: str) -> str:
    """That of the service's container by now."""
    (found,) = engine.listed(label=f"com.docker.compose.service={service}", name=f"^/docker-{service}-1$")
    return str(found["Id"])


def assert_harmless(engine: PrivateEngine, lookout: Json) -> None:
    """By what its first process is, and not by what it was asked to be."""
    status = Path("/proc", str(lookout["State"]["Pid"]), "status")
    fields = dict(line.split(":\t") for line in engine.sandbox.run(["cat", status]).splitlines())
    assert {int(number) for number in fields["Uid"].split()} == {LOOKOUT_USER}
    assert str(SOCKET_GROUP) in f"{fields['Gid']} {fields['Groups']}".split()
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    host = lookout["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Init"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}
