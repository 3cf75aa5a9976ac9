"""The command `lookout`: only this file decides exit codes. Each command imports what it needs itself."""

import argparse
import asyncio
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lookout.errors import Interrupted, LookoutError, WrongSettings
from lookout.model import DeployRequest, ImageRef, Outcome, Reference, is_tag

if TYPE_CHECKING:
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
#: Longer than any wait: the message may be hidden on the queue for so long.
LONGEST_TIMEOUT = 43200  # seconds


def main(pace: "Pace | None" = None) -> int:
    """Run the daemon, or another command; the exit code.

    It is 0 if all went well, 2 for wrong settings or arguments, else 1.

    `lookout plan` ends with 1 where the deploy would be refused, or would find no container, `lookout check`
    where it has found a problem, also with the settings, `lookout deploy` where it ended badly; and that with 2
    where nothing was sent, and with 3 where no result came in time.
    """
    arguments = parser().parse_args()
    try:
        match arguments.command:
            case "plan":
                return _plan(arguments)
            case "check":
                return _check()
            case "deploy":
                return _deploy(arguments)
        return _run(pace)
    except WrongSettings as exc:
        for line in exc.lines:
            print(f"lookout: {line}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT if arguments.command == "deploy" else CRASHED
    except Exception:  # noqa: BLE001  the last line of defence: one log line, never a traceback
        import structlog

        if arguments.command == "deploy":  # its output is for results alone
            structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        structlog.stdlib.get_logger(__name__).critical("ended by an error; please report it", exc_info=True)
        return UNANSWERED if arguments.command == "deploy" else CRASHED


def _run(pace: "Pace | None") -> int:
    from lookout import app, log, settings

    chosen = settings.load()
    log.configure(chosen.log_level, chosen.log_format)
    asyncio.run(app.run(chosen, pace=pace or app.PROMISED))
    return DONE


def _plan(arguments: argparse.Namespace) -> int:
    if not (arguments.image or arguments.container):
        arguments.refuse("say IMAGE:TAG, or --container NAME, or both")
    from lookout import app, log, printout, settings

    chosen = settings.load_for_plan()
    log.configure(settings.LogLevel.WARNING, chosen.log_format, sys.stderr)
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

    queue, engine, wrong = settings.load_for_check()
    log.configure(settings.LogLevel.ERROR, settings.LogFormat.TEXT, sys.stderr)

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


def _deploy(arguments: argparse.Namespace) -> int:
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
        _complain("the display needs rich: pip install 'lookout[cli]', or use --json or --no-wait")
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


def _request(arguments: argparse.Namespace, chosen: "QueueSettings") -> DeployRequest:
    deploy_time = arguments.deploy_time
    # Lookout's own default is as good as that of a sender who has not been told any.
    if deploy_time is None and "deploy_time_seconds" in chosen.model_fields_set:
        deploy_time = chosen.deploy_time_seconds
    return DeployRequest(
        arguments.image, arguments.digest, deploy_time, arguments.host_id, arguments.reply_queue
    )


def _usual_timeout(request: DeployRequest, chosen: "QueueSettings") -> float:
    """Time for a deploy that takes twice as long as expected, and that has not begun at once."""
    return min(LONGEST_TIMEOUT, 2 * (request.deploy_time or chosen.deploy_time_seconds) + 60)


def _has_rich() -> bool:
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def _screen(arguments: argparse.Namespace) -> "Lines | GitHub | Live":
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


def _give_up(arguments: argparse.Namespace, sending: "Sender", problem: LookoutError) -> int:
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


def _tell_sent(arguments: argparse.Namespace, sending: "Sender") -> int:
    from lookout import verdict

    _show(verdict.sent_as_json(sending.message_id, arguments.image) if arguments.json else sending.message_id)
    return DONE


def _tell_verdict(arguments: argparse.Namespace, sending: "Sender", timeout: float) -> int:
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


def _hint(arguments: argparse.Namespace) -> str:
    if arguments.host_id:
        return f"does a Lookout with the HostId {arguments.host_id!a} run?"
    return "does one run on this queue, and may it send to lookout-reply-*? See `lookout check` there"


def _annotate(arguments: argparse.Namespace, ending: str, text: str) -> None:
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


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    lookout = argparse.ArgumentParser(
        prog="lookout",
        description="Redeploys Docker containers when a message on an SQS queue says so.",
        epilog="Settings are environment variables: at least SqsQueueUrl. See the README.",
    )
    lookout.add_argument("--version", action=_Version, nargs=0, help="show the version, and end")
    commands = lookout.add_subparsers(dest="command", metavar="COMMAND", help="without one, the daemon runs")
    commands.add_parser(
        "check",
        help="see that all is set up",
        description="Looks whether the settings, the queue, the engine and the registries are as the daemon "
        "needs them, and changes nothing. Exit code 1 means that there is a problem.",
    )
    plan = commands.add_parser(
        "plan",
        help="show what a deploy would do, and change nothing",
        description="Shows what a deploy of IMAGE:TAG would do on this engine, and changes nothing. "
        "Exit code 1 means that it would be refused, or would find no container.",
    )
    plan.add_argument("image", nargs="?", type=_image, metavar="IMAGE:TAG")
    plan.add_argument(
        "--container", metavar="NAME", help="only this one; without IMAGE:TAG, onto the tag that it has"
    )
    plan.add_argument("--json", action="store_true", help="for programs")
    plan.add_argument("--pull", action="store_true", help="pull the image first, as a deploy does")
    plan.set_defaults(refuse=plan.error)
    _add_deploy(commands)
    return lookout


def _add_deploy(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    deploy = commands.add_parser(
        "deploy",
        help="ask for a deploy, and wait for its result",
        description="Sends the message that asks for a deploy of IMAGE:TAG, shows how far it is, and how it ended. "
        "Exit code 0: the image runs, or a newer one was asked for, or nothing was to be done; 1: it was not deployed; "
        "2: nothing was sent; 3: no answer in time.",
    )
    deploy.add_argument("image", type=_image, metavar="IMAGE:TAG")
    deploy.add_argument("--digest", metavar="DIGEST", help="exactly this image: sha256 and 64 hex digits")
    deploy.add_argument("--deploy-time", type=int, metavar="SECONDS", help="how long it is expected to take")
    deploy.add_argument("--host-id", metavar="ID", help="only the Lookout with this HostId deploys it")
    deploy.add_argument("--timeout", type=_timeout, metavar="SECONDS", help="how long to wait for the result")
    waiting = deploy.add_mutually_exclusive_group()
    waiting.add_argument("--no-wait", action="store_true", help="only send, and print the id of the message")
    waiting.add_argument(
        "--wait-for-retries", action="store_true", help="wait on where it failed and will be tried again"
    )
    deploy.add_argument("--reply-queue", metavar="URL", help="get the result there, rather than make a queue")
    deploy.add_argument("--json", action="store_true", help="for programs")
    deploy.set_defaults(refuse=deploy.error)


class _Version(argparse.Action):
    """Looks for the version only where it is asked for: that takes as long as all the rest."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _: argparse.Namespace,
        __: str | Sequence[Any] | None,
        ___: Any = None,
    ) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('lookout')}")
        parser.exit()


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f"{text[:80]!a} is not a number of seconds above 0 and up to {LONGEST_TIMEOUT}"
        )
    return seconds


def _image(text: str) -> ImageRef:
    reference = Reference.parse(text)
    if (
        ":" not in text.rpartition("/")[2]
        or reference is None
        or reference.tag is None
        or reference.digest
        or not is_tag(reference.tag)
    ):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!a} is not an image with a tag, such as ghcr.io/acme/api:42"
        )
    return ImageRef(reference.name, reference.tag)
