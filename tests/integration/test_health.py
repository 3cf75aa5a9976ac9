"""What a running Lookout tells of its health, and that it is true."""

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.faulty_sqs import Call, Fault, FaultySqs
from testbed.sqs import LocalSqs
from tests.integration import running
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.health import PACE, Health, until
from tests.integration.service import WAITS, Service, let_go
from tests.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.queue]

Start = Callable[..., Health]

BROKEN = 'CMD ["false"]'


@pytest.fixture
def start(service: Service) -> Start:
    """Start a Lookout that can be asked for its health; keyword arguments are its settings."""

    def make(*, pace: dict[str, Any] | None = None, **settings: str) -> Health:
        port = free_port()
        lookout = service.start(pace=PACE | (pace or {}), HttpPort=str(port), **settings)
        return Health(lookout, port)

    return make


def over(line: FaultySqs) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL_SQS": line.endpoint}


def fault_of(actions: str, fault: Fault = Fault.INTERNAL_FAILURE) -> Callable[[Call], Fault | None]:
    return lambda call: fault if re.match(actions, call.action) else None


# What it counts


def test_metrics_tell_what_has_happened(
    app_image: AppImage, make_container: MakeContainer, start: Start, service: Service, sqs: LocalSqs
) -> None:
    for number in range(2):
        make_container(app_image("1"), f"api{number}")
    two, broken = app_image("2"), app_image("3", changes=[BROKEN])
    health = start(HostId="here")
    health.wait_until_well()
    before = health.numbers()
    assert {name for name in before if name.startswith("lookout_messages_total")} == {
        f"lookout_messages_total {outcome}" for outcome in Outcome
    }

    health.lookout.wait_for("deployed", message_id=service.send(two))
    health.lookout.wait_for("rolled_back", message_id=service.send(broken))
    health.lookout.wait_for("invalid", message_id=sqs.send(service.queue_url, "garbage"))
    other = service.send(two, HostId="there")
    health.lookout.wait_for("not_here", message_id=other, count=2)

    numbers = health.numbers()
    counted = {
        name: int(value)
        for name, value in numbers.items()
        if name.startswith("lookout_messages_total") and value
    }
    assert counted == {
        f"lookout_messages_total {outcome}": 1 for outcome in ("deployed", "rolled_back", "invalid")
    }
    for outcome in ("deployed", "rolled_back"):
        (told,) = health.lookout.logged(outcome)
        assert numbers[f"lookout_deploy_seconds_count {outcome}"] == 1
        assert numbers[f"lookout_deploy_seconds_sum {outcome}"] == pytest.approx(told["seconds"], abs=0.01)
    assert numbers["lookout_pull_seconds_count"] == len(health.lookout.logged("pulled")) >= 2
    assert numbers["lookout_pull_seconds_sum"] > 0
    assert numbers["lookout_downtime_seconds_count"] == 3, (
        "of the two that were replaced, and of the one brought back"
    )
    assert numbers["lookout_downtime_seconds_sum"] > 0
    assert numbers["lookout_poll_errors_total"] == numbers["lookout_lease_errors_total"] == 0


