"""What was chosen: the settings as the parts of Lookout take them, whoever has read them.

Nothing here needs pydantic, which `settings.py` reads them with.
"""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from lookout.aws import is_at_aws, region_of

#: Settings of the original that mean nothing here, by the names of their fields, and what there is instead.
RETIRED = {"is_test": "Lookout always listens to its queue; `lookout plan` shows what a deploy would do"}


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class Unmatched(StrEnum):
    KEEP = "keep"
    DELETE = "delete"


def public_name(field: str) -> str:
    """As people write it: SqsQueueUrl."""
    return field.title().replace("_", "")


class Secret:
    """A value that is in no log line, also not by accident."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "**********"


class Common:
    """What every command is told."""

    log_level: LogLevel
    log_format: LogFormat
    deploy_time_seconds: int

    def shown(self) -> dict[str, object]:
        """The settings by their public names, for the log; secrets are masked."""
        return {
            public_name(name): str(value) if isinstance(value, Path | Secret) else value
            for name, value in vars(self).items()
            if name not in RETIRED
        }


class QueueSettings(Common):
    """Where the queue is; credentials of AWS are those of its SDK."""

    sqs_queue_url: str

    @property
    def region(self) -> str | None:
        """AWS_REGION, which botocore does not read, AWS_DEFAULT_REGION, or that of the queue URL.

        None leaves it to the SDK's own configuration files.
        """
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            if value := os.environ.get(name, "").strip():
                return value
        return region_of(urlsplit(self.sqs_queue_url).hostname or "")

    @property
    def endpoint_url(self) -> str | None:
        """The server of a queue that is not at AWS, unless the SDK's own variables name one."""
        url = urlsplit(self.sqs_queue_url)
        given = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"))
        if given or is_at_aws(url.hostname or ""):
            return None
        return f"{url.scheme}://{url.netloc}"


class EngineSettings(Common):
    """What is done on the engine; the settings of the Docker SDK are its own."""

    monitor_seconds: float
    update_parallelism: int
    require_label: bool
    registry_username: str | None
    registry_password: Secret | None
    registry_server: str | None
    pull_timeout_seconds: int | None


class Settings(EngineSettings, QueueSettings):
    """Every setting of the daemon."""

    poll_time_seconds: int
    host_id: str | None
    unmatched_messages: Unmatched
    retry_for_seconds: int
    dead_letter_queue_url: str | None
    result_queue_url: str | None
    max_messages: int
    stop_grace_seconds: float
    cleanup_images: bool
    keep_images: int
    heartbeat_file: Path
    http_port: int | None
    http_host: str
    is_test: str | None

    @property
    def other_queues(self) -> tuple[str, ...]:
        """The URLs of those that Lookout only sends to."""
        return tuple(url for url in (self.dead_letter_queue_url, self.result_queue_url) if url)

    @property
    def retired(self) -> Mapping[str, str]:
        """The settings of the original that are set in vain, and what there is instead."""
        return {public_name(name): why for name, why in RETIRED.items() if getattr(self, name) is not None}
