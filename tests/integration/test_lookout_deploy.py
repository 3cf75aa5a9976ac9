"""`lookout deploy`: the real command on a real queue; a thread plays the Lookout that answers."""

import asyncio
import json
import os
import pty
import re
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lookout.model import ContainerReport, Json, Outcome
from lookout.reply_queue import sweep
from lookout.result import Result
from testbed.faulty_sqs import Call, Fault, FaultySqs, OneIn
from testbed.sqs import LocalSqs
from tests.integration.answering import (
    LONG,
    Answering,
    Command,
    Ended,
    ended,
    pulling,
    remove_reply_queues,
    reply_queues,
)
from tests.integration.queues import connected

pytestmark = [pytest.mark.queue, pytest.mark.timeout(120)]

IMAGE = "ghcr.io/acme/api:2"
EVIL = "::error::no\n##[error]no\n\x1b[31mred\r\n[bold]loud[/bold] 100%\u202e\n\ud800"
README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture(autouse=True)
def none_before(sqs: LocalSqs) -> None:
    """Other tests may have left reply queues of their own."""
    remove_reply_queues(sqs)


@pytest.fixture
def command(sqs: LocalSqs, queue_url: str, tmp_path: Path) -> Command:
    return Command({"SqsQueueUrl": queue_url, **sqs.environment()}, tmp_path)


@pytest.fixture
def answering(sqs: LocalSqs, queue_url: str) -> Iterator[Answering]:
    with Answering(sqs.environment(), queue_url) as answering:
        yield answering


def died(result: Result) -> Iterable[Result]:
    report = ContainerReport(
        "web", Outcome.ROLLED_BACK, old_image="api:1", new_image="api:2", downtime=1.25, log_tail=EVIL
    )
    yield ended(result, Outcome.ROLLED_BACK, error="it exited with code 3", containers=(report,))


def test_a_good_deploy_ends_with_0_and_shows_how_it_went(
    command: Command, answering: Answering, sqs: LocalSqs
) -> None:
    told = Ended.of(command.start(IMAGE))
    assert told.code == 0, told.err
    (asked,) = answering.asked
    assert re.fullmatch(r".*/lookout-reply-[0-9a-f]{32}", asked.pop("ReplyQueueUrl"))
    assert asked == {"ImageName": "ghcr.io/acme/api", "ImageTag": "2"}
    assert [line for line in told.lines if line.startswith(("pulling", "replacing", "web:"))] == [
        "pulling 10% (0.1 of 1.0 MB)",
        "pulling 80% (0.8 of 1.0 MB)",
        "replacing",
        "web: starting",
    ]
    assert re.search(r"^outcome +deployed$", told.out, re.MULTILINE)
    assert re.search(r"^host +host-1$", told.out, re.MULTILINE)
    assert re.search(r"^web +deployed +api:1 -> api:2 +0.5 s$", told.out, re.MULTILINE)
    assert told.out.isascii()
    assert told.err == ""
    assert reply_queues(sqs) == []


def test_all_that_can_be_asked_for_is_in_the_message(command: Command, answering: Answering) -> None:
    digest = f"sha256:{'a' * 64}"
    options = ("--digest", digest, "--deploy-time", "7", "--host-id", "web-1")
    assert command(IMAGE, *options).code == 0
    assert command(IMAGE, DeployTimeSeconds="9").code == 0
    first, second = answering.asked
    assert (first["ImageDigest"], first["DeployTimeSeconds"], first["HostId"]) == (digest, 7, "web-1")
    assert second["DeployTimeSeconds"] == 9


def test_the_exit_code_tells_whether_the_image_runs(sqs: LocalSqs, queue_url: str, command: Command) -> None:
    good = ("deployed", "unchanged", "superseded", "ignored")

    def by_the_tag(result: Result) -> Iterable[Result]:
        yield ended(result, Outcome(result.image_tag), will_retry=True)

    with Answering(sqs.environment(), queue_url, by_the_tag):
        every = command.side_by_side(*([f"ghcr.io/acme/api:{outcome}"] for outcome in Outcome))
    for outcome, told in zip(Outcome, every, strict=True):
        assert told.code == (0 if outcome in good else 1), outcome
        assert re.search(rf"^outcome +{outcome.replace('_', ' ')}", told.out, re.MULTILINE)
        assert ("it will be tried again" in told.out) == (outcome not in good), outcome


