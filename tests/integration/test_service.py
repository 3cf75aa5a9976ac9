"""Lookout as a whole: the real command, a real queue, engine and registry."""

import json
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.faulty_registry import FaultyRegistry
from testbed.images import make_image, push
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.deploys import leftovers
from tests.integration.running import RunningLookout

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(120)]

Start = Callable[..., RunningLookout]
Send = Callable[..., str]

GRACE = 8  # seconds: the default of StopGraceSeconds
A_LITTLE = 8  # seconds for an interpreter to end on a busy machine


@pytest.fixture
def start(engine: PrivateEngine, sqs: LocalSqs, queue_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start Lookout on the test's queue; keyword arguments are its settings, `pace` its waits.

    It is `forked` from a process that has imported everything before, else started as an operator would.
    """
    started: list[RunningLookout] = []

    def make(*, forked: bool = True, pace: dict[str, Any] | None = None, **variables: str) -> RunningLookout:
        environment = {"SqsQueueUrl": queue_url, "DOCKER_HOST": engine.docker_host, "MonitorSeconds": "1"}
        environment |= sqs.environment() | variables
        started.append(RunningLookout(environment, tmp_path, forked=forked, **(pace or {})))
        return started[-1]

    yield make
    for lookout in started:
        lookout.__exit__()


@pytest.fixture
def send(sqs: LocalSqs, queue_url: str) -> Send:
    """Ask for a deploy as CI does: `send("127.0.0.1:5000/x/api:2", DeployTimeSeconds="5")`."""

    def put(reference: str, **more: object) -> str:
        name, _, tag = reference.rpartition(":")
        return sqs.send(queue_url, {"ImageName": name, "ImageTag": tag, **more})

    return put


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_a_message_redeploys_and_the_same_message_again_changes_nothing(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    sqs: LocalSqs,
    queue_url: str,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    image = app_image("2")
    lookout = start(forked=False)
    first = send(image, DeployTimeSeconds="30")
    deployed = lookout.wait_for("deployed", message_id=first)
    begun = lookout.wait_for("deploying", message_id=first)
    assert deployed["image"] == begun["image"] == image
    assert deployed["outcome"] == "deployed"
    assert deployed["containers"] == [name]
    assert deployed["seconds"] > 0
    container = inspect(name)["Id"]
    lookout.wait_for("unchanged", message_id=send(image, DeployTimeSeconds=30))
    assert inspect(name)["Id"] == container
    assert lookout.logged("pulled")
    until(lambda: sqs.count(queue_url) == (0, 0))
    assert lookout.terminate(GRACE + A_LITTLE) == 0


def test_wrong_credentials_keep_the_message_until_they_are_right(
    engine: PrivateEngine,
    private_registry: Registry,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    sqs: LocalSqs,
    queue_url: str,
    inspect: Inspect,
) -> None:
    image = f"{private_registry.host}/test-{secrets.token_hex(4)}/api"
    for tag in ("1", "2"):
        make_image(engine, f"{image}:{tag}")
        push(engine, f"{image}:{tag}", "user", "password")
    engine.docker("rmi", f"{image}:2")
    name = make_container(f"{image}:1", "api")
    before = inspect(name)
    message = send(f"{image}:2")

    user = {"RegistryUsername": "user", "RegistryServer": private_registry.host}
    lookout = start(RegistryPassword="hunter2", pace={"backoff_base": 1}, **user)
    failed = lookout.wait_for("failed", message_id=message)
    lookout.wait_for("failed", message_id=message, count=2)
    assert "with RegistryUsername: " in failed["reason"]
    assert "check them" in failed["reason"]
    assert "tried again" in failed["next"]
    assert inspect(name)["State"] == before["State"]
    assert sum(sqs.count(queue_url)) == 1
    assert lookout.terminate(GRACE + A_LITTLE) == 0
    assert "hunter2" not in json.dumps(lookout.events)

    start(RegistryPassword="password", **user).wait_for("deployed", message_id=message)


def test_a_slow_pull_of_one_image_delays_no_other_and_is_cut_short_by_sigterm(
    engine: PrivateEngine,
    registry: Registry,
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    sqs: LocalSqs,
    queue_url: str,
    inspect: Inspect,
) -> None:
    path = f"test-{secrets.token_hex(4)}/slow"
    with FaultyRegistry(engine.sandbox, 5009, 5000, rate=100_000) as slow_line:
        make_image(engine, f"{slow_line.host}/{path}:1")
        slow = make_container(f"{slow_line.host}/{path}:1", "slow")
        before = inspect(slow)
        make_image(engine, f"{registry.host}/{path}:2", ballast=2_000_000)  # twenty seconds
        push(engine, f"{registry.host}/{path}:2")
        engine.docker("rmi", f"{registry.host}/{path}:2")
        fast = make_container(app_image("1"), "fast")
        two = app_image("2")

        lookout = start()
        slow_message = send(f"{slow_line.host}/{path}:2")
        lookout.wait_for("deploying", message_id=slow_message)
        lookout.wait_for("deployed", message_id=send(two))
        assert inspect(fast)["Config"]["Image"] == two
        assert lookout.order("deploying", "deployed") == ["deploying", "deploying", "deployed"]

        assert lookout.terminate(GRACE + A_LITTLE) == 0
        assert not lookout.logged("deployed", message_id=slow_message)
        assert [m["MessageId"] for m in sqs.receive(queue_url)] == [slow_message]
        assert inspect(slow)["State"] == before["State"]


def test_a_deploy_longer_than_the_visibility_timeout_is_received_once(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    sqs: LocalSqs,
    queue_url: str,
) -> None:
    """Than that of the queue itself."""
    make_container(app_image("1"), "api")
    lookout = start(MonitorSeconds="5.5")
    message = send(app_image("2"), DeployTimeSeconds="1")
    lookout.wait_for("deployed", message_id=message)
    until(lambda: sqs.count(queue_url) == (0, 0))
    assert len(lookout.logged("received")) == 1
    assert not lookout.logged("message delivered again while in hand")
    assert lookout.logged("lease renewed")


def test_two_permissions_are_enough_and_one_warning_names_the_third(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    sqs: LocalSqs,
    queue_url: str,
) -> None:
    make_container(app_image("1"), "api")
    two, three = app_image("2"), app_image("3")
    first, second = send(two), send(three)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["sqs:DeleteMessage", "sqs:ReceiveMessage"], "Resource": "*"}
        ],
    }
    with sqs.enforce_iam(policy) as environment:
        lookout = start(MonitorSeconds="3", pace={"lease_floor": 2, "lease_margin": 0}, **environment)
        lookout.wait_for("deployed", message_id=first)
        lookout.wait_for("deployed", message_id=second)
        assert lookout.terminate(GRACE + A_LITTLE) == 0
    warnings = [event for event in lookout.events if event["level"] == "warning"]
    assert len(warnings) == 1
    assert "sqs:ChangeMessageVisibility" in warnings[0]["statement"]
    assert sqs.count(queue_url) == (0, 0)


GARBAGE = {
    "empty object": "{}",
    "list": "[]",
    "prose": "please redeploy",
    "200 kB": "x" * 200_000,
    "200 kB of brackets": "[" * 200_000,
    "tag in the name": '{"ImageName": "redis:7", "ImageTag": "7"}',
    "no tag": '{"ImageName": "redis"}',
    "time in words": '{"ImageName": "redis", "ImageTag": "7", "DeployTimeSeconds": "abc"}',
    "negative time": '{"ImageName": "redis", "ImageTag": "7", "DeployTimeSeconds": -1}',
    "no time at all": '{"ImageName": "redis", "ImageTag": "7", "DeployTimeSeconds": 0}',
}


def test_whatever_is_sent_the_next_good_message_deploys(
    app_image: AppImage, make_container: MakeContainer, start: Start, sqs: LocalSqs, queue_url: str
) -> None:
    make_container(app_image("1"), "api")
    name = app_image("2").rpartition(":")[0]
    lookout = start(LogLevel="info")
    ids = {sqs.send(queue_url, body) for body in GARBAGE.values()}
    odd = json.dumps({"imagename": name, "IMAGETAG": "2", "Colour": "blue"})
    deployed = lookout.wait_for("deployed", message_id=sqs.send(queue_url, odd))
    assert deployed["image"] == f"{name}:2"
    lookout.wait_for("invalid", count=len(ids))
    invalid = lookout.logged("invalid")
    assert {event["message_id"] for event in invalid} == ids
    assert all(event["level"] == "error" and len(event["reason"]) < 300 for event in invalid)
    assert "xxxx" not in json.dumps(lookout.events)


# Stopping


def test_sigterm_lets_a_swap_end_and_gives_back_what_has_not_started(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    sqs: LocalSqs,
    queue_url: str,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    two, three = app_image("2"), app_image("3")
    lookout = start(MonitorSeconds="3", PollTimeSeconds="1")
    first = send(two)
    lookout.wait_for("started")
    second = send(three)
    lookout.wait_for("received", message_id=second)
    assert lookout.terminate(GRACE + A_LITTLE) == 0
    assert lookout.logged("deployed", message_id=first)
    assert inspect(name)["Config"]["Image"] == two
    assert [m["MessageId"] for m in sqs.receive(queue_url)] == [second]


def test_sigterm_undoes_a_swap_that_would_take_too_long(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    sqs: LocalSqs,
    queue_url: str,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api", "--restart=always")
    old = inspect(name)
    lookout = start(MonitorSeconds="100", StopGraceSeconds="4", PollTimeSeconds="1")
    message = send(app_image("2"))
    lookout.wait_for("started")
    assert lookout.terminate(4 + A_LITTLE) == 0
    new = inspect(name)
    assert [new[k] for k in ("Id", "HostConfig")] == [old[k] for k in ("Id", "HostConfig")]
    assert new["State"]["Running"]
    assert not leftovers(engine)
    assert [m["MessageId"] for m in sqs.receive(queue_url)] == [message]


def test_what_the_open_poll_brings_after_sigterm_is_visible_to_others_at_once(
    start: Start, send: Send, sqs: LocalSqs, queue_url: str
) -> None:
    lookout = start()
    lookout.wait_for("polling")
    time.sleep(1)  # for the poll to reach the server, which shows it only when it ends
    lookout.signal(signal.SIGTERM)
    lookout.wait_for("stopping")
    message = send("127.0.0.1:5000/nobody/api:1")
    assert lookout.exit_code(GRACE + A_LITTLE) == 0
    assert [m["MessageId"] for m in sqs.receive(queue_url)] == [message]


# Things that are away


def test_an_engine_that_is_away_at_the_start_is_waited_for(
    app_image: AppImage, make_container: MakeContainer, start: Start, send: Send, line: FaultProxy
) -> None:
    make_container(app_image("1"), "api")
    line.go_down()
    lookout = start(DOCKER_HOST=line.docker_host)
    message = send(app_image("2"))
    waiting = lookout.wait_for("the engine does not answer; trying again", count=2)
    assert waiting["engine"] == line.docker_host
    assert not lookout.logged("received")
    line.come_back()
    lookout.wait_for("deployed", message_id=message)


def test_an_engine_that_goes_away_for_a_while_delays_a_deploy_but_loses_nothing(
    app_image: AppImage, make_container: MakeContainer, start: Start, send: Send, line: FaultProxy
) -> None:
    make_container(app_image("1"), "api")
    lookout = start(DOCKER_HOST=line.docker_host)
    lookout.wait_for("polling")
    line.go_down()
    message = send(app_image("2"))
    lookout.wait_for("trying again", message_id=message, count=2)
    time.sleep(10)  # the very time that it is promised to live through
    line.come_back()
    lookout.wait_for("deployed", message_id=message)


def test_an_engine_that_goes_away_in_the_middle_of_a_swap_is_waited_for(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    line: FaultProxy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api")
    two = app_image("2")
    lookout = start(DOCKER_HOST=line.docker_host)
    lookout.wait_for("polling")
    line.cut(r"POST .*/stop", when="after", action=line.go_down)
    message = send(two)
    lookout.wait_for("the engine is away in the middle of a swap; going on when it is back")
    line.come_back()
    lookout.wait_for("deployed", message_id=message)
    assert inspect(name)["Config"]["Image"] == two
    assert not leftovers(engine)


@pytest.mark.parametrize("cut", ["POST .*/stop", "POST .*/rename", "POST .*/start"])
def test_an_end_in_the_middle_of_a_swap_is_said_with_the_command_that_helps(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    line: FaultProxy,
    inspect: Inspect,
    cut: str,
) -> None:
    """Engine gone and no time left: nothing can be repaired, so whoever reads the log must be told."""
    old = inspect(make_container(app_image("1"), "api"))["Id"]
    lookout = start(DOCKER_HOST=line.docker_host, StopGraceSeconds="3", PollTimeSeconds="1")
    line.cut(cut, when="before", action=line.go_down)
    send(app_image("2"))
    lookout.wait_for("the engine is away in the middle of a swap; going on when it is back")
    assert lookout.terminate(3 + A_LITTLE) == 0
    said = lookout.logged("ended in the middle of a swap", level="critical")
    assert len(said) == 1
    assert f"docker start {old[:12]}" in said[0]["next"]


def test_a_second_signal_does_not_change_the_exit_code(start: Start) -> None:
    lookout = start(PollTimeSeconds="1")
    lookout.wait_for("polling")
    for _ in range(200):
        lookout.signal(signal.SIGTERM)
        time.sleep(0.02)
    assert lookout.exit_code() == 0


def test_an_engine_that_restarts_in_the_middle_of_a_swap_costs_a_retry_not_the_deploy(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    send: Send,
    engine: PrivateEngine,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    two = app_image("2")
    lookout = start(MonitorSeconds="5", pace={"backoff_base": 1})
    message = send(two)
    lookout.wait_for("started")
    engine.kill()
    lookout.wait_for("the engine is away in the middle of a swap; going on when it is back")
    engine.start()
    failed = lookout.wait_for("failed", message_id=message)
    assert "tried again" in failed["next"]
    ended = lookout.wait_for("deployed", message_id=message, seconds=60)
    assert ended["containers"] == [name]
    assert inspect(name)["Config"]["Image"] == two
    assert not leftovers(engine)


def test_sigterm_ends_lookout_also_while_the_engine_is_away(start: Start, line: FaultProxy) -> None:
    line.go_down()
    lookout = start(DOCKER_HOST=line.docker_host)
    lookout.wait_for("the engine does not answer; trying again")
    assert lookout.terminate(A_LITTLE) == 0


# Wrong settings


def test_wrong_settings_end_it_with_code_2_and_one_line_each(start: Start) -> None:
    lookout = start(
        forked=False, SqsQueueUrl="", LogLevel="loud", PollTimeSeconds="0", RegistryPassword="hunter2"
    )
    assert lookout.exit_code() == 2
    lines = lookout.complaints()
    assert sorted(line.split(":")[1].strip() for line in lines) == [
        "LogLevel",
        "PollTimeSeconds",
        "RegistryPassword",
        "SqsQueueUrl",
    ]
    assert "hunter2" not in "".join(lines)


@pytest.mark.parametrize(
    "variables",
    [
        {"SqsQueueUrl": "http://127.0.0.1:1/123456789012/no-such-queue"},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        {"AWS_PROFILE": "nobody"},
        {"DOCKER_HOST": "carrier-pigeon"},
        {"DOCKER_HOST": "tcp://127.0.0.1:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nonexistent"},
    ],
    ids=["no such queue", "no credentials", "no such profile", "no such engine", "no certificates"],
)
def test_what_can_never_work_ends_it_with_code_2_and_one_line(
    start: Start, variables: dict[str, str]
) -> None:
    lookout = start(forked=False, **variables)
    assert lookout.exit_code() == 2
    assert len(lookout.complaints()) == 1


# What it says at its start


def test_it_says_at_its_start_what_it_manages_and_what_it_leaves_alone(
    app_image: AppImage, make_container: MakeContainer, start: Start
) -> None:
    image = app_image("1")
    api, other = make_container(image, "api"), make_container(image, "other", "--label=lookout.enable=false")
    lookout = start()
    event = lookout.wait_for("managing", level="info")
    assert f"{api} ({image})" in event["containers"]
    assert f"{other} is labelled lookout.enable=false" in event["left_alone"]
    assert not any(name.startswith(other) for name in event["containers"])
    lookout.wait_for("polling")
    assert not [event for event in lookout.events if event["level"] == "warning"]


def test_it_warns_of_each_permission_that_is_missing_once_and_polls_all_the_same(
    start: Start, send: Send, sqs: LocalSqs
) -> None:
    receiving = {"Effect": "Allow", "Action": "sqs:ReceiveMessage", "Resource": "*"}
    message = send("127.0.0.1:5000/nobody/api:1")
    with sqs.enforce_iam({"Version": "2012-10-17", "Statement": [receiving]}) as environment:
        lookout = start(**environment)
        told = "a permission is missing; add this statement to the policy"
        lookout.wait_for(told, level="warning", action="sqs:DeleteMessage", queue="SqsQueueUrl")
        lookout.wait_for("received", message_id=message)
        until(lambda: any("not allowed to extend" in event["event"] for event in lookout.events))
    warnings = [event["statement"] for event in lookout.events if "statement" in event]
    for action in ("DeleteMessage", "ChangeMessageVisibility"):
        assert sum(action in statement for statement in warnings) == 1
    assert len(warnings) == 2
