"""The images that a container's predecessors ran: noted on it, since Lookout keeps no records."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lookout.model import Json
from lookout.names import REPLACED_IMAGES
from lookout.targets import Target

MOST = 50  # images that are noted at most: what is older is forgotten, and stays


@dataclass(frozen=True)
class Replaced:
    """An image that Lookout has replaced, and the tags by which the containers ran it."""

    id: str
    tags: frozenset[str]
    at: int  # when it was replaced last, seconds since the epoch


def history(targets: Sequence[Target], stale: Iterable[str], now: float) -> list[Replaced]:
    """What was replaced once the containers named in `stale` run another image or tag; the latest first.

    An image that goes on under another tag is in it too: one day its old tag is all that keeps it.
    """
    names = set(stale)
    going = [_replaced(target, now) for target in targets if target.name in names]
    return _merged([*_all_noted(targets), *going])[:MOST]


def noted(targets: Sequence[Target]) -> list[Replaced]:
    """What is noted on these containers, but for what they run now; the latest first."""
    running = {target.container["Image"] for target in targets}
    return [entry for entry in _merged(_all_noted(targets)) if entry.id not in running]


def _all_noted(targets: Sequence[Target]) -> list[Replaced]:
    return [entry for target in targets for entry in _noted(target.container)]


def to_label(replaced: Sequence[Replaced]) -> str:
    return json.dumps([[entry.id, sorted(entry.tags), entry.at] for entry in replaced])


def _replaced(target: Target, now: float) -> Replaced:
    tag = target.reference.tag if target.reference else None
    return Replaced(target.container["Image"], frozenset([tag] if tag else ()), int(now))


def _noted(container: Json) -> list[Replaced]:
    """What its label says; nothing where somebody has made it say something else."""
    label = (container["Config"].get("Labels") or {}).get(REPLACED_IMAGES)
    try:
        return [
            Replaced(str(image), frozenset(map(str, tags)), int(at))
            for image, tags, at in json.loads(label or "[]")
        ]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []


def _merged(entries: Iterable[Replaced]) -> list[Replaced]:
    """Each image once, the latest first."""
    merged: dict[str, Replaced] = {}
    for entry in entries:
        known = merged.get(entry.id, entry)
        merged[entry.id] = Replaced(entry.id, known.tags | entry.tags, max(known.at, entry.at))
    return sorted(merged.values(), key=lambda entry: -entry.at)
