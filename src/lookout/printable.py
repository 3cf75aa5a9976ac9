"""Text of others, made safe to be shown: it can neither steer a terminal nor issue commands to GitHub Actions."""

import re
import secrets
from collections.abc import Iterator

_KEPT = "\n\t"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# What stands before the @ of an address is a secret.
_USER = re.compile(r"//[^/@\s]*@")


def printable(text: str) -> str:
    """With a mark in place of each character that a terminal would act upon."""
    lines = text.replace("\r\n", "\n")
    return "".join(char if char.isprintable() or char in _KEPT else _UNKNOWN for char in lines)


def one_line(text: str) -> str:
    """The same, without lines of its own."""
    return " ".join(printable(text).split())


def discreet(text: str, *, longest: int | None = None) -> str:
    """On one line of so many characters at most, without what stands before the @ of an address; fit for a log."""
    return _USER.sub("//…@", " ".join(text.split()))[:longest]


def group(title: str) -> str:
    """GitHub: what follows can be folded away, until `END_GROUP`."""
    return f"::group::{_data(title)}"


END_GROUP = "::endgroup::"


def error(title: str, text: str) -> str:
    """GitHub: an annotation of the run."""
    return f"::error title={_property(title)}::{_data(text)}"


class Fence:
    """GitHub: between `begin` and `end` nothing is taken for a command, since nobody can guess the token."""

    def __init__(self) -> None:
        token = secrets.token_hex(16)
        self.begin = f"::stop-commands::{token}"
        self.end = f"::{token}::"


def fenced(lines: Iterator[str]) -> Iterator[str]:
    """The lines between the two ends of a fence."""
    fence = Fence()
    yield fence.begin
    yield from lines
    yield fence.end


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
