"""ECR in the test bed keeps its promises."""

import base64
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from testbed.ecr import Ecr, ecr_host
from testbed.engine import DockerFailed, PrivateEngine
from testbed.images import pull
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage

pytestmark = [pytest.mark.engine, pytest.mark.queue]

Json = dict[str, Any]

# As one image store says it, or the other.
REFUSED = r"no basic auth credentials|unauthorized|401 Unauthorized"
EXPIRED = r"token has expired|403 Forbidden"


def allowed(action: str) -> Json:
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


@contextmanager
def client(environment: Mapping[str, str], region: str = "eu-west-1") -> Iterator[Any]:
    """An SDK that the environment leads to the local ECR."""
    client = botocore.session.Session().create_client(
        "ecr",
        region_name=region,
        endpoint_url=environment["AWS_ENDPOINT_URL_ECR"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    yield client
    client.close()


def token(sqs: LocalSqs, region: str = "eu-west-1") -> tuple[str, Json]:
    """The password of a new token, and all that is said of it."""
    with client(sqs.environment(), region) as ecr:
        [said] = ecr.get_authorization_token()["authorizationData"]
    user, _, password = base64.b64decode(said["authorizationToken"]).decode().partition(":")
    assert user == "AWS"
    return password, said


@pytest.fixture
def image(engine: PrivateEngine, registry: Registry, ecr: Ecr, app_image: AppImage) -> str:
    """An image that only ECR has."""
    image = app_image("1")
    engine.docker("rmi", image)
    return image.replace(registry.host, ecr.host)


@pytest.mark.newest
def test_ecr_takes_the_tokens_that_aws_gives(
    engine: PrivateEngine, ecr: Ecr, sqs: LocalSqs, image: str
) -> None:
    first, said = token(sqs)
    assert said["proxyEndpoint"] == f"https://{ecr.host}"
    assert 43100 < said["expiresAt"].timestamp() - time.time() <= 43200
    second, _ = token(sqs)
    assert ecr.tokens() == [first, second]
    assert first != second

    for user, password in (("", ""), ("AWS", "wrong"), ("user", first)):
        with pytest.raises(DockerFailed, match=REFUSED):
            pull(engine, image, user, password)
    pull(engine, image, "AWS", first)
    assert ("AWS", first) in {asked.user for asked in ecr.requests}


def test_a_token_of_ecr_has_its_time_and_its_place(
    engine: PrivateEngine, ecr: Ecr, sqs: LocalSqs, image: str
) -> None:
    with sqs.ecr_tokens_live(1):
        short, _ = token(sqs)
    long, _ = token(sqs)
    elsewhere, said = token(sqs, "us-east-1")
    assert said["proxyEndpoint"] == f"https://{ecr_host('us-east-1')}"
    time.sleep(1)
    with pytest.raises(DockerFailed, match=EXPIRED):
        pull(engine, image, "AWS", short)
    with pytest.raises(DockerFailed, match=REFUSED):
        pull(engine, image, "AWS", elsewhere)
    pull(engine, image, "AWS", long)

    ecr.revoked.add(long)
    with pytest.raises(DockerFailed, match=EXPIRED):
        pull(engine, image, "AWS", long)


def test_iam_allows_tokens_or_does_not(sqs: LocalSqs) -> None:
    with (
        sqs.enforce_iam(allowed("ecr:GetAuthorizationToken")) as environment,
        client(environment) as ecr,
    ):
        ecr.get_authorization_token()
    with (
        sqs.enforce_iam(allowed("sqs:ReceiveMessage")) as environment,
        client(environment) as ecr,
        pytest.raises(ClientError, match="not authorized to perform: ecr:GetAuthorizationToken"),
    ):
        ecr.get_authorization_token()
