"""The nouns that travel from the queue to the engine and back."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

Json = dict[str, Any]

DEFAULT_DOMAIN = "docker.io"
LIBRARY = "library/"
LONGEST_NAME = 255  # characters of an image's name, with its domain
LONGEST_DEPLOY_TIME = 28800  # seconds: well inside the twelve hours that SQS lets us hold a message

# Grammar of references: github.com/distribution/reference, the package that Docker itself uses.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])"
_NAME = re.compile(rf"(?:(?P<domain>{_HOST}(?::[0-9]+)?)/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_IMAGE_ID = re.compile(r"(?:sha256:)?[a-f0-9]{64}")


@dataclass(frozen=True, order=True)
class ImageName:
    """A repository by its canonical name: `redis` and `docker.io/library/redis` are equal."""

    domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name without tag or digest; raises ValueError for anything else."""
        first, slash, rest = text.partition("/")
        if not slash or not _is_domain(first):
            first, rest = DEFAULT_DOMAIN, text
        elif first == "index.docker.io":
            first = DEFAULT_DOMAIN
        if first == DEFAULT_DOMAIN and "/" not in rest:
            rest = LIBRARY + rest
        canonical = f"{first}/{rest}"
        too_long = len(canonical) > LONGEST_NAME
        if too_long or not _NAME.fullmatch(canonical) or _IMAGE_ID.fullmatch(text):
            raise ValueError(f"{text[:80]!a} is not a repository name")
        return cls(first, rest)

    def __str__(self) -> str:
        """The shortest spelling that means it: `redis`, `acme/api`, `ghcr.io/acme/api`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.canonical
        spellings = (self.path.removeprefix(LIBRARY), self.path)
        return next(filter(self._is_spelled, spellings), self.canonical)

    def _is_spelled(self, spelling: str) -> bool:
        """Not so of `library/a/b` as `a/b`, nor of a path that begins like a domain."""
        try:
            return self.parse(spelling) == self
        except ValueError:
            return False

    @property
    def canonical(self) -> str:
        return f"{self.domain}/{self.path}"


def _is_domain(component: str) -> bool:
    return any(c in component for c in ".:") or component == "localhost" or component != component.lower()


@dataclass(frozen=True)
class ImageRef:
    """A repository and a tag."""

    name: ImageName
    tag: str

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"

    @property
    def canonical(self) -> str:
        return f"{self.name.canonical}:{self.tag}"


@dataclass(frozen=True)
class Reference:
    """What `Config.Image` of a container says: a name with tag and/or digest, or an image id."""

    spelling: str  # the repository just as it was written
    name: ImageName
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read any image reference; None where it is an image id or not a reference."""
        if text.startswith("sha256:"):
            return None
        rest, _, digest = text.partition("@")
        head, colon, tag = rest.rpartition(":")
        if not colon or "/" in tag:
            head, tag = rest, ""
        try:
            return cls(head, ImageName.parse(head), tag or (None if digest else "latest"), digest or None)
        except ValueError:
            return None


def is_tag(text: str) -> bool:
    return bool(_TAG.fullmatch(text))


def is_registry(text: str) -> bool:
    """Whether it is a host, with a port or without, as it begins the name of an image."""
    return bool(re.fullmatch(rf"{_HOST}(?::[0-9]+)?", text))


def is_digest(text: str) -> bool:
    return bool(_DIGEST.fullmatch(text))


@dataclass(frozen=True)
class Origin:
    """The message that asked for a deploy."""

    message_id: str
    sent_timestamp: int  # milliseconds since the epoch, by the clock of SQS
    group_id: str = ""  # MessageGroupId of a FIFO queue

    def is_newer_than(self, other: "Origin") -> bool:
        """Whether it was sent later. Within a group the queue itself keeps the order, and no clock does."""
        in_order = self.group_id and self.group_id == other.group_id
        return not in_order and self.sent_timestamp > other.sent_timestamp


