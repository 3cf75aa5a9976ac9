"""What the command line may say."""

import argparse
from collections.abc import Sequence
from typing import Any

from lookout.model import ImageRef, Reference, is_tag

#: Longer than any wait: the message may be hidden on the queue for so long.
LONGEST_TIMEOUT = 43200  # seconds


def parser() -> argparse.ArgumentParser:
    """Of `lookout` and each of its commands."""
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
        ___: object = None,
    ) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('lookout-sqs')}")
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
