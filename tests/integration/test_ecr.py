"""Amazon ECR by Lookout's own AWS credentials: a registry that wants its token, and a server that gives them."""

import asyncio
import json
import re
from collections.abc import Callable

import pytest
from structlog.typing import EventDict

from lookout.ecr import PERMISSION
from lookout.ecr import Ecr as Tokens
from lookout.keychain import Keychain
from lookout.model import Outcome
from testbed.ecr import Ecr
from testbed.engine import PrivateEngine
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import request_for
from tests.integration.queues import said
from tests.integration.test_permissions import README, policy
from tests.integration.test_pulls import retries

pytestmark = [pytest.mark.engine, pytest.mark.queue]

ROLE = json.loads(re.findall(r"```json\n(.*?)```", README.partition("\n## Registries\n")[2], re.DOTALL)[0])
FOR_TOKENS, FOR_IMAGES = ROLE["Statement"]


@pytest.fixture(autouse=True)
def aws(sqs: LocalSqs, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Be the user whose variables these are; at first one who may do anything."""

    def be(environment: dict[str, str]) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    be(sqs.environment())
    return be


@pytest.fixture
def shop(
    engine: PrivateEngine, registry: Registry, ecr: Ecr, app_image: AppImage, make_container: MakeContainer
) -> tuple[str, str]:
    """A container of an image of ECR on tag 1, and its repository, of which only ECR has tags 2 and 3."""
    images = [app_image(tag) for tag in ("1", "2", "3")]
    engine.docker("rmi", *images[1:])
    own = images[0].replace(registry.host, ecr.host)
    engine.docker("tag", images[0], own)
    return make_container(own, "shop"), own.removesuffix(":1")


def new_keychain() -> Keychain:
    return Keychain([Tokens()])


@pytest.mark.containerd
async def test_one_token_is_fetched_for_many_deploys(
    shop: tuple[str, str], ecr: Ecr, make_deployer: MakeDeployer, inspect: Inspect, logs: list[EventDict]
) -> None:
    name, repository = shop
    deployer = make_deployer(new_keychain())
    for tag in ("2", "3", "2"):
        report = await deployer.deploy(request_for(f"{repository}:{tag}"))
        assert report.outcome is Outcome.DEPLOYED, report.reason
        assert inspect(name)["Config"]["Image"] == f"{repository}:{tag}"
    assert len(ecr.tokens()) == 1
    assert {event["credentials"] for event in said(logs, "pulled")} == {"a token of Amazon ECR"}
    assert ecr.tokens()[0] not in repr(logs)


async def test_whoever_asks_at_the_same_time_gets_the_same_token(ecr: Ecr) -> None:
    keychain = new_keychain()
    found = await asyncio.gather(*(keychain.access(ecr.host) for _ in range(10)))
    assert len({access.credentials for access in found}) == 1
    assert len(ecr.tokens()) == 1


async def test_a_token_is_fetched_anew_before_its_end(
    shop: tuple[str, str], ecr: Ecr, sqs: LocalSqs, make_deployer: MakeDeployer
) -> None:
    _, repository = shop
    deployer = make_deployer(new_keychain(), monitor=0)
    with sqs.ecr_tokens_live(6):
        for tag in ("2", "3"):
            report = await deployer.deploy(request_for(f"{repository}:{tag}"))
            assert report.outcome is Outcome.DEPLOYED, report.reason
            await asyncio.sleep(3.1)  # half of its life is left at least, whenever it is given out
    assert len(ecr.tokens()) == 2


async def test_a_token_that_is_refused_is_not_shown_again(
    shop: tuple[str, str], ecr: Ecr, make_deployer: MakeDeployer
) -> None:
    _, repository = shop
    deployer = make_deployer(new_keychain())
    await deployer.deploy(request_for(f"{repository}:2"))
    ecr.revoked.update(ecr.tokens())
    report = await deployer.deploy(request_for(f"{repository}:3"))
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert "with a token of Amazon ECR" in report.reason
    assert report.reason.endswith("the next try fetches another one")
    assert (await deployer.deploy(request_for(f"{repository}:3"))).outcome is Outcome.DEPLOYED


async def test_a_token_is_for_one_region(ecr: Ecr, engine: PrivateEngine, sqs: LocalSqs) -> None:
    keychain = new_keychain()
    other = ecr.host.replace("eu-west-1", "us-east-1")
    tokens = [await keychain.access(host) for host in (ecr.host, other, ecr.host)]
    assert tokens[0].credentials == tokens[2].credentials != tokens[1].credentials
    [first, second] = ecr.tokens()
    assert sqs.mint.expiry(first, "eu-west-1")
    assert sqs.mint.expiry(second, "us-east-1")
    assert sqs.mint.expiry(second, "eu-west-1") is None


async def test_the_statement_of_the_readme_is_enough_and_without_it_one_line_says_what_to_add(
    shop: tuple[str, str],
    sqs: LocalSqs,
    aws: Callable[[dict[str, str]], None],
    make_deployer: MakeDeployer,
    inspect: Inspect,
    logs: list[EventDict],
) -> None:
    name, repository = shop
    before, deployer = inspect(name), make_deployer(new_keychain())
    with sqs.enforce_iam(policy(FOR_IMAGES)) as environment:
        aws(environment)
        report = await deployer.deploy(request_for(f"{repository}:2"))
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert report.reason.endswith(f"add to Lookout's IAM policy: {PERMISSION}")
    assert json.loads(PERMISSION) == FOR_TOKENS
    assert not retries(logs)
    assert inspect(name)["State"] == before["State"]
    with sqs.enforce_iam(policy(FOR_TOKENS)) as environment:
        aws(environment)
        assert (await deployer.deploy(request_for(f"{repository}:2"))).outcome is Outcome.DEPLOYED


@pytest.mark.parametrize(
    ("environment", "transient", "hint"),
    [
        ({"AWS_ACCESS_KEY_ID": ""}, True, "give Lookout credentials of AWS"),
        ({"AWS_ENDPOINT_URL_ECR": "http://127.0.0.1:1"}, True, "endpoint of ECR in eu-west-1"),
    ],
    ids=["no credentials", "no server"],
)
async def test_a_token_that_cannot_be_had_is_said(
    shop: tuple[str, str],
    aws: Callable[[dict[str, str]], None],
    make_deployer: MakeDeployer,
    environment: dict[str, str],
    transient: bool,
    hint: str,
) -> None:
    _, repository = shop
    aws(environment)
    deployer = make_deployer(new_keychain(), pull_timeout=4)
    report = await deployer.deploy(request_for(f"{repository}:2"))
    assert (report.outcome, report.transient) == (Outcome.FAILED, transient)
    assert hint in report.reason
