"""Which containers a message means: pure decisions over inspected containers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lookout.model import DeployRequest, ImageName, ImageRef, Json, Origin, Outcome, Reference, Report
from lookout.names import (
    MESSAGE_GROUP_ID,
    MESSAGE_ID,
    SENT_TIMESTAMP,
    is_leftover_name,
    name_of,
    reference_of,
)

#: The user's word on whether Lookout may replace this container.
ENABLE = "lookout.enable"
_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")

CLOCK_SKEW = 86400.0  # seconds by which the clock of SQS may be ahead of this machine's
_NUMBER = re.compile(r"[0-9]{1,30}")

SWARM_LABELS = ("com.docker.swarm.task.id", "com.docker.swarm.service.id")


@dataclass(frozen=True)
class Target:
    """A container of the image, and what its reference says."""

    container: Json
    reference: Reference | None  # None where it was created from an image id
    left_alone: str = ""  # why Lookout does not replace it

    @property
    def id(self) -> str:
        return str(self.container["Id"])

    @property
    def name(self) -> str:
        return name_of(self.container)

    def runs(self, image: ImageRef, image_id: str) -> bool:
        """Whether it runs this very image under this very tag."""
        if self.container["Image"] != image_id:
            return False
        return self.reference is None or self.reference.tag in (None, image.tag)

    def is_tagged(self, tag: str) -> bool:
        """Whether it was created from this tag, whatever that meant then."""
        return self.reference is not None and self.reference.tag == tag

    @property
    def origin(self) -> Origin | None:
        """The message that it came from; None where its labels do not say."""
        labels = self.container["Config"].get("Labels") or {}
        sent = labels.get(SENT_TIMESTAMP, "")
        if not _NUMBER.fullmatch(sent):
            return None
        return Origin(labels.get(MESSAGE_ID, ""), int(sent), labels.get(MESSAGE_GROUP_ID, ""))

    def spell(self, image: ImageRef) -> str:
        """The new reference, its repository written as it was when the container was created."""
        return f"{self.reference.spelling if self.reference else image.name}:{image.tag}"


def match(
    container: Json,
    image: Json | None,
    wanted: ImageName,
    own_id: str | None,
    *,
    require_label: bool = False,
) -> Target | None:
    """The container as a target if it is one of `wanted`.

    By the reference it was created from, which stays true when the tag moves on. One that was
    created from an image id belongs to the repository of that image, given as `image`; where the
    image has several of them, nothing tells which one was meant, and it is left alone.
    """
    why = why_left_alone(container, own_id, require_label)
    if created_from_id(container):
        names = repositories(image or {})
        if len(names) > 1:
            listed = ", ".join(sorted(map(str, names)))
            why = why or f"was created from an image id, and that image has several names: {listed}"
        return Target(container, None, why) if wanted in names else None
    reference = Reference.parse(reference_of(container))
    if reference is None or reference.name != wanted:
        return None
    return Target(container, reference, why)


def overtaken(targets: Sequence[Target], request: DeployRequest, now: float) -> Report | None:
    """How a message ends that has come late: after a newer one, or after its own deploy; None if neither.

    A container that claims to come from the future, seconds since the epoch by the clock of this machine,
    holds up nothing: such a label was made by hand, or by a clock that was wrong.
    """
    managed, origin = [target for target in targets if not target.left_alone], request.origin
    if origin is None or not managed:
        return None
    for target in managed:
        other = target.origin
        if other and other.is_newer_than(origin) and other.sent_timestamp / 1000 < now + CLOCK_SKEW:
            reason = f"{target.name} came from a message that was sent later ({other.message_id})"
            return Report(Outcome.SUPERSEDED, reason)
    if any(target.origin == origin for target in managed) and all(
        target.origin == origin or target.is_tagged(request.image.tag) for target in managed
    ):
        reason = "the containers came from this very message"
        return Report(Outcome.UNCHANGED, reason, ended_before=Outcome.DEPLOYED)
    return None


def created_from_id(container: Json) -> bool:
    """Whether it was created from an image id, whole or shortened, rather than from a name."""
    text = reference_of(container)
    digits = text.removeprefix("sha256:")
    return text.startswith("sha256:") or (
        re.fullmatch(r"[0-9a-f]{4,64}", digits) is not None
        and container["Image"].removeprefix("sha256:").startswith(digits)
    )


def repositories(image: Json) -> set[ImageName]:
    """Those that an inspected image has names of."""
    texts = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
    return {reference.name for text in texts if (reference := Reference.parse(text))}


def why_left_alone(container: Json, own_id: str | None, require_label: bool) -> str:
    """Why Lookout does not touch this container now, to be read after its name; empty where it may."""
    if is_leftover_name(name_of(container)) and container["Id"] != own_id:
        return "is what an interrupted swap has left over"
    if why := why_not_managed(container, own_id, require_label):
        return why
    return "is paused" if container["State"].get("Paused") else ""


def why_not_managed(container: Json, own_id: str | None, require_label: bool) -> str:
    """Why Lookout never touches this container as it is, in the same words."""
    labels = container["Config"].get("Labels") or {}
    if container["Id"] == own_id:
        return "is Lookout itself"
    if any(label in labels for label in SWARM_LABELS):
        return "is a Swarm task"
    return _not_enabled(labels.get(ENABLE), require_label)


def _not_enabled(value: str | None, require_label: bool) -> str:
    if value is None:
        return f"is not labelled {ENABLE}=true, which RequireLabel asks for" if require_label else ""
    allowed = switch(value)
    if allowed is None:
        return f"is labelled {ENABLE}={value[:40]!a}: expected true or false"
    return "" if allowed else f"is labelled {ENABLE}=false"


def switch(value: str) -> bool | None:
    """What the value of a label says: yes, no, or neither."""
    word = value.strip().lower()
    return True if word in _YES else False if word in _NO else None