def test_a_bad_ending_shows_the_reason_and_the_log_of_the_application_which_can_do_no_harm(
    sqs: LocalSqs, queue_url: str, command: Command
) -> None:
    with Answering(sqs.environment(), queue_url, died):
        told = command(IMAGE)
    assert told.code == 1
    assert "it exited with code 3" in told.out
    assert "it will not be tried again" in told.out
    assert "  | [bold]loud[/bold] 100%\N{REPLACEMENT CHARACTER}" in told.lines
    assert all(char.isprintable() or char == "\n" for char in told.out)


def test_no_answer_in_time_ends_with_3_and_says_that_it_may_be_deployed_later(
    command: Command, sqs: LocalSqs
) -> None:
    told = command(IMAGE, "--timeout", "1")
    assert told.code == 3
    assert "no answer within 1 s; no Lookout has told of it; does one run on this queue" in told.out
    assert "may be deployed later" in told.out
    assert reply_queues(sqs) == []
    told = command(IMAGE, "--timeout", "1", "--host-id", "web-9")
    assert "does a Lookout with the HostId 'web-9' run?" in told.out


def test_progress_without_a_result_is_told_at_the_end(
    sqs: LocalSqs, queue_url: str, command: Command
) -> None:
    with Answering(sqs.environment(), queue_url, lambda result: [pulling(result, 50)]):
        told = command(IMAGE, "--timeout", "2", "--json")
    assert told.code == 3
    document = json.loads(told.out)
    assert document["Outcome"] == "no_answer"
    assert document["LastProgress"]["Percent"] == 50
    assert "had begun: pulling" in document["Error"]


def test_json_is_one_document_and_the_progress_is_on_standard_error(
    command: Command, answering: Answering
) -> None:
    told = command(IMAGE, "--json")
    assert told.code == 0
    assert Result.from_json(told.out).outcome is Outcome.DEPLOYED
    assert "pulling 10%" in told.err


def test_json_holds_nothing_that_github_takes_for_a_command(
    sqs: LocalSqs, queue_url: str, command: Command
) -> None:
    with Answering(sqs.environment(), queue_url, died):
        told = command(IMAGE, "--json", GITHUB_ACTIONS="true")
    assert told.code == 1
    assert "##[" not in told.out
    assert Result.from_json(told.out).containers[0].log_tail == EVIL
    assert told.err.startswith("::group::")
    assert "::error title=" in told.err


def test_no_wait_only_sends_and_prints_the_id(command: Command, sqs: LocalSqs, queue_url: str) -> None:
    told, as_json = command.side_by_side([IMAGE, "--no-wait"], [IMAGE, "--no-wait", "--json"])
    document = json.loads(as_json.out)
    assert (told.code, as_json.code, document["Outcome"]) == (0, 0, "sent")
    messages = {message["MessageId"]: message["Body"] for message in sqs.receive(queue_url)}
    assert messages.keys() == {told.out.removesuffix("\n"), document["MessageId"]}
    for body in messages.values():
        assert json.loads(body) == {"ImageName": "ghcr.io/acme/api", "ImageTag": "2"}
    assert reply_queues(sqs) == []


