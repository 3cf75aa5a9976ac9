"""The command `lookout`: only this file decides exit codes. Each command imports what it needs itself."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lookout.errors import LookoutError, WrongSettings
from lookout.model import ImageRef, Outcome, Reference, is_tag

if TYPE_CHECKING:
    from lookout.app import Pace

DONE, CRASHED, MISUSED = 0, 1, 2
#: Endings of a plan that are not for a script to go on with.
BAD_ENDINGS = (Outcome.FAILED, Outcome.NOT_HERE)


def main(pace: "Pace | None" = None) -> int:
    """Run the daemon, or another command; the exit code.

    It is 0 if all went well, 2 for wrong settings or arguments, else 1.

    `lookout plan` ends with 1 where the deploy would be refused, or would find no container, `lookout check`
    where it has found a problem, also with the settings.
    """
    arguments = parser().parse_args()
    try:
        match arguments.command:
            case "plan":
                return _plan(arguments)
            case "check":
                return _check()
        return _run(pace)
    except WrongSettings as exc:
        for line in exc.lines:
            print(f"lookout: {line}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        return CRASHED
    except Exception:  # noqa: BLE001  the last line of defence: one log line, never a traceback
        import structlog

        structlog.stdlib.get_logger(__name__).critical("ended by an error; please report it", exc_info=True)
        return CRASHED


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

    async def show() -> bool:
        problems = [findings.problem("settings", line) for line in wrong]
        for one in problems:
            _show(str(one))
        async for one in app.check(queue, engine):
            _show(str(one))
            problems += [one] if one.level is findings.Level.PROBLEM else []
        return not problems

    return DONE if asyncio.run(show()) else CRASHED


def _show(text: str) -> None:
    """Print for a reader that may stop reading, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end


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
    return lookout


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
