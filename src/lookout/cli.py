"""The command `lookout`: only this file decides exit codes. Each command imports what it needs itself."""

import asyncio
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lookout.errors import Interrupted, LookoutError, WrongSettings
from lookout.model import DeployRequest, Outcome

if TYPE_CHECKING:
    import argparse

    from lookout.app import Pace
    from lookout.screen import GitHub, Lines, Live
    from lookout.sender import Sender
    from lookout.settings import QueueSettings

DONE, CRASHED, MISUSED, UNANSWERED = 0, 1, 2, 3
FAILED = CRASHED
BY_SIGNAL = 128  # and its number, as shells have it
#: Endings of a plan that are not for a script to go on with.
BAD_ENDINGS = (Outcome.FAILED, Outcome.NOT_HERE)
#: By which option the value of a key of the message is given.
OPTIONS = {
    "ImageDigest": "--digest",
    "DeployTimeSeconds": "--deploy-time",
    "HostId": "--host-id",
    "ReplyQueueUrl": "--reply-queue",
}


def main(pace: "Pace | None" = None) -> int:
    """Run the daemon, or another command; the exit code.

    It is 0 if all went well, 2 for wrong settings or arguments, else 1.

    `lookout plan` ends with 1 where the deploy would be refused, or would find no container, `lookout check`
    where it has found a problem, also with the settings, `lookout deploy` where it ended badly; and that with 2
    where nothing was sent, and with 3 where no result came in time.
    """
    if not sys.argv[1:]:
        return _guarded("", lambda: _run(pace))
    from lookout.arguments import parser

    arguments = parser().parse_args()
    commands = {"plan": lambda: _plan(arguments), "check": _check, "deploy": lambda: _deploy(arguments)}
    return _guarded(arguments.command, commands.get(arguments.command, lambda: _run(pace)))


