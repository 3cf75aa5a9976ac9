"""`lookout check`: what is wrong is named with the next step, and no message notices that it was looked for."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lookout.findings import Finding, Level
from lookout.model import Json
from lookout.queue_check import check_queue
from lookout.settings import Settings
from lookout.sqs import regions
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.images import make_image, push
from testbed.registry import Registry
from testbed.scripted_sqs import PATH, Act, ScriptedSqs, refuse
from testbed.sqs import LocalSqs
from tests.integration.answering import LONG, Ended
from tests.integration.conftest import AppImage, MakeContainer
from tests.integration.forked import run
from tests.integration.queues import ANYONE
from tests.integration.running import CODE
from tests.integration.test_permissions import RECEIVER, policy

pytestmark = [pytest.mark.queue, pytest.mark.timeout(120)]

Check = Callable[..., Ended]

NOBODY = 65534
#: Everything is imported before root's rights are given up: its files need not be anybody's to read.
AS_NOBODY = (
    "import os, sys, lookout.app, lookout.settings; from lookout.cli import main; "
    f"os.chdir('/'); os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); sys.exit(main())"
)
SEND: Json = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}


@pytest.fixture
def check(engine: PrivateEngine, sqs: LocalSqs, queue_url: str, tmp_path: Path) -> Check:
    """Run the command; the keyword arguments are settings, empty ones are left out.

    With `command` it is started as an operator would, else from a process that has imported everything before.
    """

    def check(*command: str, **variables: str) -> Ended:
        environment = {"PATH": os.defpath, "PYTHONPATH": CODE, "DOCKER_HOST": engine.docker_host}
        environment |= {"SqsQueueUrl": queue_url} | sqs.environment() | variables
        given = {name: value for name, value in environment.items() if value}
        if not command:
            return Ended(*run(given, tmp_path, ["check"], timeout=LONG))
        line = [sys.executable, *command, "check"]
        pipe = subprocess.PIPE
        return Ended.of(subprocess.Popen(line, env=given, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True))

    return check


def lines(done: Ended, level: str) -> list[str]:
    """What it found of this level, after a look that it said nothing else."""
    assert done.err == ""
    return [line.partition(" ")[2].strip() for line in done.out.splitlines() if line.startswith(level)]


def problems(done: Ended) -> list[str]:
    found = lines(done, "problem")
    assert done.code == (1 if found else 0)
    return found


async def findings(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: Mapping[str, str] = ANYONE, **more: Any
) -> list[Finding]:
    """What there is to find of the queue, for the user that the environment names."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return await check_queue(Settings(**{"SqsQueueUrl": url, **more}))


def bad(found: list[Finding]) -> list[str]:
    return [str(one).partition(" ")[2].strip() for one in found if one.level is Level.PROBLEM]


def remarks(found: list[Finding]) -> list[str]:
    return [str(one).partition(" ")[2].strip() for one in found if one.level is Level.REMARK]


# All is well


@pytest.mark.engine
def test_where_all_is_set_up_it_names_each_container_and_ends_with_0(
    check: Check, app_image: AppImage, make_container: MakeContainer
) -> None:
    image = app_image("1")
    api, other = make_container(image, "api"), make_container(image, "other", "--label=lookout.enable=false")
    done = check("-m", "lookout")
    assert problems(done) == []
    assert done.out.splitlines()[-1] == f"{len(lines(done, 'remark'))} remark"
    good = lines(done, "ok")
    assert f"container: {api} ({image}) is replaced when its image is deployed" in good
    assert f"registry: 127.0.0.1:5000 shows {image}" in good
    assert any(line.startswith("engine: Docker Engine ") for line in good)
    for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"):
        assert f"SqsQueueUrl: sqs:{action} is allowed" in good
    assert f"container: {other} is labelled lookout.enable=false: left alone" in lines(done, "remark")


# Messages