def test_what_is_in_flight_is_told_while_it_is(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    service: Service,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api")
    health = start()
    message = service.send(app_image("2", changes=[WAITS]), DeployTimeSeconds=300)
    health.lookout.wait_for("started")
    assert health.numbers()["lookout_messages_in_flight"] == 1
    let_go(engine, name)
    health.lookout.wait_for("deployed", message_id=message)
    until(lambda: health.numbers()["lookout_messages_in_flight"] == 0)


# What makes it ill, and well again


def test_it_is_ill_while_polls_fail_but_for_two_and_well_when_they_are_answered_again(
    start: Start, queue_line: FaultySqs
) -> None:
    health = start(**over(queue_line))
    health.wait_until_well()
    failures = iter([Fault.INTERNAL_FAILURE] * 2)
    queue_line.choose = lambda call: next(failures, None) if call.action == "ReceiveMessage" else None
    health.lookout.wait_for("cannot poll; trying again", count=2)
    until(lambda: health.numbers()["lookout_poll_errors_total"] == 2)
    assert health.stays_well(1)
    faults = (Fault.INTERNAL_FAILURE, Fault.UNAVAILABLE, Fault.THROTTLED, Fault.CUT_BEFORE)
    for number, fault in enumerate(faults):
        queue_line.choose = fault_of("ReceiveMessage", fault)
        until(lambda: health.page[0] == 503)
        assert health.page[1].startswith("cannot poll: ")
        assert health.numbers()["lookout_poll_errors_total"] >= 2 + 3 * (number + 1)
        if number == 0:
            health.wait_until_ill("cannot poll: ")
        queue_line.choose = lambda _: None
        until(lambda: health.page[0] == 200)
    health.wait_until_well()
    told = health.lookout.order("healthy", "unhealthy")
    assert told == ["healthy", *["unhealthy", "healthy"] * len(faults)]


def test_a_queue_server_that_has_gone_makes_it_ill(service: Service, start: Start) -> None:
    with LocalSqs() as own:
        url = own.create_queue("own", VisibilityTimeout=2)
        health = start(SqsQueueUrl=url, DeadLetterQueueUrl="", **own.environment())
        health.wait_until_well()
        own.stop()
        health.wait_until_ill("cannot poll: SQS did not answer")


@pytest.mark.engine_ends
def test_it_is_ill_when_the_engine_has_died_and_well_when_it_was_started_again(
    start: Start, engine: PrivateEngine
) -> None:
    health = start()
    health.wait_until_well()
    engine.kill()
    health.wait_until_ill("the engine did not answer")
    engine.start()
    health.wait_until_well()


def test_an_engine_that_lets_two_questions_wait_is_busy_and_one_that_does_not_stop_is_away(
    start: Start, line: FaultProxy
) -> None:
    health = start(DOCKER_HOST=line.docker_host, pace={"ping_patience": 0.3})
    health.wait_until_well()
    for _ in range(2):
        line.hang("GET /_ping")
        until(lambda: line.is_spent)
    assert health.stays_well(1)
    assert not health.lookout.logged("unhealthy")

    def hang_on() -> None:
        line.hang("GET /_ping", action=hang_on)

    hang_on()
    health.wait_until_ill("no answer in time")
    line.go_down()
    health.wait_until_ill("the engine did not answer")
    line.hang("none that is made")
    line.come_back()
    health.wait_until_well()


def test_renewals_that_fail_make_it_ill_until_they_work(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    service: Service,
    engine: PrivateEngine,
    queue_line: FaultySqs,
) -> None:
    name = make_container(app_image("1"), "api")
    """All slots are held, so nothing but the renewals themselves can tell that the queue is back."""
    health = start(**over(queue_line), MaxMessages="1")
    message = service.send(app_image("2", changes=[WAITS]), DeployTimeSeconds=20)
    queue_line.choose = fault_of("ChangeMessageVisibility")
    health.lookout.wait_for("started")
    health.lookout.wait_for("lease lost; the deploy goes on, and its message will be delivered again")
    health.wait_until_ill("the lease of a message in flight is not renewed: ")
    assert health.numbers()["lookout_lease_errors_total"] > 1
    queue_line.choose = lambda _: None
    health.wait_until_well()
    let_go(engine, name)
    health.lookout.wait_for("deployed", message_id=message)


# What does not


def test_a_policy_without_the_right_to_renew_is_no_illness(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    service: Service,
    engine: PrivateEngine,
    sqs: LocalSqs,
) -> None:
    name = make_container(app_image("1"), "api")
    message = service.send(app_image("2", changes=[WAITS]), DeployTimeSeconds=20)
    statement = {"Effect": "Allow", "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"], "Resource": "*"}
    with sqs.enforce_iam({"Version": "2012-10-17", "Statement": [statement]}) as environment:
        health = start(**environment, pace={"lease_floor": 1})
        health.lookout.wait_for("started")
        health.wait_until_well()
        assert health.stays_well(2), "its lease of one second was never renewed"
        let_go(engine, name)
        health.lookout.wait_for("deployed", message_id=message)
    assert not health.lookout.logged("unhealthy")


