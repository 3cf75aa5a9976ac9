"""What the person sees."""

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UNSAID = ("timestamp", "level", "event", "message_id", "outcome", "logger", "next")
UNSHOWN = ("managing",)  # names all containers of the engine, which may be the person's
COLORS = {"warning": "33", "error": "31", "critical": "31", "sent": "36", "answer": "32", "dim": "2"}
WIDTH = 34


@dataclass(frozen=True)
class Step:
    """What was expected and what was seen; the same words mean that it went well."""

    name: str
    expected: str
    seen: str

    @property
    def ok(self) -> bool:
        return self.expected == self.seen


def say(who: str, text: str, color: str = "") -> None:
    """One line: who does something, and what."""
    print(_colored(f"{who:>8}  {text}", color), flush=True)


def heading(text: str) -> None:
    print(f"\n{_colored(text, '1')}", flush=True)


def show_event(event: dict[str, Any]) -> None:
    """One line of Lookout's log, without what a person can do without."""
    if event["event"] in UNSHOWN:
        return
    # Settings, which the first line shows, are the fields with capitals.
    fields = [f"{name}={value}" for name, value in event.items() if name not in UNSAID and name.islower()]
    say("lookout", "  ".join([str(event["event"]), *fields]), COLORS.get(str(event["level"]), COLORS["dim"]))


def table(steps: Sequence[Step]) -> None:
    """Step, expected, seen, ok."""
    rows = [("step", "expected", "seen", "ok")]
    rows += [(step.name, step.expected, step.seen, "yes" if step.ok else "NO") for step in steps]
    for i, row in enumerate(rows):
        cells = [textwrap.wrap(cell, WIDTH) for cell in row[:3]] + [[row[3]]]
        for line in range(max(map(len, cells))):
            parts = [cell[line] if line < len(cell) else "" for cell in cells]
            print("  ".join(f"{part:{WIDTH}}" for part in parts).rstrip())
        if i == 0:
            print("  ".join(["-" * WIDTH] * 3 + ["--"]))


def _colored(text: str, color: str) -> str:
    return f"\033[{color}m{text}\033[0m" if color and sys.stdout.isatty() else text
