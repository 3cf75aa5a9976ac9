"""What can go wrong, as sentences that name the thing and the next step."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class LookoutError(Exception):
    """The parent of every error that Lookout raises on purpose."""


class InvalidBody(LookoutError):
    """The body of a message asks for nothing that Lookout understands."""


@dataclass
class WrongSettings(LookoutError):
    """Lookout cannot start with these settings: one line for each wrong one."""

    lines: list[str]

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclass
class EngineError(LookoutError):
    """The engine refused a call; `status` is its HTTP status."""

    call: str
    status: int
    message: str

    def __str__(self) -> str:
        return f"the engine refused to {self.call}: {self.message} (HTTP {self.status})"


class NotFound(EngineError):
    """The engine has no such container, image or network (HTTP 404)."""


class Conflict(EngineError):
    """The name is taken, or the container is not in a state for this call (HTTP 409)."""


@dataclass
class EngineUnavailable(LookoutError):
    """The engine did not answer. It may have done the call all the same."""

    call: str
    message: str

    def __str__(self) -> str:
        return f"the engine did not answer when asked to {self.call}: {self.message}"


class PullFault(StrEnum):
    """Why a pull failed, as far as its next step differs."""

    CREDENTIALS = "credentials"
    NOT_FOUND = "not found"
    PLATFORM = "platform"
    WRONG_DIGEST = "wrong digest"
    NO_SPACE = "no space"
    UNTRUSTED = "untrusted"
    THROTTLED = "throttled"
    TRANSIENT = "transient"

    @property
    def passes_soon(self) -> bool:
        """Whether it is worth the while to try again at once."""
        return self in (PullFault.TRANSIENT, PullFault.THROTTLED)

    @property
    def may_pass(self) -> bool:
        """Whether the same pull may work later, without another message."""
        return self.passes_soon or self in (PullFault.CREDENTIALS, PullFault.NO_SPACE, PullFault.UNTRUSTED)


@dataclass
class PullFailed(LookoutError):
    """The image could not be pulled. No container was touched."""

    image: str
    fault: PullFault
    message: str
    source: str  # of the credentials that the registry was shown
    hint: str
    retry_after: float | None = None  # seconds that the registry asks for
    pulled: str = ""  # id of the image that has come all the same, and is not the one that was asked for

    def __str__(self) -> str:
        return f"cannot pull {self.image} with {self.source}: {self.message}; {self.hint}"


class CredentialsMissing(LookoutError):
    """One place that should have credentials for a registry cannot give them; others may."""


@dataclass
class AccessFailed(LookoutError):
    """Nothing can be pulled from a registry, because the credentials that it asks for cannot be had."""

    fault: PullFault
    source: str  # that should give them
    message: str
    hint: str


class CopyRefused(LookoutError):
    """The container cannot be copied faithfully, so it is left alone."""


@dataclass
class UnknownContainer(LookoutError):
    """`lookout plan` was asked about a container that it cannot plan for."""

    container: str
    reason: str = "is not on this engine; see `docker ps`"

    def __str__(self) -> str:
        return f"container {self.container} {self.reason}"


class NotReady(LookoutError):
    """The new container did not start, died, or did not become healthy."""

    def __init__(self, message: str, *, check_output: str = "") -> None:
        super().__init__(message)
        self.check_output = check_output  # the last words of its health check: the application's own


@dataclass
class InProgress(LookoutError):
    """Another swap of this container has not ended; nothing was touched."""

    container: str
    message: str

    def __str__(self) -> str:
        return f"{self.container} {self.message}"


@dataclass
class Stuck(LookoutError):
    """A swap cannot go on, nor back: the engine goes on refusing a step."""

    container: str
    message: str

    def __str__(self) -> str:
        return f"{self.container}: {self.message}"


class SwapRefused(LookoutError):
    """The swap did not come about, and no image is to blame; the old container runs, or runs again."""

    def __init__(self, message: str, *, transient: bool, log_tail: str = "") -> None:
        super().__init__(message)
        self.transient = transient
        self.log_tail = log_tail  # of the new container


@dataclass
class RolledBack(LookoutError):
    """The new container was not good; the old one runs again."""

    message: str
    log_tail: str = ""  # of the new container

    def __str__(self) -> str:
        return self.message


@dataclass
class RollbackFailed(LookoutError):
    """The old container could not be brought back."""

    container: str
    message: str
    command: str  # that may help, for a person
    log_tail: str = ""  # of the new container

    def __str__(self) -> str:
        return f"{self.container} could not be brought back: {self.message}; by hand: {self.command}"

    @classmethod
    def joined(cls, problems: Sequence["RollbackFailed"]) -> "RollbackFailed":
        """All of them as one."""
        return cls(
            ", ".join(problem.container for problem in problems),
            "; ".join(problem.message for problem in problems),
            "; ".join(problem.command for problem in problems),
        )


class QueueError(LookoutError):
    """SQS did not answer or refused a call that may well work later."""


class QueueDenied(QueueError):
    """The credentials lack the permission for this action."""


class HandleGone(QueueError):
    """The receipt handle is no longer valid: the message is visible again, or deleted."""


class QueueRefused(QueueError):
    """SQS does not take what it was given, and would not take it again."""


class QueueUnusable(QueueError):
    """Wrong credentials or no such queue: nothing will work until a setting is changed."""


class NoSuchQueue(QueueUnusable):
    """SQS does not know the queue: it was never made, is removed, or was made only a moment ago."""


class Interrupted(LookoutError):
    """Lookout is stopping, and this deploy has not begun to touch a container."""