def test_it_is_well_while_deploys_have_all_slots_and_nothing_is_polled(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    service: Service,
    engine: PrivateEngine,
    queue_line: FaultySqs,
) -> None:
    name = make_container(app_image("1"), "api")
    health = start(MaxMessages="1", pace={"poll_overrun": 1}, **over(queue_line))
    message = service.send(app_image("2", changes=[WAITS]), DeployTimeSeconds=300)
    health.lookout.wait_for("started")
    polls = queue_line.calls["ReceiveMessage"]
    assert health.stays_well(3)
    assert queue_line.calls["ReceiveMessage"] == polls
    let_go(engine, name)
    health.lookout.wait_for("deployed", message_id=message)


# From its start to its end


def test_it_tells_that_it_is_starting_before_the_engine_is_reached(start: Start, line: FaultProxy) -> None:
    line.go_down()
    health = start(DOCKER_HOST=line.docker_host, pace={"beat_every": 0.7})
    until(lambda: health.page[0])
    assert health.page == (503, "starting: the engine has not answered yet\n")
    assert not health.beats()
    health.wait_until_ill("the engine did not answer")
    line.come_back()
    health.wait_until_well()
    assert not health.lookout.logged("unhealthy"), "it had not been well before"


def test_it_tells_that_it_is_starting_while_it_takes_up_what_it_has_found(
    start: Start, line: FaultProxy
) -> None:
    line.hang(r"GET /v[0-9.]+/containers/json")
    health = start(DOCKER_HOST=line.docker_host)
    until(lambda: line.is_spent)
    until(lambda: health.page == (503, "starting: no poll of the queue has been answered yet\n"))
    assert not health.beats()
    assert health.lookout.terminate(20) == 0


