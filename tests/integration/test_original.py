"""Who comes from the original Lookout keeps the `.env` and the messages that were written for it."""

import json
import secrets
from itertools import cycle
from pathlib import Path

import pytest

from testbed.engine import PrivateEngine
from testbed.images import make_image, push
from testbed.registry import Registry
from testbed.sqs import REGION, LocalSqs
from tests.integration.conftest import Inspect, MakeContainer
from tests.integration.running import RunningLookout

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(120)]

#: As its README and its template have it, each with values of this test bed.
DOTENV = """
IsTest=false
LogLevel=debug
SqsQueueUrl={queue_url}

# (optional)
HostId=f75qrd5p0
PollTimeSeconds=1 //1 to 20 - 20 is long polling

# (or provide your own aws auth)
AWS_ACCESS_KEY_ID=testing
AWS_SECRET_ACCESS_KEY=testing
AWS_REGION={region}

# (optional)
RegistryUsername=user
RegistryPassword=password
"""
#: As its README and its script send them, and as its reader of JSON lets others write them.
BODIES = (
    '{{\n  "ImageName": "{name}",\n  "ImageTag": "{tag}",\n  "DeployTimeSeconds": "30",\n  "HostId": "f75qrd5p0"\n}}',
    '{{"ImageName":"{name}","ImageTag":"{tag}", "DeployTimeSeconds": "30"}}',
    '{{"imagename": "{name}", "IMAGETAG": "{tag}"}}',
    '{{"ImageName": "{name}", "ImageTag": "{tag}", "DeployTimeSeconds": null, "HostId": null, "Sender": ["ci"]}}',
    '{{"ImageName": "{name}", "ImageTag": "{tag}", "DeployTimeSeconds": 30}}',
)


def test_its_env_file_and_its_messages_deploy_as_they_are(
    engine: PrivateEngine,
    private_registry: Registry,
    make_container: MakeContainer,
    inspect: Inspect,
    sqs: LocalSqs,
    queue_url: str,
    tmp_path: Path,
) -> None:
    name = f"{private_registry.host}/test-{secrets.token_hex(4)}/api"
    for tag in ("1", "2"):
        make_image(engine, f"{name}:{tag}")
        push(engine, f"{name}:{tag}", "user", "password")
    engine.docker("rmi", f"{name}:2")
    container = make_container(f"{name}:1", "api")
    (tmp_path / ".env").write_text(DOTENV.format(queue_url=queue_url, region=REGION))
    environment = {
        "DOCKER_HOST": engine.docker_host,
        "MonitorSeconds": "0.2",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    # The level of the file counts, and not that of other tests.
    with RunningLookout(environment | {"LogLevel": ""}, tmp_path) as lookout:
        for body, tag in zip(BODIES, cycle("21")):
            message = sqs.send(queue_url, body.format(name=name, tag=tag))
            assert lookout.wait_for("deployed", message_id=message)["containers"] == [container]
            assert inspect(container)["Config"]["Image"] == f"{name}:{tag}"

        told = lookout.wait_for("this setting of the original Lookout means nothing here")
        assert (told["level"], told["setting"]) == ("warning", "IsTest")
        started = lookout.wait_for("starting")
        assert (started["LogLevel"], started["PollTimeSeconds"], started["HostId"]) == (
            "debug",
            1,
            "f75qrd5p0",
        )
        assert lookout.terminate(20) == 0
    assert sqs.count(queue_url) == (0, 0)
    assert '"password"' not in json.dumps(lookout.events)