@pytest.mark.engine
def test_no_message_is_received_hidden_or_counted(check: Check, sqs: LocalSqs, queue_url: str) -> None:
    sent = sqs.send(queue_url, "{}")
    assert problems(check()) == []
    assert sqs.count(queue_url) == (1, 0)
    [message] = sqs.receive(queue_url)
    assert message["MessageId"] == sent
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


async def test_ten_checks_take_nothing_from_a_queue_whose_messages_may_be_received_once(
    sqs: LocalSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"test-{secrets.token_hex(4)}"
    dead = sqs.create_queue(f"{name}-dead")
    redrive = {"deadLetterTargetArn": f"arn:aws:sqs:eu-west-1:123456789012:{name}-dead", "maxReceiveCount": 1}
    url = sqs.create_queue(name, VisibilityTimeout=0, RedrivePolicy=json.dumps(redrive))
    sent = sqs.send(url, "{}")
    for _ in range(10):
        found = await findings(monkeypatch, url, sqs.environment(), DeadLetterQueueUrl=dead)
        assert bad(found) == []
        assert any("takes a message away at receipt 1" in line for line in remarks(found))
    assert [message["MessageId"] for message in sqs.receive(url)] == [sent]
    assert sqs.count(dead) == (0, 0)


async def test_every_call_to_the_queue_is_one_that_it_cannot_carry_out(
    scripted: ScriptedSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = scripted.send("{}")
    dead = scripted.queue_url.replace(PATH, f"{PATH}-dead")
    await findings(monkeypatch, scripted.queue_url, DeadLetterQueueUrl=dead)
    changing = {
        call.action: call.parameters for call in scripted.calls if call.action != "GetQueueAttributes"
    }
    assert changing.keys() == {"ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "SendMessage"}
    # Servers in Go, and LocalStack, take 0 for no number at all, and give one message.
    assert changing["ReceiveMessage"]["MaxNumberOfMessages"] > 10
    assert changing["ReceiveMessage"]["WaitTimeSeconds"] < 0
    assert changing["ReceiveMessage"]["VisibilityTimeout"] < 0
    assert changing["SendMessage"]["DelaySeconds"] > 900
    assert scripted.hidden_for(message) <= 0


async def test_what_a_lenient_server_gives_all_the_same_is_given_back_and_said(
    scripted: ScriptedSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leniently(parameters: Json, act: Act) -> Json:
        parameters |= {"MaxNumberOfMessages": 10, "VisibilityTimeout": 60}
        return act()

    message = scripted.send("{}")
    scripted.next("ReceiveMessage", leniently)
    found = await findings(monkeypatch, scripted.queue_url)
    assert bad(found) == []
    assert any("gave 1 messages to a call that SQS refuses" in line for line in remarks(found))
    assert scripted.hidden_for(message) <= 0


# Permissions


@pytest.mark.parametrize("missing", RECEIVER["Action"])
async def test_each_permission_that_is_missing_is_named_with_the_statement_to_add(
    sqs: LocalSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    with sqs.enforce_iam(policy(RECEIVER, without=missing)) as environment:
        found = await findings(monkeypatch, queue_url, environment)
    [line] = bad(found)
    assert line.startswith(f"SqsQueueUrl: {missing} is not allowed")
    statement = json.loads(line.partition("to the policy: ")[2])
    assert (statement["Effect"], statement["Action"]) == ("Allow", missing)
    allowed = {action for action in RECEIVER["Action"] if f"{action} is allowed" in texts(found)}
    assert allowed == {*RECEIVER["Action"]} - {missing}


def texts(found: list[Finding]) -> set[str]:
    return {one.text for one in found}


@pytest.mark.engine
def test_the_two_permissions_of_old_are_told_the_third(check: Check, sqs: LocalSqs) -> None:
    with sqs.enforce_iam(policy(RECEIVER, without="sqs:ChangeMessageVisibility")) as environment:
        done = check(**environment)
    [line] = problems(done)
    assert "sqs:ChangeMessageVisibility is not allowed" in line


async def test_the_other_queues_are_asked_whether_they_take_messages_and_take_none(
    sqs: LocalSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, results = (sqs.create_queue(f"test-{secrets.token_hex(4)}") for _ in range(2))
    others = {"DeadLetterQueueUrl": dead, "ResultQueueUrl": results}
    with sqs.enforce_iam(policy(RECEIVER)) as environment:
        denied = await findings(monkeypatch, queue_url, environment, **others)
    with sqs.enforce_iam(policy(RECEIVER, SEND)) as environment:
        allowed = await findings(monkeypatch, queue_url, environment, **others)
    assert [line.partition(" is not")[0] for line in bad(denied)] == [
        "DeadLetterQueueUrl: sqs:SendMessage",
        "ResultQueueUrl: sqs:SendMessage",
    ]
    assert any(line.startswith("ReplyQueueUrl: sqs:SendMessage") for line in remarks(denied))
    assert bad(allowed) == remarks(allowed) == []
    assert sqs.count(dead) == sqs.count(results) == (0, 0)


async def test_a_dead_letter_queue_that_is_not_there_is_named_and_the_rest_is_looked_at(
    sqs: LocalSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await findings(monkeypatch, queue_url, sqs.environment(), DeadLetterQueueUrl=f"{queue_url}-nope")
    [line] = bad(found)
    assert line.startswith("DeadLetterQueueUrl: no such queue")
    assert "sqs:DeleteMessage is allowed" in texts(found)


async def test_a_queue_that_forgets_soon_is_remarked(sqs: LocalSqs, monkeypatch: pytest.MonkeyPatch) -> None:
    url = sqs.create_queue(f"test-{secrets.token_hex(4)}", MessageRetentionPeriod=600)
    found = await findings(monkeypatch, url, sqs.environment())
    assert [line for line in remarks(found) if "keeps a message for 600 s only" in line]


# Queue, region, credentials


@pytest.fixture
def fewer_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask in all of them takes seconds of work; these are still more than are asked side by side."""

    async def fewer() -> list[str]:
        return [region for region in await regions() if region.startswith(("eu-", "us-"))]

    monkeypatch.setattr("lookout.probe.regions", fewer)


async def test_a_queue_that_is_in_another_region_of_the_server_is_found_there(
    sqs: LocalSqs, queue_url: str, fewer_regions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = sqs.environment() | {"AWS_REGION": "us-east-1"}
    found = await findings(monkeypatch, queue_url, environment)
    assert bad(found) == [
        "region: the queue is in eu-west-1, AWS_REGION says us-east-1; set AWS_REGION=eu-west-1"
    ]


async def test_the_variable_that_says_the_wrong_region_is_named(
    sqs: LocalSqs, queue_url: str, fewer_regions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = sqs.environment() | {"AWS_DEFAULT_REGION": "us-east-1"}
    del environment["AWS_REGION"]
    [line] = bad(await findings(monkeypatch, queue_url, environment))
    assert "in eu-west-1, AWS_DEFAULT_REGION says us-east-1" in line


async def test_a_queue_that_is_nowhere_is_not_there(
    sqs: LocalSqs, queue_url: str, fewer_regions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = bad(await findings(monkeypatch, f"{queue_url}-typo", sqs.environment()))
    name = queue_url.rpartition("/")[2]
    assert line.startswith("queue: no such queue: ")
    assert f"has no {name}-typo in eu-west-1" in line
    assert line.endswith("check the account and the name in SqsQueueUrl")


async def test_at_aws_a_wrong_region_is_seen_by_the_url_and_the_queue_looked_at_all_the_same(
    sqs: LocalSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = queue_url.rpartition("/")[2]
    at_aws = f"https://sqs.eu-west-1.amazonaws.com/123456789012/{name}"
    found = await findings(monkeypatch, at_aws, sqs.environment() | {"AWS_REGION": "us-east-1"})
    [line] = bad(found)
    assert line.startswith("region: SqsQueueUrl is in eu-west-1, AWS_REGION says us-east-1; ")
    assert "sqs:ReceiveMessage is allowed" in texts(found)


async def test_where_there_are_no_credentials_that_is_all_that_is_said_of_the_queue(
    sqs: LocalSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = sqs.environment()
    del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    [line] = bad(await findings(monkeypatch, queue_url, environment))
    assert line.startswith("AWS credentials: ")
    assert "set AWS_ACCESS_KEY_ID" in line


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InvalidClientTokenId", "AWS does not know them"),
        ("UnrecognizedClientException", "AWS does not know them"),
        ("SignatureDoesNotMatch", "the secret is not that of the access key"),
        ("ExpiredToken", "they have expired"),
        ("MissingAuthenticationToken", "AWS refuses them"),
    ],
)
async def test_credentials_that_are_refused_are_named_without_the_words_of_aws(
    scripted: ScriptedSqs, monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    said = "The Canonical String should have been 'x-amz-security-token:hunter2'"
    refusal = refuse(code, said, 403)
    for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "SendMessage"):
        scripted.next(action, refusal)
    found = await findings(monkeypatch, scripted.queue_url)
    [line] = bad(found)
    assert line.startswith(f"AWS credentials: {expected} ({code})")
    assert "hunter2" not in "".join(map(str, found))


async def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = bad(await findings(monkeypatch, "http://127.0.0.1:9/123456789012/deploys"))
    assert line.startswith("queue: SQS did not answer")
    assert "check that 127.0.0.1:9 can be reached from here" in line


async def test_what_passes_soon_is_no_missing_permission(
    scripted: ScriptedSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.next("DeleteMessage", refuse("RequestThrottled", "slowly"))
    found = await findings(monkeypatch, scripted.queue_url)
    assert bad(found) == []
    assert any("whether sqs:DeleteMessage is allowed is not known" in line for line in remarks(found))


@pytest.mark.parametrize("code", ["ReadCountOutOfRange", "MissingParameter", "ValidationException"])
async def test_a_refusal_of_the_parameters_in_the_words_of_another_server_is_no_denial(
    scripted: ScriptedSqs, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    scripted.next("ReceiveMessage", refuse(code, "see the docs"))
    found = await findings(monkeypatch, scripted.queue_url)
    assert bad(found) == remarks(found) == []
    assert "sqs:ReceiveMessage is allowed" in texts(found)


async def test_what_answers_but_is_no_sqs_is_no_queue(
    scripted: ScriptedSqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "SendMessage"):
        scripted.next(action, refuse("404", "<h1>nothing here</h1>", 404))
    found = await findings(monkeypatch, scripted.queue_url)
    [line] = bad(found)
    assert "answers otherwise than SQS should: 404" in line
    assert not [one for one in found if one.level is Level.OK]


async def test_where_nothing_is_allowed_it_is_not_said_that_the_queue_is_there(
    sqs: LocalSqs, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqs.enforce_iam(policy({**SEND, "Action": "sqs:ListQueues"})) as environment:
        found = await findings(monkeypatch, queue_url, environment)
    assert [line.split()[1] for line in bad(found)] == RECEIVER["Action"]
    assert not [one for one in found if one.level is Level.OK]


# The clock


@pytest.mark.parametrize(
    ("ahead", "level", "said"),
    [
        (-30, None, ""),
        (120, Level.REMARK, "behind"),
        (-120, Level.REMARK, "ahead of"),
        (400, Level.PROBLEM, "behind"),
        (-400, Level.PROBLEM, "ahead of"),
    ],
)
async def test_a_clock_that_is_off_is_noticed_by_the_answers(
    scripted: ScriptedSqs, monkeypatch: pytest.MonkeyPatch, ahead: float, level: Level | None, said: str
) -> None:
    scripted.ahead = ahead
    found = [one for one in await findings(monkeypatch, scripted.queue_url) if one.about == "clock"]
    assert [one.level for one in found] == ([level] if level else [])
    assert all(f"s {said} that of SQS" in one.text for one in found)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("RequestExpired", "Request has expired."),
        ("SignatureDoesNotMatch", "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z"),
        ("InvalidSignatureException", "Signature not yet current: 20260101T003000Z is still later than x"),
    ],
)
async def test_what_is_refused_for_the_clock_is_told_so_and_not_for_the_credentials(
    scripted: ScriptedSqs, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    scripted.ahead = 1000
    for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "SendMessage"):
        scripted.next(action, refuse(code, message, 403))
    [line] = bad(await findings(monkeypatch, scripted.queue_url))
    assert line.startswith("clock: SQS refuses what this machine signs, whose clock is ")
    assert f"s behind that of SQS ({code})" in line


# Settings


@pytest.mark.engine
def test_each_wrong_setting_is_a_finding_and_the_rest_is_looked_at(check: Check) -> None:
    wrong = {"LogLevel": "loud", "MaxMessages": "0", "RegistryPassword": "hunter2"}
    done = check(**wrong, DeadLetterQueueUrl="http://elsewhere.test/123456789012/dead")
    found = problems(done)
    assert sorted(line.split(": ")[1] for line in found if line.startswith("settings: ")) == [
        "DeadLetterQueueUrl",
        "LogLevel",
        "MaxMessages",
        "RegistryPassword",
    ]
    assert len(found) == 4
    good = lines(done, "ok")
    assert "SqsQueueUrl: sqs:ReceiveMessage is allowed" in good
    assert any(line.startswith("engine: Docker Engine ") for line in good)
    assert "hunter2" not in done.out


@pytest.mark.engine
def test_without_a_queue_url_the_engine_is_looked_at(check: Check) -> None:
    done = check(SqsQueueUrl="")
    [line] = problems(done)
    assert line.startswith("settings: SqsQueueUrl: is required")
    assert any(line.startswith("engine: Docker Engine ") for line in lines(done, "ok"))


# The engine


@pytest.mark.engine
def test_where_nothing_answers_no_secret_is_shown(check: Check) -> None:
    done = check(
        AWS_ENDPOINT_URL_SQS="http://me:hunter2@127.0.0.1:9",
        AWS_SECRET_ACCESS_KEY="hunter2",
        RegistryUsername="me",
        RegistryPassword="hunter2",
        DOCKER_HOST="tcp://me:hunter2@127.0.0.1:9",
    )
    assert [line.partition(":")[0] for line in problems(done)] == ["queue", "engine"]
    assert "hunter2" not in done.out


@pytest.mark.engine
def test_without_an_engine_the_queue_is_looked_at(check: Check) -> None:
    done = check(DOCKER_HOST="unix:///nonexistent/docker.sock")
    [line] = problems(done)
    assert line.startswith("engine: unix:///nonexistent/docker.sock: no socket there; mount it")
    assert "SqsQueueUrl: sqs:ReceiveMessage is allowed" in lines(done, "ok")


@pytest.mark.engine
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DOCKER_HOST": "tcp://127.0.0.1:9"}, "engine: tcp://127.0.0.1:9: Cannot connect"),
        ({"DOCKER_HOST": "carrier-pigeon"}, "engine: DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH: "),
    ],
    ids=["nothing listens", "no address"],
)
def test_an_engine_that_cannot_be_had_is_named(
    check: Check, variables: dict[str, str], expected: str
) -> None:
    [line] = problems(check(**variables))
    assert line.startswith(expected)


@pytest.mark.engine
def test_what_answers_but_is_no_engine_is_named(check: Check, sqs: LocalSqs) -> None:
    [line] = problems(check(DOCKER_HOST=sqs.endpoint.replace("http", "tcp")))
    assert line.startswith("engine: ")
    assert "check DOCKER_HOST" in line


@pytest.mark.engine
def test_what_does_not_speak_tls_is_told_so(check: Check, sqs: LocalSqs) -> None:
    [line] = problems(check(DOCKER_HOST=sqs.endpoint.replace("http", "https")))
    assert "check DOCKER_TLS_VERIFY" in line


@pytest.fixture
def guarded_socket(engine: PrivateEngine) -> Iterator[Path]:
    """The engine behind a socket that is for root and a group that is nobody's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "docker.sock"
        with FaultProxy(engine.socket, path):
            Path(folder).chmod(0o755)
            path.chmod(0o660)
            os.chown(path, 0, 42424)
            yield path


@pytest.mark.engine
def test_a_socket_that_is_for_others_is_told_with_its_group(check: Check, guarded_socket: Path) -> None:
    done = check("-c", AS_NOBODY, DOCKER_HOST=f"unix://{guarded_socket}", SqsQueueUrl="")
    _, line = problems(done)
    assert line.startswith(f"engine: unix://{guarded_socket}: permission denied for the user {NOBODY}")
    assert "the socket is for the group 42424" in line
    assert "--group-add 42424" in line


# Registries


@pytest.mark.engine
def test_a_wrong_password_of_a_registry_is_named_and_never_shown(
    check: Check, engine: PrivateEngine, private_registry: Registry, make_container: MakeContainer
) -> None:
    image = f"{private_registry.host}/test-{secrets.token_hex(4)}/api:1"
    make_image(engine, image)
    push(engine, image, "user", "password")
    make_container(image, "api")
    own = {"RegistryUsername": "user", "RegistryServer": private_registry.host}
    wrong, right = check(RegistryPassword="hunter2", **own), check(RegistryPassword="password", **own)
    [line] = problems(wrong)
    assert line.startswith(f"registry: no access: {image}, asked with RegistryUsername: ")
    assert "check them" in line
    assert "hunter2" not in wrong.out
    assert problems(right) == []
    assert f"registry: {private_registry.host} shows {image}" in lines(right, "ok")
    assert "password" not in right.out


@pytest.mark.engine
def test_a_registry_is_asked_once_for_each_image_and_what_it_lacks_is_remarked(
    check: Check, engine: PrivateEngine, app_image: AppImage, make_container: MakeContainer
) -> None:
    one = app_image("1")
    gone, here = one.replace(":1", ":gone"), f"127.0.0.1:5000/test-{secrets.token_hex(4)}/api:1"
    engine.docker("tag", one, gone)
    make_image(engine, here)
    for number, image in enumerate((one, one, gone, here)):
        make_container(image, f"c{number}")
    done = check()
    assert problems(done) == []
    assert [line for line in lines(done, "ok") if line.startswith("registry: ")] == [
        f"registry: 127.0.0.1:5000 shows {one}"
    ]
    remarked = [line for line in lines(done, "remark") if line.startswith("registry: ")]
    assert any(line.startswith(f"registry: no such tag: {gone}, ") for line in remarked)
    # With the containerd image store every image has a digest, also one that was never pushed.
    assert any(f"{here} was made on this host" in line or f"no such tag: {here}" in line for line in remarked)
    assert len(remarked) == 2


@pytest.mark.engine
def test_a_registry_that_does_not_answer_is_a_problem_where_the_image_came_from_it(
    check: Check, engine: PrivateEngine, app_image: AppImage, make_container: MakeContainer
) -> None:
    elsewhere = f"127.0.0.1:1/test-{secrets.token_hex(4)}/api:1"
    engine.docker("tag", app_image("1"), elsewhere)
    make_container(elsewhere, "api")
    [line] = problems(check())
    assert line.startswith(f"registry: no answer: {elsewhere}, asked with no credentials: ")


# Containers


@pytest.mark.engine
def test_a_container_that_no_message_can_mean_is_named_with_the_reason(
    check: Check, engine: PrivateEngine, tool_image: str, make_container: MakeContainer
) -> None:
    image_id = engine.docker("image", "inspect", "--format={{.Id}}", tool_image)
    name = make_container(image_id, "nameless")
    engine.docker("rmi", "--force", tool_image)
    done = check()
    assert problems(done) == []
    assert any(line.startswith(f"container: {name} was created from") for line in lines(done, "remark"))


@pytest.mark.engine
def test_where_nothing_would_be_replaced_that_is_remarked(check: Check) -> None:
    assert any(
        "none that runs here would be replaced" in line
        for line in lines(check(RequireLabel="true"), "remark")
    )
