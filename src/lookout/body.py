"""A JSON object as a message brings it: keys without regard to case, faults without its values."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from lookout.errors import InvalidBody

_LONGEST_INT = 18  # digits: more need no exact value, and Python is slow to read them


@dataclass(frozen=True)
class Body:
    """A JSON object. No fault quotes a value or a key of a stranger: either may be a secret."""

    values: Mapping[str, Any]  # by keys in lower case
    twice: frozenset[str] = frozenset()  # keys that were given more than once
    called: Callable[[str], str] = field(default=str)  # the sender's name of a key

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """Read JSON; raises InvalidBody that begins with `what` where it is not an object."""
        try:
            value = json.loads(
                text, object_pairs_hook=cls._of_pairs, parse_int=_number, parse_constant=_not_json
            )
        except (ValueError, RecursionError):
            raise InvalidBody(
                f'{what} is not JSON; expected {{"ImageName": "ghcr.io/acme/api", "ImageTag": "42"}}'
            ) from None
        if not isinstance(value, cls):
            raise InvalidBody(f"{what} is {kind(value)}; expected a JSON object with ImageName and ImageTag")
        return value

    @classmethod
    def _of_pairs(cls, pairs: list[tuple[str, Any]]) -> Self:
        counts = Counter(key.lower() for key, _ in pairs)
        twice = frozenset(key for key, count in counts.items() if count > 1)
        return cls({key.lower(): value for key, value in pairs}, twice)

    def __contains__(self, key: str) -> bool:
        return key.lower() in self.values

    def get(self, key: str) -> Any:
        """The value, or None; raises InvalidBody where the key is given twice: that would be a guess."""
        if key.lower() in self.twice:
            raise self.wrong(key, "is given twice", "it once")
        return self.values.get(key.lower())

    def text(self, key: str, expected: str) -> str:
        """The value, which must be there and a string."""
        value = self.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, self._is(key), expected)
        return value

    def part(self, key: str, expected: str) -> "Body":
        """The value, which must be there and an object; its keys are told by their path."""
        value = self.get(key)
        if not isinstance(value, Body):
            raise self.wrong(key, self._is(key), expected)
        return replace(value, called=lambda inner: f"{key}.{inner}")

    def _is(self, key: str) -> str:
        return f"is {kind(self.get(key))}" if key in self else "is missing"

    def wrong(self, key: str, fault: str, expected: str) -> InvalidBody:
        """What is to be raised of a key: its name, what is wrong with it, and what would be right."""
        return InvalidBody(f"{self.called(key)} {fault}; expected {expected}")


def kind(value: object) -> str:
    """What a JSON value is, without the value."""
    names = {
        Body: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INT else float(digits)


def _not_json(constant: str) -> None:
    """Python reads NaN and Infinity; JSON has no such numbers."""
    raise ValueError(constant)