@dataclass(frozen=True)
class DeployRequest:
    """What a message asks for."""

    image: ImageRef
    digest: str | None = None
    deploy_time: int | None = None  # seconds
    host_id: str | None = None
    reply_queue_url: str | None = None
    reply_fault: str = ""  # why the queue that the message names for replies gets none
    origin: Origin | None = None


@dataclass(frozen=True)
class Nothing:
    """A message is understood and asks for nothing."""

    reason: str
    is_result: bool = False  # one of Lookout's own, which has strayed


@dataclass(frozen=True)
class Invalid:
    """A message cannot be understood."""

    reason: str
    reply_queue_url: str | None = None  # as far as that much of it is


#: What a body can be.
Asked = DeployRequest | Nothing | Invalid


@dataclass
class Message:
    """One message of the queue; the receipt handle is that of its newest receipt."""

    id: str
    body: str = field(repr=False)
    receipt_handle: str = field(repr=False)
    sent_timestamp: int = 0  # milliseconds since the epoch, by the clock of SQS
    receive_count: int = 1
    group_id: str = ""  # MessageGroupId: of a FIFO queue, or a key of a fair queue
    sequence_number: int = 0  # of a FIFO queue

    @property
    def origin(self) -> Origin:
        is_of_fifo = self.sequence_number > 0
        return Origin(self.id, self.sent_timestamp, self.group_id if is_of_fifo else "")


@dataclass(frozen=True)
class Delivery:
    """A message that Lookout holds, and what it asks for."""

    message: Message
    request: DeployRequest


class Outcome(StrEnum):
    """How a message ended."""

    DEPLOYED = "deployed"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"
    IGNORED = "ignored"
    NOT_HERE = "not_here"
    INVALID = "invalid"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"


class Phase(StrEnum):
    """What is being done right now: for a deploy as a whole, or with one of its containers."""

    WAITING = "waiting"
    PULLING = "pulling"
    CREATING = "creating"
    REPLACING = "replacing"
    ROLLING_BACK = "rolling_back"
    CLEANING = "cleaning"
    # Of one container.
    STOPPING = "stopping"
    STARTING = "starting"
    MONITORING = "monitoring"
    REPLACED = "replaced"


@dataclass(frozen=True)
class ContainerReport:
    """What has become of one container, or where it is right now."""

    name: str
    outcome: Outcome | None = None  # None while its deploy runs
    phase: Phase | None = None  # only while its deploy runs
    old_image: str = ""
    new_image: str = ""
    downtime: float | None = None  # seconds in which neither the old nor the new one served
    log_tail: str = ""  # of the new one, where it was no good
    reason: str = ""  # why it was left alone


@dataclass(frozen=True)
class Report:
    """How a deploy ended, why, and what has become of each container."""

    outcome: Outcome
    reason: str = ""
    each: tuple[ContainerReport, ...] = ()
    ended_before: Outcome | None = None  # how this very message had ended, where it has come again
    transient: bool = False  # a failure whose cause may pass by itself
    retry_after: float | None = None  # seconds, where the usual backoff does not fit

    @property
    def containers(self) -> tuple[str, ...]:
        """The names of those that were replaced."""
        return tuple(one.name for one in self.each if one.outcome is Outcome.DEPLOYED)


@dataclass(frozen=True)
class Ending:
    """How a message ended, or how a try of it did."""

    message: Message
    report: Report
    request: Asked
    began: datetime
    ended: datetime
    will_retry: bool = False
    next_attempt_at: datetime | None = None

    @property
    def image(self) -> ImageRef | None:
        return self.request.image if isinstance(self.request, DeployRequest) else None

    @property
    def reply_queue_url(self) -> str | None:
        return None if isinstance(self.request, Nothing) else self.request.reply_queue_url

    @property
    def is_of_another_host(self) -> bool:
        """Whether it is left to that one: this was a look, and no try."""
        return self.report.retry_after is not None and self.will_retry

    @property
    def is_stray(self) -> bool:
        """Whether it is a result itself: told of, it would bring the next one."""
        return isinstance(self.request, Nothing) and self.request.is_result
