"""One event a line, whatever the fields hold."""

import io
import json
import logging

import pytest
import structlog

from lookout.chosen import LogFormat, LogLevel
from lookout.log import configure


@pytest.fixture(params=LogFormat)
def out(request: pytest.FixtureRequest) -> io.StringIO:
    out = io.StringIO()
    configure(LogLevel.INFO, request.param, out)
    return out


def test_an_event_is_one_line_even_with_line_feeds_and_tracebacks(out: io.StringIO) -> None:
    log = structlog.stdlib.get_logger("lookout.test")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("deploying", image="a\nb", reason="half a character: \ud800")
    assert out.getvalue().count("\n") == 1
    assert "ValueError" in out.getvalue()


def test_events_below_the_level_are_not_written(out: io.StringIO) -> None:
    structlog.stdlib.get_logger("lookout.test").debug("received", body="...")
    assert out.getvalue() == ""


def test_libraries_are_heard_from_warning_on_and_in_the_same_form(out: io.StringIO) -> None:
    logging.getLogger("botocore.auth").debug("the signature and the key")
    logging.getLogger("aiohttp").warning("a connection was not closed")
    assert "signature" not in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_json_has_the_documented_keys() -> None:
    out = io.StringIO()
    configure(LogLevel.DEBUG, LogFormat.JSON, out)
    structlog.stdlib.get_logger("lookout.test").info("deployed", outcome="deployed", seconds=1.5)
    event = json.loads(out.getvalue())
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "deployed", "level": "info", "outcome": "deployed", "seconds": 1.5}
