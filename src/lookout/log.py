"""Logging: one event a line, with fields, on standard output."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from lookout.chosen import LogFormat, LogLevel


def configure(level: LogLevel, fmt: LogFormat, out: TextIO | None = None) -> None:
    """Write Lookout's events, and the warnings of the libraries below it, to `out`, else standard output.

    Libraries stay at warning at every level: their debug lines hold headers and credentials.
    """
    out = out or sys.stdout
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="backslashreplace", line_buffering=True)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if fmt is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=20, sort_keys=False)
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _traceback_on_one_line,
                renderer,
            ],
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    logging.getLogger("lookout").setLevel(level.upper())
    # The warnings of the first two show what a program for credentials has written; the third tells of
    # each stranger who sends no request that it understands.
    for noisy in ("botocore.credentials", "aiobotocore.credentials", "aiohttp.server"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _traceback_on_one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A traceback is a field like any other, so that an event stays one line."""
    if "exception" in event:
        event["traceback"] = event.pop("exception")
    return event