def _guarded(command: str, work: Callable[[], int]) -> int:
    try:
        return work()
    except WrongSettings as exc:
        for line in exc.lines:
            print(f"lookout: {line}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT if command == "deploy" else CRASHED
    except Exception:  # noqa: BLE001  the last line of defence: one log line, never a traceback
        import structlog

        if command == "deploy":  # its output is for results alone
            structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        structlog.stdlib.get_logger(__name__).critical("ended by an error; please report it", exc_info=True)
        return UNANSWERED if command == "deploy" else CRASHED


def _run(pace: "Pace | None") -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until there is something to stop. Process 1 of a container would not even hear of the former.
        signal.signal(number, _end_at_once)
    from lookout.reading import Reading

    reading = Reading()
    with _without("rich"):  # which structlog takes for tracebacks that Lookout never shows
        from lookout import app, log

    chosen = reading.settings()
    log.configure(chosen.log_level, chosen.log_format)
    asyncio.run(app.run(chosen, pace=pace or app.PROMISED))
    return DONE


def _end_at_once(*_: object) -> None:
    os._exit(DONE)  # an exception could be lost in the middle of an import


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let what is imported within, and would use this module, do without, as it does where there is none.

    For an import None says that there is none.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def _plan(arguments: "argparse.Namespace") -> int:
    if not (arguments.image or arguments.container):
        arguments.refuse("say IMAGE:TAG, or --container NAME, or both")
    from lookout import app, log, printout, settings
    from lookout.chosen import LogLevel

    chosen = settings.load_for_plan()
    log.configure(LogLevel.WARNING, chosen.log_format, sys.stderr)
    try:
        preview = asyncio.run(app.plan(chosen, arguments.image, arguments.container, pull=arguments.pull))
    except WrongSettings:
        raise
    except LookoutError as exc:
        print(f"lookout: {exc}", file=sys.stderr)
        return CRASHED
    _show(printout.as_json(preview) if arguments.json else printout.as_text(preview))
    return CRASHED if preview.report.outcome in BAD_ENDINGS else DONE


def _check() -> int:
    from lookout import app, findings, log, settings
    from lookout.chosen import LogFormat, LogLevel

    queue, engine, wrong = settings.load_for_check()
    log.configure(LogLevel.ERROR, LogFormat.TEXT, sys.stderr)

    async def show() -> findings.Summary:
        summary = findings.Summary()
        for line in wrong:
            _show(str(summary.counted(findings.problem("settings", line))))
        async for one in app.check(queue, engine):
            _show(str(summary.counted(one)))
        return summary

    summary = asyncio.run(show())
    _show(str(summary))
    return CRASHED if summary.problems else DONE


def _deploy(arguments: "argparse.Namespace") -> int:
    from lookout import sender, settings

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a log may hold characters that this terminal does not know
    chosen = settings.load_for_sending()
    request = _request(arguments, chosen)
    if fault := sender.fault(request, chosen.sqs_queue_url):
        key, _, rest = fault.partition(" ")
        arguments.refuse(f"{OPTIONS.get(key, key)} {rest}")
    if not (arguments.json or arguments.no_wait) and not _has_rich():
        _complain("the display needs rich: pip install rich, or use --json or --no-wait")
        return MISUSED
    screen = _screen(arguments)
    stop, watch = sender.Stop(), sender.Watch(screen, for_retries=arguments.wait_for_retries)
    sending = sender.Sender(chosen, request, stop, watch, screen)
    timeout = arguments.timeout or _usual_timeout(request, chosen)
    try:
        with screen:
            asyncio.run(sending.send() if arguments.no_wait else sending.deploy(timeout))
    except (Interrupted, sender.NotSent, sender.MaybeSent) as exc:
        return _give_up(arguments, sending, exc)
    if arguments.no_wait:
        return _tell_sent(arguments, sending)
    return _tell_verdict(arguments, sending, timeout)


def _request(arguments: "argparse.Namespace", chosen: "QueueSettings") -> DeployRequest:
    deploy_time = arguments.deploy_time
    # Lookout's own default is as good as that of a sender who has not been told any.
    if deploy_time is None and "deploy_time_seconds" in chosen.model_fields_set:
        deploy_time = chosen.deploy_time_seconds
    return DeployRequest(
        arguments.image, arguments.digest, deploy_time, arguments.host_id, arguments.reply_queue
    )


def _usual_timeout(request: DeployRequest, chosen: "QueueSettings") -> float:
    """Time for a deploy that takes twice as long as expected, and that has not begun at once."""
    from lookout.arguments import LONGEST_TIMEOUT

    return min(LONGEST_TIMEOUT, 2 * (request.deploy_time or chosen.deploy_time_seconds) + 60)


def _has_rich() -> bool:
    from importlib.util import find_spec

    return find_spec("rich") is not None


def _screen(arguments: "argparse.Namespace") -> "Lines | GitHub | Live":
    from lookout.screen import GitHub, Lines, Live, Say

    if arguments.no_wait:
        return Lines(lambda _: None)
    title = f"deploy of {arguments.image}"
    say: Say = _show_beside if arguments.json else _show
    if _is_in_github():
        return GitHub(say, title)
    return Live(title) if _is_on_a_terminal() and not arguments.json else Lines(say)


def _is_in_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _is_on_a_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _give_up(arguments: "argparse.Namespace", sending: "Sender", problem: LookoutError) -> int:
    from lookout.sender import MaybeSent

    text = str(problem)
    if isinstance(problem, Interrupted):
        gone_on = f"message {sending.message_id} is sent, and the deploy goes on without anybody watching"
        text = f"interrupted: {gone_on if sending.message_id else 'nothing was sent'}"
    _complain(text)
    if sending.stop.signal:
        return BY_SIGNAL + sending.stop.signal
    _annotate(arguments, "not sent", text)
    return UNANSWERED if isinstance(problem, MaybeSent) else MISUSED


def _tell_sent(arguments: "argparse.Namespace", sending: "Sender") -> int:
    from lookout import verdict

    _show(verdict.sent_as_json(sending.message_id, arguments.image) if arguments.json else sending.message_id)
    return DONE


def _tell_verdict(arguments: "argparse.Namespace", sending: "Sender", timeout: float) -> int:
    from lookout import printable, verdict

    watch = sending.watch
    reason = sending.trouble or f"no answer within {timeout:g} s"
    told = verdict.Verdict(
        sending.message_id, arguments.image, watch.result, watch.progress, reason, _hint(arguments)
    )
    if arguments.json:
        if not _show(verdict.as_json(told)):
            return UNANSWERED
    else:
        lines = verdict.as_lines(told, terminal=_is_on_a_terminal())
        for line in printable.fenced(lines) if _is_in_github() else lines:
            _show(line)
    code = UNANSWERED if watch.result is None else DONE if told.is_good else FAILED
    if code != DONE:
        _annotate(arguments, told.ending, told.explanation)
    return code


def _hint(arguments: "argparse.Namespace") -> str:
    if arguments.host_id:
        return f"does a Lookout with the HostId {arguments.host_id!a} run?"
    return "does one run on this queue, and may it send to lookout-reply-*? See `lookout check` there"


def _annotate(arguments: "argparse.Namespace", ending: str, text: str) -> None:
    from lookout import printable

    if _is_in_github():
        say = _show_beside if arguments.json else _show
        say(printable.error(f"deploy of {arguments.image}: {ending.replace('_', ' ')}", text))


def _complain(text: str) -> None:
    _show_beside(f"lookout: {text}")


def _show_beside(text: str) -> None:
    """Where programs that read the output do not look."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _show(text: str) -> bool:
    """Print for a reader that may stop reading, as `head` does, or for a terminal that may be gone.

    False, with a complaint, where there is no room for it.
    """
    try:
        print(text, flush=True)
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
        if exc.errno == errno.ENOSPC:
            _complain(f"cannot write: {exc.strerror}")
            return False
    return True
