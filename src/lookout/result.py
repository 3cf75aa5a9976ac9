"""What Lookout tells of a message, as JSON: how it ended, or how far its deploy is. Written and read here."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from lookout.model import ContainerReport, Json, Outcome, Phase

TYPE = "lookout.result"  # so that one that strays onto a queue of requests is known there
IN_PROGRESS = "in_progress"
LONGEST_ERROR = 4000  # characters
LARGEST_NUMBER = 2**63


@dataclass(frozen=True)
class Result:
    """How a message ended; while `outcome` is None, how far its deploy is."""

    message_id: str
    image_name: str = ""
    image_tag: str = ""
    host_id: str = ""
    outcome: Outcome | None = None
    error: str = ""
    will_retry: bool = False
    next_attempt_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    containers: tuple[ContainerReport, ...] = ()
    # While the deploy runs:
    phase: Phase | None = None
    percent: int | None = None  # of the download
    bytes_done: int | None = None
    bytes_total: int | None = None  # as far as known: it may grow

    @property
    def duration(self) -> float | None:
        """Seconds."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    def without_log_tails(self) -> Self:
        """The same for more eyes: a log may hold the secrets of its application."""
        return replace(self, containers=tuple(replace(one, log_tail="") for one in self.containers))

    def to_json(self) -> str:
        """Printable ASCII, as every queue takes it; what is not known is left out."""
        return json.dumps(_filled(self._as_json()))

    def _as_json(self) -> Json:
        return {
            "Type": TYPE,
            "MessageId": self.message_id,
            "ImageName": self.image_name,
            "ImageTag": self.image_tag,
            "HostId": self.host_id,
            "Outcome": self.outcome.value if self.outcome else IN_PROGRESS,
            "Phase": self.phase,
            "Percent": self.percent,
            "BytesDone": self.bytes_done,
            "BytesTotal": self.bytes_total,
            "Error": self.error[:LONGEST_ERROR],
            "WillRetry": self.will_retry if self.outcome else None,
            "NextAttemptAt": _written(self.next_attempt_at),
            "StartedAt": _written(self.started_at),
            "FinishedAt": _written(self.finished_at),
            "DurationMs": _milliseconds(self.duration),
            "Containers": [_filled(_container_as_json(one)) for one in self.containers],
        }

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError for anything else."""
        try:
            told = json.loads(text)
            if told["Type"] != TYPE:
                raise ValueError("not a result of Lookout")
            return cls(
                message_id=str(told["MessageId"]),
                image_name=str(told.get("ImageName", "")),
                image_tag=str(told.get("ImageTag", "")),
                host_id=str(told.get("HostId", "")),
                outcome=None if told["Outcome"] == IN_PROGRESS else Outcome(told["Outcome"]),
                error=str(told.get("Error", "")),
                will_retry=bool(told.get("WillRetry", False)),
                next_attempt_at=_read(told.get("NextAttemptAt")),
                started_at=_read(told.get("StartedAt")),
                finished_at=_read(told.get("FinishedAt")),
                containers=tuple(_container(one) for one in told.get("Containers", ())),
                phase=_phase(told.get("Phase")),
                percent=_number(told.get("Percent")),
                bytes_done=_number(told.get("BytesDone")),
                bytes_total=_number(told.get("BytesTotal")),
            )
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise ValueError(f"not a result of Lookout: {exc!r}") from exc


def _filled(told: Json) -> Json:
    return {key: value for key, value in told.items() if value is not None and value != ""}


def _container_as_json(one: ContainerReport) -> Json:
    return {
        "Name": one.name,
        "Outcome": one.outcome.value if one.outcome else IN_PROGRESS,
        "Phase": one.phase,
        "OldImage": one.old_image,
        "NewImage": one.new_image,
        "DowntimeMs": _milliseconds(one.downtime),
        "LogTail": one.log_tail,
        "Reason": one.reason,
    }


def _container(told: Json) -> ContainerReport:
    downtime = _number(told.get("DowntimeMs"))
    return ContainerReport(
        name=str(told["Name"]),
        outcome=None if told["Outcome"] == IN_PROGRESS else Outcome(told["Outcome"]),
        phase=_phase(told.get("Phase")),
        old_image=str(told.get("OldImage", "")),
        new_image=str(told.get("NewImage", "")),
        downtime=None if downtime is None else downtime / 1000,
        log_tail=str(told.get("LogTail", "")),
        reason=str(told.get("Reason", "")),
    )


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _written(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read(text: Any) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _phase(text: Any) -> Phase | None:
    """A later Lookout may know phases that this one does not."""
    return Phase(text) if text in list(Phase) else None


def _number(value: Any) -> int | None:
    if value is None:
        return None
    if abs(number := int(value)) > LARGEST_NUMBER:
        raise ValueError("a number that nothing here can have")
    return number
