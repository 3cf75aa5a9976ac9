"""The command `lookout`: nothing but this file prints, and only this file decides exit codes."""

import argparse
import asyncio
import sys
from importlib.metadata import version

import structlog

from lookout import log, settings
from lookout.app import PROMISED, Pace, run
from lookout.errors import WrongSettings

DONE, CRASHED, MISUSED = 0, 1, 2


def main(pace: Pace = PROMISED) -> int:
    """Run the daemon; the exit code is 0 after SIGTERM, 2 for wrong settings, 1 for anything else."""
    parser = argparse.ArgumentParser(
        prog="lookout",
        description="Redeploys Docker containers when a message on an SQS queue says so.",
        epilog="Settings are environment variables: at least SqsQueueUrl. See the README.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('lookout')}")
    parser.parse_args()
    try:
        chosen = settings.load()
        log.configure(chosen.log_level, chosen.log_format)
        asyncio.run(run(chosen, pace=pace))
    except WrongSettings as exc:
        for line in exc.lines:
            print(f"lookout: {line}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        return CRASHED
    except Exception:  # noqa: BLE001  the last line of defence: one log line, never a traceback
        structlog.stdlib.get_logger(__name__).critical("ended by an error; please report it", exc_info=True)
        return CRASHED
    return DONE