def test_it_is_well_to_the_end_of_its_last_deploy_and_then_all_is_gone(
    app_image: AppImage,
    make_container: MakeContainer,
    start: Start,
    service: Service,
    engine: PrivateEngine,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    two = app_image("2", changes=[WAITS])
    health = start(StopGraceSeconds="60", pace={"poll_overrun": 1})
    health.wait_until_well()
    service.send(two, DeployTimeSeconds=300)
    health.lookout.wait_for("started")
    health.lookout.signal(signal.SIGTERM)
    health.lookout.wait_for("stopping")
    assert health.stays_well(3), "though nothing is polled any more"
    let_go(engine, name)
    assert health.lookout.exit_code(60) == 0
    assert inspect(name)["Config"]["Image"] == two
    assert not health.file.exists()
    assert health.page[0] == 0
    assert not health.lookout.logged("unhealthy")


def test_one_that_was_killed_leaves_a_file_that_gets_old(start: Start) -> None:
    health = start()
    health.wait_until_well()
    health.lookout.kill()
    assert health.file.exists()
    assert not health.beats()


# What it does not do


def test_nothing_can_be_changed_over_http(start: Start) -> None:
    health = start()
    until(lambda: health.page[0])
    for path in ("/healthz", "/metrics", "/"):
        for method in ("POST", "PUT", "DELETE"):
            assert health.get(path, method)[0] in (404, 405)


def test_connections_that_ask_nothing_take_nothing_from_deploys_and_are_not_kept(
    app_image: AppImage,
    make_container: MakeContainer,
    alone: Callable[..., running.RunningLookout],
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); "
    monkeypatch.setattr(running, "COMMAND", limit + running.COMMAND)
    make_container(app_image("1"), "api")
    port = free_port()
    with alone(HttpPort=str(port), SqsQueueUrl=service.queue_url) as lookout, contextlib.ExitStack() as held:
        lookout.wait_for("healthy")
        idle = []
        for _ in range(200):
            idle.append(held.enter_context(socket.create_connection(("127.0.0.1", port))))
            time.sleep(0.005)  # what comes faster than it is accepted is tried again after a second only
        lookout.wait_for("deployed", message_id=service.send(app_image("2")))
        for connection in idle:
            connection.settimeout(20)
            assert connection.recv(1) == b""
        assert Health(lookout, port).page == (200, "ok\n")
        assert lookout.terminate(30) == 0
        assert not [event for event in lookout.events if event["level"] in ("warning", "error", "critical")]


def test_a_file_that_cannot_be_written_is_warned_of_once_and_deploys_go_on(
    app_image: AppImage, make_container: MakeContainer, start: Start, service: Service
) -> None:
    make_container(app_image("1"), "api")
    health = start(HeartbeatFile="/nonexistent/heartbeat")
    health.lookout.wait_for("healthy")
    health.lookout.wait_for("deployed", message_id=service.send(app_image("2")))
    assert health.page == (200, "ok\n")
    (warning,) = health.lookout.logged("the heartbeat file cannot be written; going on without")
    assert warning["level"] == "warning"


def test_a_link_in_the_place_of_the_file_is_not_followed(start: Start, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.touch()
    os.utime(target, (0, 0))
    link.symlink_to(target)
    health = start(HeartbeatFile=str(link))
    health.lookout.wait_for("the heartbeat file cannot be written; going on without")
    assert health.lookout.terminate(30) == 0
    assert link.is_symlink()
    assert target.stat().st_mtime == 0


@pytest.fixture
def alone(
    engine: PrivateEngine, sqs: LocalSqs, queue_url: str, tmp_path: Path
) -> Callable[..., running.RunningLookout]:
    """Start Lookout in a process that has imported nothing before."""

    def make(**settings: str) -> running.RunningLookout:
        environment = {"SqsQueueUrl": queue_url, "DOCKER_HOST": engine.docker_host, "PollTimeSeconds": "1"}
        return running.RunningLookout(environment | sqs.environment() | settings, tmp_path, **PACE)

    return make


@pytest.mark.parametrize("is_taken", [True, False], ids=["port", "host"])
def test_where_it_cannot_listen_it_ends_with_code_2_and_one_line(
    alone: Callable[..., running.RunningLookout], start: Start, is_taken: bool
) -> None:
    health = start()
    until(lambda: health.page[0])
    wrong = {"HttpPort": str(health.port)} if is_taken else {"HttpPort": "1", "HttpHost": "192.0.2.1"}
    with alone(**wrong) as lookout:
        assert lookout.exit_code() == 2
        (line,) = lookout.complaints()
    assert line.startswith("lookout: HttpPort, HttpHost: cannot listen on ")


MODULES = ("aiohttp.web", "lookout.web", "prometheus_client")


@pytest.mark.parametrize("serves", [True, False])
def test_without_a_port_nothing_listens_and_what_it_would_need_is_not_even_imported(
    alone: Callable[..., running.RunningLookout], monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    tell = f"print(json.dumps(dict(event='imported', modules=[m for m in {MODULES} if m in sys.modules])))"
    command = running.COMMAND.replace("sys.exit(", "code = (") + f"; import json; {tell}; sys.exit(code)"
    monkeypatch.setattr(running, "COMMAND", command)
    with alone(**({"HttpPort": str(free_port())} if serves else {})) as lookout:
        lookout.wait_for("healthy")
        assert bool(listening(lookout._process.pid)) is serves  # type: ignore[union-attr]
        assert lookout.terminate(30) == 0
        assert lookout.wait_for("imported")["modules"] == (list(MODULES) if serves else [])


def listening(pid: int) -> list[str]:
    """The sockets of a process on which it waits for connections."""
    own = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own]
