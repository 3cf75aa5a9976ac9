"""The image that people install: what is in it, and how it deploys."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import product
from testbed.engine import USUAL_SOCKET, PrivateEngine
from testbed.gate import Gate
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.contained import ContainedLookout

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
OVER_BASE = 35_000_000  # bytes
SOCKET_GROUP = 4242
#: As little as a container can be given.
HARDENED = (
    *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    f"--user=lookout:{SOCKET_GROUP}",
)
SETTINGS = {
    "MonitorSeconds": "0.2",
    "PollTimeSeconds": "1",
    "DeployTimeSeconds": "5",
    "LogFormat": "json",
    "LogLevel": "debug",
}
DIES = 'CMD ["sh", "-c", "echo no such table; exit 3"]'

#: Run in the image: all that any of its commands may import, and all that the SDK may be asked for.
EVERYTHING = """
import importlib, pkgutil, sys
import botocore.session
import lookout
import rich.live, rich.progress_bar, rich.table, rich.text
for module in pkgutil.iter_modules(lookout.__path__):
    if module.name != "__main__":
        importlib.import_module(f"lookout.{module.name}")
session = botocore.session.get_session()
for service in ("sqs", "ecr", "sts", "sso", "sso-oidc"):
    print(service, *session.get_available_regions(service))
    for region in ("eu-west-1", "cn-north-1", "us-gov-west-1"):
        client = session.create_client(
            service, region_name=region, aws_access_key_id="a", aws_secret_access_key="b"
        )
        print(service, region, client.meta.endpoint_url)
"""

RunLookout = Callable[..., ContainedLookout]


@pytest.fixture
def run_lookout(
    engine: PrivateEngine,
    product_image: str,
    make_container: MakeContainer,
    gate: Gate,
    queue_url: str,
    sqs: LocalSqs,
) -> RunLookout:
    """Run the image on the test's queue, with these options of `docker run`; the engine's socket has a group."""
    engine.sandbox.run(["chgrp", str(SOCKET_GROUP), engine.socket])
    variables = sqs.environment() | SETTINGS
    variables |= {name: gate.endpoint for name in variables if name.startswith("AWS_ENDPOINT_URL")}
    variables["SqsQueueUrl"] = queue_url.replace(sqs.endpoint, gate.endpoint)
    given = [f"--env={name}={value}" for name, value in variables.items()]
    given.append(f"--volume={engine.socket}:{USUAL_SOCKET}")
    given.append("--health-interval=1s")  # as the image says it, a test would wait for long

    def run(*options: str) -> ContainedLookout:
        return ContainedLookout(engine, make_container(product_image, "lookout", *given, *options))

    return run


def test_it_is_what_its_description_says(engine: PrivateEngine, product_image: str) -> None:
    image = json.loads(engine.docker("image", "inspect", product_image))[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = {
        f"org.opencontainers.image.{key}": value
        for key, value in {
            "title": "Lookout",
            "description": project["description"],
            "licenses": project["license"],
            "version": project["version"],
        }.items()
    }
    labels |= {"lookout.enable": "false"}  # for the eyes of another Lookout
    config = image["Config"]
    assert labels.items() <= config["Labels"].items()
    assert (config["Entrypoint"], config["Cmd"], config["StopSignal"]) == (["lookout"], None, "SIGTERM")
    assert config["User"] == ""
    assert image["Size"] - size(engine, product.BASE) < OVER_BASE


def size(engine: PrivateEngine, reference: str) -> int:
    return int(engine.docker("image", "inspect", "--format={{.Size}}", reference))


def test_nothing_that_is_used_was_left_out_of_it(engine: PrivateEngine, product_image: str) -> None:
    python = ("run", "--rm", "--network=none", "--read-only", "--entrypoint=python", product_image, "-c")
    said = engine.docker(*python, EVERYTHING).splitlines()
    for service in ("sqs", "ecr", "sts", "sso", "sso-oidc"):
        assert any(line.startswith(f"{service} ") and " eu-central-1 " in line for line in said)
    assert "sqs eu-west-1 https://sqs.eu-west-1.amazonaws.com" in said
    assert "ecr cn-north-1 https://api.ecr.cn-north-1.amazonaws.com.cn" in said
    assert "sts us-gov-west-1 https://sts.us-gov-west-1.amazonaws.com" in said


def test_all_of_it_is_compiled_and_nothing_installs_more(engine: PrivateEngine, product_image: str) -> None:
    shell = ("run", "--rm", "--network=none", "--entrypoint=sh", product_image, "-c")
    modules = "find /opt/lookout/lib -name '*.py' | grep -v -e /__pycache__/ | wc -l"
    compiled = "find /opt/lookout/lib -name '*.cpython-*.pyc' | wc -l"
    sources, done, *left = engine.docker(*shell, f"{modules}; {compiled}; ls /opt/lookout/bin").split()
    assert int(sources) == int(done) > 0
    assert set(left) == {"lookout", "python", "python3", "python3.13"}


def test_a_user_without_any_right_but_the_sockets_group_deploys(
    run_lookout: RunLookout,
    engine: PrivateEngine,
    app_image: AppImage,
    make_container: MakeContainer,
    queue_url: str,
    sqs: LocalSqs,
    inspect: Inspect,
) -> None:
    name, image, bad = (
        make_container(app_image("1"), "api"),
        app_image("2"),
        app_image("3", changes=[DIES]),
    )
    lookout = run_lookout(*HARDENED)
    repository = image.removesuffix(":2")
    sqs.send(queue_url, {"ImageName": repository, "ImageTag": "2"})
    lookout.wait_for("deployed", image=image)
    assert inspect(name)["Config"]["Image"] == image
    sqs.send(queue_url, {"ImageName": repository, "ImageTag": "3"})
    lookout.wait_for("rolled_back", image=bad)
    assert inspect(name)["Config"]["Image"] == image
    lookout.wait_until_healthy()
    lookout.lookout("check")  # raises where there is a problem
    assert lookout.stop() == 0


def test_as_it_stands_it_deploys_answers_commands_and_leaves_itself_alone(
    run_lookout: RunLookout,
    engine: PrivateEngine,
    product_image: str,
    app_image: AppImage,
    make_container: MakeContainer,
    queue_url: str,
    sqs: LocalSqs,
    inspect: Inspect,
) -> None:
    name, image = make_container(app_image("1"), "api"), app_image("2")
    lookout = run_lookout("--memory=128m", "--memory-swap=128m")
    assert name in lookout.lookout("plan", image)
    told = json.loads(lookout.lookout("deploy", "--json", image))
    assert told["Outcome"] == "deployed"
    assert inspect(name)["Config"]["Image"] == image
    assert "unchanged" in lookout.lookout("deploy", image)
    repository, _, tag = product_image.rpartition(":")
    sqs.send(queue_url, {"ImageName": repository, "ImageTag": tag})
    assert "itself" in str(lookout.wait_for("ignored", image=product_image))
    lookout.wait_until_healthy()
    assert lookout.stop() == 0
    written = engine.docker("diff", lookout.container).splitlines()
    assert written == ["C /run", "A /run/docker.sock"]  # where the socket is mounted
