"""What the user wants kept although it is equal to the old image's default.

Inspect does not tell who said such a value, and so it counts as the image's. The label `lookout.pin`
on the container names the exceptions: `lookout.pin=user,cmd,env:LEVEL,label:role,expose:8080/tcp`.

A pin keeps what is there now. It does not keep away what only the new image has: a variable, label
or port more than the old image had still comes with it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lookout.errors import CopyRefused
from lookout.model import Json
from lookout.names import name_of

LABEL = "lookout.pin"

_FIELDS = ("user", "workdir", "stop-signal", "entrypoint", "cmd", "healthcheck")
#: Words for all of several, and the word that names one of them.
_ALL = {"env": "env", "labels": "label", "expose": "expose"}
_ONE = {
    "env": re.compile(r"[^=]+"),
    "label": re.compile(r".+"),
    "expose": re.compile(r"\d+(?:-\d+)?(?:/(?:tcp|udp|sctp))?", re.IGNORECASE),
}
KNOWN = (*_FIELDS, *_ALL, "env:NAME", "label:KEY", "expose:PORT/PROTOCOL")
_EVERY = ""


@dataclass(frozen=True)
class Pins:
    """The parts of one container that are kept as they are."""

    words: frozenset[tuple[str, str]] = frozenset()
    remarks: tuple[str, ...] = ()  # words that name nothing of this container

    def keep(self, what: str, name: str = _EVERY) -> bool:
        """Whether this field is kept; of "env", "label" and "expose", whether this one of them is."""
        return (what, _EVERY) in self.words or (what, name) in self.words


NO_PINS = Pins()


def of(container: Json) -> Pins:
    """What the label on this container asks for.

    Raises CopyRefused for a word that means nothing: a misspelt pin must not lose what it was to keep.
    """
    label = (container["Config"].get("Labels") or {}).get(LABEL) or ""
    words = frozenset(_words(name_of(container), label))
    has = {(what, part) for what in _ALL.values() for part in _parts(container, what)}
    has |= {(what, _EVERY) for what, _ in has} | {(field, _EVERY) for field in _FIELDS}
    return Pins(
        words & has,
        tuple(
            f"{LABEL} names {_spelt(what, part)}, of which the container has none"
            for what, part in sorted(words - has)
        ),
    )


def port(text: str) -> str:
    """A port with its protocol, the way engines write it."""
    return (text if "/" in text else f"{text}/tcp").lower()


def _words(name: str, label: str) -> Iterator[tuple[str, str]]:
    for word in filter(None, map(str.strip, label.split(","))):
        keyword, colon, argument = (part.strip() for part in word.partition(":"))
        keyword = keyword.lower()
        if not colon and keyword in _FIELDS:
            yield keyword, _EVERY
        elif not colon and keyword in _ALL:
            yield _ALL[keyword], _EVERY
        elif colon and keyword in _ONE and _ONE[keyword].fullmatch(argument):
            yield keyword, port(argument) if keyword == "expose" else argument
        else:
            raise CopyRefused(
                f"the label {LABEL} of {name} has {word[:80]!a}, which names nothing to keep; "
                f"known are {', '.join(KNOWN)}"
            )


def _parts(container: Json, what: str) -> Iterable[str]:
    config = container["Config"]
    if what == "env":
        return (entry.partition("=")[0] for entry in config.get("Env") or [])
    if what == "label":
        return config.get("Labels") or {}
    if str(container["HostConfig"].get("NetworkMode") or "").startswith("container:"):
        return ()  # the ports are those of the container whose network it shares; to ask for one is refused
    return map(port, config.get("ExposedPorts") or {})


def _spelt(what: str, part: str) -> str:
    if part == _EVERY:
        return next(word for word, one in _ALL.items() if one == what)
    return f"{what}:{part[:80]}"
