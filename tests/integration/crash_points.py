"""The moments at which something can die: just before and just after each call to the engine."""

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_plus

from testbed.faultproxy import When

#: Which points a run takes: all, those next to steps, or else a sample of those.
TAKEN = os.environ.get("LOOKOUT_TEST_CRASH", "sample")
IS_SAMPLE = TAKEN == "sample"
#: A whole matrix is taken in so many tests, which may run side by side.
PARTS = 1 if IS_SAMPLE else 4

#: The calls that change something: next to these most can go wrong.
STEP = re.compile(r"^(POST /(containers|networks)/|PUT |DELETE )")
_READ = re.compile(r"^(GET|HEAD) ")

_VERSION = re.compile(r"^(\w+) /v\d+\.\d+/")
_ID = re.compile(r"\b[0-9a-f]{64}\b")
_TOKENS = (
    (re.compile(r"\bsha256:<[^>]*>"), "<image>"),
    (re.compile(r"(?<=\.lookout-)(new|old|done|rb)\.[0-9a-f]{12}\b"), r"\1"),
    (re.compile(r'(?<=lookout\.swap\.by=)[^"&]*'), "<me>"),
    (re.compile(r"\b\d{9,}(\.\d+)?\b"), "<time>"),
)


@dataclass(frozen=True)
class Point:
    """Just before or just after the nth call of this line; the line is the same in every run."""

    when: When
    line: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.line}" + (f" (no. {self.nth})" if self.nth > 1 else "")

    @property
    def is_step(self) -> bool:
        """Whether the call changes something."""
        return bool(STEP.search(self.line))

    @property
    def may_be_missed(self) -> bool:
        """A look that is repeated until something has happened is repeated less often now and then."""
        return self.nth > 1 and bool(_READ.search(self.line))

    @property
    def draw(self) -> int:
        """A number that is as good as random, and the same in every run."""
        return zlib.crc32(str(self).encode())


class Lines:
    """Tells the line of a request without what is another in each run.

    `ids` are the ids of containers that are known by a word; `words` what else is to be replaced.
    """

    def __init__(self, ids: Mapping[str, str], words: Mapping[str, str]) -> None:
        self._ids = ids
        self._words = words

    def __call__(self, request: str) -> str:
        line = _VERSION.sub(r"\1 /", unquote_plus(request))
        for text, word in self._words.items():
            line = line.replace(text, word)
        line = _ID.sub(lambda found: f"<{self._ids.get(found[0], 'new')}>", line)
        for pattern, word in _TOKENS:
            line = pattern.sub(word, line)
        return line


def points(lines: Iterable[str], whens: Sequence[When] = ("before", "after")) -> list[Point]:
    """Every point of a run that made these calls, in their order."""
    seen: Counter[str] = Counter()
    found = []
    for line in lines:
        seen[line] += 1
        found += [Point(when, line, seen[line]) for when in whens]
    return found


def steps(every: Iterable[Point]) -> list[Point]:
    return [point for point in every if point.is_step]


def kills(every: Iterable[Point]) -> list[Point]:
    """Each state in which a kill between two steps finds the engine, once.

    Who is killed just before a step has done no other than who is killed just after the one before it.
    """
    first, *others = steps(every)
    return [first, *(point for point in others if point.when == "after")]


def states(every: Iterable[Point]) -> list[Point]:
    """Without those after a look, for one to whom it makes no difference whether that was answered."""
    return [point for point in every if point.is_step or point.when == "before"]


def sample(every: Iterable[Point], count: int) -> list[Point]:
    """A few of them, which are the same in every run."""
    return sorted(every, key=lambda point: point.draw)[:count]


def part(every: Sequence[Point], number: int, of: int) -> list[Point]:
    """One of so many parts; a point is always in the same one, even where the calls vary a little."""
    return [point for point in every if point.draw % of == number]


def taken(every: Sequence[Point], count: int, number: int = 0, of: int = 1) -> list[Point]:
    """The points that this run takes of these, `count` in a sample, or one of so many parts of them."""
    if TAKEN == "all":
        return part(every, number, of)
    return part(steps(every) if TAKEN == "steps" else sample(steps(every), count), number, of)
