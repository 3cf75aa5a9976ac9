"""Says what is wrong with how messages ended, looking only at the log, the engine and the dead letters."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lookout.model import Outcome
from tests.integration.crash_judge import DELETED
from tests.integration.fleet import Fleet
from tests.integration.running import Event
from tests.integration.traffic import Wish

LAID_ASIDE = "the message is sent to the dead-letter queue and deleted"
GOOD_ENDS = {Outcome.DEPLOYED, Outcome.UNCHANGED, Outcome.SUPERSEDED}


@dataclass(frozen=True)
class Judge:
    """Knows what was sent, what each Lookout has logged, in order, and when the queue got each message."""

    messages: Mapping[str, Wish]
    runs: Sequence[Sequence[Event]]
    sent: Mapping[str, int]

    def complaints(self, fleet: Fleet, dead_letters: Iterable[Mapping[str, Any]]) -> list[str]:
        """What is not as it must be in the end; empty if all is well."""
        found = [
            *self.of_ends(),
            *self.of_order(),
            *self.of_containers(fleet),
            *self.of_dead_letters(dead_letters),
            *self.of_surprises(),
        ]
        images = {wish.repository for wish in self.messages.values()} - {""}
        concerned = [image for image in images if any(text.startswith(f"{image}:") for text in found)]
        return found + [line for image in concerned for line in self._story(image)]

    def of_ends(self) -> Iterator[str]:
        """Where a message was not settled, or settled twice.

        One whose delete did not come through before the end of its Lookout is settled anew by the next;
        but nothing is done twice to a container.
        """
        for message, wish in self.messages.items():
            ends = [_ends(events, message) for events in self.runs]
            flat = [outcome for run in ends for outcome in run]
            touched = [outcome for outcome in flat if outcome not in (Outcome.UNCHANGED, Outcome.SUPERSEDED)]
            allowed = {Outcome.INVALID} if wish.is_garbage else GOOD_ENDS
            is_once = max(map(len, ends)) == 1 and (wish.is_garbage or len(touched) <= 1)
            if not is_once or not {*flat} <= allowed:
                yield f"{wish.repository or 'garbage'}: {message} ended {ends} in the runs"

    def of_order(self) -> Iterator[str]:
        """Where something older than what ran was deployed, or something was passed over for what is older."""
        known: defaultdict[str, dict[str, int]] = defaultdict(dict)  # what came so far, by image
        runs_from: defaultdict[str, int] = defaultdict(int)  # when what runs was sent
        for events in self.runs:
            confirmed: defaultdict[str, int] = defaultdict(int)  # by this Lookout, and known to it alone
            for event, message, image in self._of_images(events):
                moment, outcome = self.sent[message], event.get("outcome")
                known[image][message] = moment
                if outcome == Outcome.SUPERSEDED:
                    others = [other for name, other in known[image].items() if name != message]
                    if max(others, default=0) < moment:
                        yield f"{image}: {message} was passed over, and nothing newer had come"
                if outcome == Outcome.DEPLOYED:
                    if moment < max(runs_from[image], confirmed[image]):
                        yield f"{image}: {message} was deployed over something newer"
                    runs_from[image] = moment
                if outcome in (Outcome.DEPLOYED, Outcome.UNCHANGED):
                    confirmed[image] = max(confirmed[image], moment)

    def of_containers(self, fleet: Fleet) -> Iterator[str]:
        """Where something else runs in the end than what was asked for last."""
        found = fleet.runs()
        for image in fleet.repositories:
            tags = self.last_tags(image)
            now = found.pop(image, None)
            if now not in [fleet.expected(image, tag) for tag in tags]:
                yield f"{image}: {now}, and the last tags are {tags}"
        yield from (f"{name} is left over" for name in found)

    def of_dead_letters(self, letters: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """What is wrong with the queue of garbage, of which these are all messages."""
        laid_aside: defaultdict[str, set[str]] = defaultdict(set)
        for letter in letters:
            laid_aside[letter["MessageAttributes"]["MessageId"]["StringValue"]].add(letter["Body"])
        garbage = {message: {wish.body} for message, wish in self.messages.items() if wish.is_garbage}
        for message in garbage.keys() | laid_aside.keys():
            if laid_aside.get(message) != garbage.get(message):
                said = [body[:80] for body in laid_aside.get(message, ())]
                yield f"of {message}, {self.messages[message].body[:80]!a}, the dead letters are {said}"

    def of_surprises(self) -> Iterator[str]:
        """What Lookout itself calls bad. That it has no time left it may say once it was told to end."""
        for events in self.runs:
            is_ending = False
            for event in events:
                is_ending |= event["event"] == "stopping"
                if (event["level"] == "critical" and not is_ending) or "please report it" in event["event"]:
                    yield f"a surprise: {event}"

    def last_tags(self, image: str) -> set[str]:
        """The tag that was asked for last; several, if that was in one millisecond."""
        own = {message: wish.tag for message, wish in self.messages.items() if wish.repository == image}
        last = max(self.sent[message] for message in own)
        newest = {message for message in own if self.sent[message] == last}
        tags = {own[message] for message in newest}
        # That what runs was asked for once more is known only to the Lookout that found it unchanged. The
        # next one may take what was sent in between, and was lost until then, for newer than what runs.
        for number, events in enumerate(self.runs):
            if any(Outcome.UNCHANGED in _ends(events, message) for message in newest):
                later = [event for run in self.runs[number + 1 :] for event in run]
                deployed = {e["message_id"] for e in later if e.get("outcome") == Outcome.DEPLOYED}
                tags |= {own[message] for message in deployed & own.keys()}
        return tags

    def _of_images(self, events: Sequence[Event]) -> Iterator[tuple[Event, str, str]]:
        """The events of good messages, each with its message and image."""
        for event in events:
            message = event.get("message_id", "")
            if (wish := self.messages.get(message)) and not wish.is_garbage:
                yield event, message, wish.repository

    def _story(self, image: str) -> Iterator[str]:
        """All that is known of this image, for whoever must find out what went wrong."""
        for number, events in enumerate(self.runs, 1):
            for event, message, own in self._of_images(events):
                if own == image:
                    what = " ".join(
                        map(str, (event["event"], event.get("reason", ""), event.get("error", "")))
                    )
                    tag, sent = self.messages[message].tag, self.sent[message]
                    yield f"  run {number}: {message} for {tag}, sent {sent}: {what}"


def _ends(events: Sequence[Event], message: str) -> list[str]:
    """How this message ended for good."""
    return [
        str(event["outcome"])
        for event in events
        if event.get("message_id") == message and event.get("next") in (DELETED, LAID_ASIDE)
    ]
