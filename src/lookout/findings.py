"""What `lookout check` finds: each a line that names the thing, and the next step where one is needed."""

from dataclasses import dataclass
from enum import StrEnum

from lookout.printable import discreet


class Level(StrEnum):
    """How bad it is; only a problem keeps Lookout from its work."""

    OK = "ok"
    REMARK = "remark"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what is to be done about it."""

    level: Level
    about: str
    text: str
    next_step: str = ""

    def __str__(self) -> str:
        """On one line, as it is shown."""
        said = f"{self.text}; {self.next_step}" if self.next_step else self.text
        return f"{self.level:<8} {self.about}: {discreet(said)}"


@dataclass
class Summary:
    """How many of what was found need a person."""

    problems: int = 0
    remarks: int = 0

    def counted(self, finding: Finding) -> Finding:
        self.problems += finding.level is Level.PROBLEM
        self.remarks += finding.level is Level.REMARK
        return finding

    def __str__(self) -> str:
        counts = ((self.problems, "problem"), (self.remarks, "remark"))
        told = [f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count]
        return ", ".join(told) or "all is well"


def ok(about: str, text: str) -> Finding:
    return Finding(Level.OK, about, text)


def remark(about: str, text: str, next_step: str = "") -> Finding:
    return Finding(Level.REMARK, about, text, next_step)


def problem(about: str, text: str, next_step: str = "") -> Finding:
    return Finding(Level.PROBLEM, about, text, next_step)