WRONG = {
    "no tag": ["ghcr.io/acme/api"],
    "a digest that is none": [IMAGE, "--digest", "sha256:1"],
    "a deploy time out of range": [IMAGE, "--deploy-time", "28801"],
    "no deploy time": [IMAGE, "--deploy-time", "0"],
    "an empty host": [IMAGE, "--host-id", ""],
    "a long host": [IMAGE, "--host-id", "h" * 256],
    "a host that cannot be printed": [IMAGE, "--host-id", "a\tb"],
    "too long a wait": [IMAGE, "--timeout", "43201"],
    "no wait": [IMAGE, "--timeout", "0"],
    "a wait that is none": [IMAGE, "--timeout", "nan"],
    "two ways to wait": [IMAGE, "--no-wait", "--wait-for-retries"],
    "a reply queue elsewhere": [IMAGE, "--reply-queue", "http://127.0.0.1:1/123456789012/lookout-reply-x"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_what_lookout_would_refuse_is_refused_here_and_nothing_is_sent(
    command: Command, sqs: LocalSqs, queue_url: str, arguments: list[str]
) -> None:
    told = command(*arguments)
    assert told.code == 2
    assert "lookout deploy: error: " in told.err
    assert sqs.count(queue_url) == (0, 0)


@pytest.mark.parametrize("name", ["other", "lookout-reply-gone"])
def test_a_reply_queue_that_is_not_for_replies_or_not_there_is_refused(
    command: Command, sqs: LocalSqs, queue_url: str, name: str
) -> None:
    told = command(IMAGE, "--reply-queue", f"{queue_url.rpartition('/')[0]}/{name}")
    assert told.code == 2
    assert "reply queue" in told.err or "error: --reply-queue names a queue" in told.err
    assert sqs.count(queue_url) == (0, 0)


def test_a_complaint_names_the_option(command: Command) -> None:
    assert "error: --digest is not a digest; expected " in command(IMAGE, "--digest", "sha256:abc").err


def test_a_server_that_never_answers_does_not_hold_it_much_longer_than_its_timeout(
    command: Command, queue_line: FaultySqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call may be under way when the time is over, and one more removes what it may have made."""

    async def never(*_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(queue_line, "_pass_on", never)
    told = command(IMAGE, "--timeout", "1", AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
    assert (told.code, told.out) == (2, "")
    assert "no reply queue can be made: SQS did not answer within 5 s; nothing was sent" in told.err
    assert queue_line.calls == {"CreateQueue": 1, "DeleteQueue": 1}


@pytest.mark.parametrize(("out", "code"), [(">&-", 0), (">/dev/full", 3)])
def test_what_cannot_be_printed_is_no_failure_of_the_deploy_but_no_answer_either(
    command: Command, answering: Answering, tmp_path: Path, out: str, code: int
) -> None:
    """Where nobody wants to read it, there is nothing to miss; a full disk is another matter."""
    line = f"exec {sys.executable} -m lookout deploy {IMAGE} --json {out}"
    told = subprocess.run(
        ["sh", "-c", line],
        env=command.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )
    assert told.returncode == code, told.stderr
    assert ("cannot write: No space left on device" in told.stderr) == (code == 3)
    assert len(answering.asked) == 1


def test_twenty_at_once_each_get_their_own_answer(command: Command, sqs: LocalSqs, queue_url: str) -> None:
    with Answering(sqs.environment(), queue_url) as answering:
        told = command.side_by_side(*([f"ghcr.io/acme/api:{tag}", "--json"] for tag in range(20)))
    assert [one.code for one in told] == [0] * 20
    assert [json.loads(one.out)["ImageTag"] for one in told] == [str(tag) for tag in range(20)]
    assert len(answering.asked) == 20
    assert reply_queues(sqs) == []


def test_wrong_settings_end_with_2_and_one_line_for_each(command: Command) -> None:
    told = command(IMAGE, SqsQueueUrl="")
    assert (told.code, told.out) == (2, "")
    assert told.err == "lookout: SqsQueueUrl: is required; set it in the environment or in .env\n"


def test_without_credentials_or_a_server_nothing_is_sent(command: Command) -> None:
    told = command(IMAGE, AWS_ACCESS_KEY_ID="")
    assert (told.code, told.out) == (2, "")
    assert "AWS credentials" in told.err
    told = command(IMAGE, AWS_ENDPOINT_URL_SQS="http://127.0.0.1:1")
    assert (told.code, told.out) == (2, "")
    assert "SQS did not answer" in told.err
    assert "nothing was sent" in told.err


def test_a_message_that_sqs_does_not_answer_to_may_have_been_sent(
    command: Command, sqs: LocalSqs, queue_url: str, queue_line: FaultySqs
) -> None:
    queue_line.choose = lambda call: Fault.CUT_AFTER if call.action == "SendMessage" else None
    told = command(IMAGE, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
    assert (told.code, told.out) == (3, "")
    assert "may be on the queue" in told.err
    assert sum(sqs.count(queue_url)) == 3
    assert reply_queues(sqs) == []


def test_a_terminal_that_knows_few_characters_is_shown_what_it_can(
    sqs: LocalSqs, queue_url: str, command: Command
) -> None:
    with Answering(sqs.environment(), queue_url, died):
        told = Ended.of(command.start(IMAGE, PYTHONIOENCODING="ascii"))
    assert told.code == 1, told.err
    assert "  | [bold]loud[/bold] 100%?" in told.lines


def test_a_queue_that_is_not_there_ends_with_2(command: Command, sqs: LocalSqs, queue_url: str) -> None:
    told = command(IMAGE, SqsQueueUrl=f"{queue_url}-gone")
    assert told.code == 2
    assert f"there is no queue {queue_url}-gone; check SqsQueueUrl and AWS_REGION" in told.err
    assert "nothing was sent" in told.err
    assert reply_queues(sqs) == []


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.mark.parametrize(("name", "code"), SIGNALS.items())
def test_a_signal_ends_the_waiting_and_removes_the_queue(
    command: Command, sqs: LocalSqs, name: str, code: int
) -> None:
    process = command.start(IMAGE)
    assert process.stdout
    assert process.stdout.readline().startswith("sent as ")
    assert len(reply_queues(sqs)) == 1
    process.send_signal(getattr(signal, name))
    told = Ended.of(process)
    assert told.code == code
    assert "the deploy goes on without anybody watching" in told.err
    assert reply_queues(sqs) == []


@pytest.mark.parametrize("fault", [None, Fault.CUT_AFTER, Fault.FAILS_AFTER])
@pytest.mark.parametrize(("name", "code"), SIGNALS.items())
def test_a_signal_in_the_middle_of_making_the_queue_leaves_none_and_sends_nothing(
    command: Command, sqs: LocalSqs, queue_url: str, queue_line: FaultySqs, name: str, code: int, fault: Any
) -> None:
    process = command.start(IMAGE, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)

    def choose(call: Call) -> Fault | None:
        if call.action != "CreateQueue":
            return None
        process.send_signal(getattr(signal, name))
        time.sleep(0.3)  # so that it is heard in the middle of the call
        return fault if queue_line.calls["CreateQueue"] == 1 else None

    queue_line.choose = choose
    told = Ended.of(process)
    assert queue_line.calls["CreateQueue"] == 1
    assert told.code == code
    assert "nothing was sent" in told.err
    assert reply_queues(sqs) == []
    assert sqs.count(queue_url) == (0, 0)


def test_a_second_signal_does_not_keep_the_queue_from_being_removed(
    command: Command, sqs: LocalSqs, queue_line: FaultySqs
) -> None:
    process = command.start(IMAGE, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)

    def choose(call: Call) -> Fault | None:
        if call.action == "DeleteQueue":
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        return None

    queue_line.choose = choose
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert Ended.of(process).code == 130
    assert reply_queues(sqs) == []


def test_a_signal_that_whoever_started_it_ignores_is_ignored(
    command: Command, answering: Answering, queue_line: FaultySqs
) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from lookout.cli import main; sys.exit(main())"
    )
    process = command.start(IMAGE, program=program, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)

    def choose(call: Call) -> Fault | None:
        if call.action == "SendMessage":
            process.send_signal(signal.SIGHUP)
        return None

    queue_line.choose = choose
    assert Ended.of(process).code == 0


def test_a_line_that_fails_at_times_only_delays(
    command: Command, answering: Answering, sqs: LocalSqs, queue_line: FaultySqs
) -> None:
    queue_line.choose = OneIn(3, seed=5)
    told = command(IMAGE, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
    assert told.code == 0, told.err
    queue_line.choose = lambda _: None
    assert reply_queues(sqs) == []


def test_a_queue_that_is_not_known_yet_is_waited_for(
    command: Command, answering: Answering, sqs: LocalSqs, queue_line: FaultySqs
) -> None:
    """The line hides the reply queue at first, as SQS may."""
    left = [4]  # calls that it hides
    hidden = {"ReceiveMessage", "GetQueueAttributes"}
    pass_on = queue_line._pass_on

    async def young(request: Any, parameters: Json) -> Any:
        if left[0] and request.headers["X-Amz-Target"].rpartition(".")[2] in hidden:
            left[0] -= 1
            parameters = parameters | {"QueueUrl": f"{parameters['QueueUrl']}-young"}
        return await pass_on(request, parameters)

    queue_line._pass_on = young  # type: ignore[method-assign]
    told = command(IMAGE, AWS_ENDPOINT_URL_SQS=queue_line.endpoint)
    assert told.code == 0, told.err
    assert told.err == ""
    assert reply_queues(sqs) == []


def test_a_result_that_is_tried_again_ends_the_wait_unless_told_otherwise(
    sqs: LocalSqs, queue_url: str, command: Command
) -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

    def twice(result: Result) -> Iterable[Result]:
        yield ended(result, Outcome.FAILED, error="no registry", will_retry=True, next_attempt_at=at)
        yield pulling(result, 30)
        yield ended(result, Outcome.DEPLOYED)

    with Answering(sqs.environment(), queue_url, twice) as answering:
        first = command(IMAGE)
        assert first.code == 1
        assert "no registry" in first.out
        assert "it will be tried again at 2030-01-02 03:04:05 UTC" in first.out
        second = command(IMAGE, "--wait-for-retries")
        assert second.code == 0
        assert "failed: no registry; it will be tried again at 2030-01-02 03:04:05 UTC" in second.lines
    assert len(answering.asked) == 2


def test_where_no_retry_comes_in_time_the_last_result_counts(
    sqs: LocalSqs, queue_url: str, command: Command
) -> None:
    def fails(result: Result) -> Iterable[Result]:
        yield ended(result, Outcome.NOT_HERE, error="no container", will_retry=True)

    with Answering(sqs.environment(), queue_url, fails):
        told = command(IMAGE, "--wait-for-retries", "--timeout", "2", "--json")
    assert told.code == 1
    assert json.loads(told.out)["Outcome"] == "not_here"


def test_on_a_fifo_queue_the_image_is_the_group_and_nothing_is_taken_for_the_same(
    sqs: LocalSqs, command: Command
) -> None:
    url = sqs.create_fifo_queue()
    for _ in range(2):
        assert command("redis:7", "--no-wait", SqsQueueUrl=url).code == 0
    first, *_ = sqs.receive(url)
    assert first["Attributes"]["MessageGroupId"] == "docker.io/library/redis"
    assert sum(sqs.count(url)) == 2
    sqs._sqs.delete_queue(QueueUrl=url)


def test_a_queue_of_the_users_own_brings_the_answer_and_is_kept(
    command: Command, answering: Answering, sqs: LocalSqs
) -> None:
    url = sqs.create_queue(f"lookout-reply-{secrets.token_hex(4)}")
    stranger = Result("another", outcome=Outcome.FAILED).to_json()
    sqs.send(url, stranger)
    sqs.send(url, "garbage")
    told = command(IMAGE, "--reply-queue", url)
    assert told.code == 0
    assert answering.asked[0]["ReplyQueueUrl"] == url
    left: set[str] = set()
    deadline = time.monotonic() + LONG
    while len(left) < 2 and time.monotonic() < deadline:
        left |= {message["Body"] for message in sqs.receive(url, 1)}
    assert left == {stranger, "garbage"}
    assert sqs.count(url) == (0, 2), "and nothing of its own"
    sqs._sqs.delete_queue(QueueUrl=url)


def test_in_github_actions_the_progress_is_folded_and_a_bad_ending_annotated(
    sqs: LocalSqs, queue_url: str, command: Command
) -> None:
    def dies(result: Result) -> Iterable[Result]:
        yield pulling(result, 10)
        yield from died(result)

    with Answering(sqs.environment(), queue_url, dies):
        told = command(IMAGE, GITHUB_ACTIONS="true")
    assert told.code == 1
    shown = heeded(told.lines)
    assert shown[0] == f"::group::deploy of {IMAGE}"
    assert shown[1] == "::endgroup::"
    title = "deploy of ghcr.io/acme/api%3A2%3A rolled back"
    assert shown[2:] == [f"::error title={title}::it exited with code 3; it will not be tried again"]
    assert told.lines.index("pulling 10% (0.1 of 1.0 MB)") < told.lines.index("::endgroup::")
    assert any("::error::no" in line for line in told.lines)


def test_in_github_actions_a_good_ending_is_not_annotated(command: Command, answering: Answering) -> None:
    told = command(IMAGE, GITHUB_ACTIONS="true")
    assert told.code == 0
    assert "::error" not in told.out


def heeded(lines: list[str]) -> list[str]:
    """The commands that GitHub's runner would carry out: those outside of each fence."""
    commands, token = [], ""
    for line in lines:
        if token:
            token = "" if line.strip() == f"::{token}::" else token
        elif line.startswith("::stop-commands::"):
            token = line.removeprefix("::stop-commands::")
        elif line.lstrip().startswith("::") or "##[" in line:
            commands.append(line)
    assert not token, "a fence is left open"
    return commands


def test_on_a_terminal_the_progress_is_live(command: Command, answering: Answering, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lookout", "deploy", IMAGE],
        env=command.environment | {"TERM": "xterm-256color", "COLUMNS": "100"},
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = read_all(controller)
    assert process.wait(timeout=LONG) == 0
    assert "\x1b[?25l" in shown, "the cursor is hidden"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "and shown again"
    assert "deployed" in shown
    assert "web" in shown


def test_ctrl_c_on_a_terminal_leaves_it_as_it_was(command: Command, sqs: LocalSqs, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_ITS_OWN_TERMINAL, IMAGE],
        env=command.environment | {"TERM": "xterm-256color", "COLUMNS": "100"},
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = ""
    while "sent as" not in shown:
        assert select.select([controller], [], [], LONG)[0], shown
        shown += os.read(controller, 65536).decode()
    os.write(controller, b"\x03")
    shown += read_all(controller)
    assert process.wait(timeout=LONG) == 130
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "the deploy goes on without anybody watching" in shown
    assert reply_queues(sqs) == []


ON_ITS_OWN_TERMINAL = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "sys.argv[1:1] = ['deploy']; from lookout.cli import main; sys.exit(main())"
)


def read_all(controller: int) -> str:
    """Until nobody holds the other end any more."""
    parts = []
    while select.select([controller], [], [], LONG)[0]:
        try:
            parts.append(os.read(controller, 65536))
        except OSError:
            break
    os.close(controller)
    return b"".join(parts).decode()


WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from lookout.cli import main; sys.exit(main())"


def test_without_rich_the_extra_is_named_and_nothing_is_sent(
    command: Command, answering: Answering, sqs: LocalSqs, queue_url: str
) -> None:
    told = Ended.of(command.start(IMAGE, program=WITHOUT_RICH))
    assert (told.code, told.out) == (2, "")
    assert "pip install rich" in told.err
    assert answering.asked == []
    others = [command.start(IMAGE, option, program=WITHOUT_RICH) for option in ("--json", "--no-wait")]
    assert [Ended.of(process).code for process in others] == [0, 0]


BROKEN = "import lookout.sender as s; s.fault = None; from lookout.cli import main; raise SystemExit(main())"


def test_an_error_of_the_command_itself_is_no_result(command: Command) -> None:
    told = Ended.of(command.start(IMAGE, "--json", program=BROKEN))
    assert (told.code, told.out) == (3, "")
    assert "please report it" in told.err


IMPORTED = (
    "import sys; from lookout.cli import main; code = main();"
    "print(*sys.modules, file=sys.stderr); sys.exit(code)"
)


def test_nothing_is_imported_that_only_the_daemon_needs(command: Command, answering: Answering) -> None:
    options = ("--json", "--no-wait", "--deploy-time=5")
    processes = [command.start(IMAGE, option, program=IMPORTED) for option in options]
    for option, told in zip(options, map(Ended.of, processes), strict=True):
        assert told.code == 0
        imported = set(told.err.split())
        assert "lookout.sender" in imported
        unneeded = {"aiodocker", "lookout.app", "lookout.engine", "lookout.deployer", "prometheus_client"}
        unneeded |= {"structlog", "lookout.ecr", "lookout.planner"}
        if option in ("--json", "--no-wait"):
            unneeded |= {"rich", "rich.console"}
        assert imported & unneeded == set(), option


def test_a_reader_that_goes_away_changes_nothing(
    command: Command, answering: Answering, sqs: LocalSqs, tmp_path: Path
) -> None:
    line = f"{sys.executable} -m lookout deploy {IMAGE} | true"
    told = subprocess.run(
        ["sh", "-c", line],
        env=command.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=LONG,
    )
    assert told.stderr == ""
    assert len(answering.asked) == 1
    assert reply_queues(sqs) == []


def test_the_reply_queue_keeps_messages_for_as_long_as_somebody_waits(
    command: Command, sqs: LocalSqs
) -> None:
    process = command.start(IMAGE, "--timeout", "500")
    assert process.stdout
    process.stdout.readline()
    (url,) = reply_queues(sqs)
    told = sqs._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
    assert told["Attributes"]["MessageRetentionPeriod"] == "500"
    process.send_signal(signal.SIGINT)
    assert Ended.of(process).code == 130


def policy() -> Json:
    """The one that the README gives to the job."""
    section = README.partition("### `lookout deploy`")[2].partition("\n### ")[0]
    (text,) = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    return dict(json.loads(text))


def actions(statement: Json) -> list[str]:
    action = statement["Action"]
    return [action] if isinstance(action, str) else list(action)


def allowed(without: str = "") -> Json:
    """Of that policy; the local server knows no other resource than all of them."""
    statements = [
        {"Effect": "Allow", "Action": kept, "Resource": "*"}
        for statement in policy()["Statement"]
        if (kept := [action for action in actions(statement) if action != without])
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def test_the_policy_of_the_readme_suffices(command: Command, sqs: LocalSqs, queue_url: str) -> None:
    with sqs.enforce_iam(allowed()) as environment, Answering(environment, queue_url):
        told = command(IMAGE, **environment)
    assert (told.code, told.err) == (0, "")
    assert reply_queues(sqs) == []


async def test_it_suffices_for_the_removal_of_what_was_left_behind(sqs: LocalSqs, queue_url: str) -> None:
    left, own = (sqs.create_queue(f"lookout-reply-{secrets.token_hex(16)}") for _ in range(2))
    with sqs.enforce_iam(allowed()) as environment:
        async with connected(queue_url, environment) as queue:
            await sweep(queue.account, own, older_than=-5)
    assert left not in reply_queues(sqs)


def test_each_statement_of_it_is_for_what_it_has_to_be() -> None:
    deploys, replies, listing = policy()["Statement"]
    assert deploys["Resource"] == "arn:aws:sqs:eu-west-1:123456789012:deploys"
    assert replies["Resource"] == "arn:aws:sqs:eu-west-1:123456789012:lookout-reply-*"
    assert (listing["Action"], listing["Resource"]) == ("sqs:ListQueues", "*")


@pytest.mark.parametrize(
    ("missing", "hints"),
    {
        "sqs:SendMessage": ["SendMessage"],
        "sqs:CreateQueue": ["sqs:CreateQueue", "--reply-queue", "--no-wait"],
        "sqs:ReceiveMessage": ["sqs:ReceiveMessage"],
    }.items(),
)
def test_without_a_permission_that_is_needed_nothing_is_sent_and_one_line_names_it(
    command: Command, sqs: LocalSqs, queue_url: str, missing: str, hints: list[str]
) -> None:
    with sqs.enforce_iam(allowed(without=missing)) as environment:
        told = command(IMAGE, **environment)
    assert (told.code, told.out) == (2, "")
    assert len(told.err.splitlines()) == 1
    assert all(hint in told.err for hint in [*hints, "nothing was sent"])
    assert sqs.count(queue_url) == (0, 0)
    assert reply_queues(sqs) == []


@pytest.mark.parametrize("missing", ["sqs:GetQueueAttributes", "sqs:ListQueues"])
def test_without_permission_to_look_for_what_was_left_behind_nothing_is_said(
    command: Command, sqs: LocalSqs, queue_url: str, missing: str
) -> None:
    with sqs.enforce_iam(allowed(without=missing)) as environment, Answering(environment, queue_url):
        told = command(IMAGE, **environment)
    assert (told.code, told.err) == (0, "")


def test_a_queue_that_may_not_be_removed_is_named_and_does_not_change_the_ending(
    command: Command, sqs: LocalSqs, queue_url: str
) -> None:
    denied = allowed(without="sqs:DeleteQueue")
    with sqs.enforce_iam(denied) as environment, Answering(environment, queue_url):
        told = command(IMAGE, **environment)
    assert told.code == 0
    (url,) = reply_queues(sqs)
    assert f"the reply queue {url} is left behind" in told.out
    sqs._sqs.delete_queue(QueueUrl=url)
