"""Settings from the environment, `.env` and `/run/secrets`."""

import os
import re
from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasGenerator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_pascal
from pydantic_core import ErrorDetails, PydanticUseDefault
from pydantic_settings import BaseSettings, SettingsConfigDict

from lookout import chosen
from lookout.aws import QueueUrl
from lookout.chosen import LogFormat, LogLevel, Secret, Unmatched
from lookout.credentials import registry_of
from lookout.errors import WrongSettings
from lookout.model import LONGEST_DEPLOY_TIME, is_registry

LONGEST_RETENTION = 1_209_600  # seconds that SQS keeps a message at most: 14 days

ENV_FILE = Path(".env")
SECRETS_DIR = Path("/run/secrets")

# Names by which other systems, the original Lookout's .NET among them, call the same levels.
_OTHER_LEVELS = {"trace": "debug", "information": "info", "warn": "warning", "fatal": "critical"}
# .NET has numbers for its levels too, and one where nothing is said; what is critical has to be said.
_OTHER_LEVELS |= {"0": "debug", "1": "debug", "2": "info", "3": "warning", "4": "error", "5": "critical"}
_OTHER_LEVELS |= {"6": "critical", "none": "critical"}
# As in the original's own example: PollTimeSeconds=20 //1 to 20
_REMARK = re.compile(r"\s//.*")


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _level(value: Any) -> Any:
    return _OTHER_LEVELS.get(_lower(value), _lower(value))


def _without_remark(value: Any) -> Any:
    return _REMARK.sub("", value) if isinstance(value, str) else value


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _secret(value: Any) -> Any:
    return Secret(value.strip()) if isinstance(value, str) else value


def _queue_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or not url.path.strip("/"):
        raise ValueError(
            "must be the URL of a queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/deploys"
        )
    _ = url.port  # raises ValueError where that is no number
    if url.query or url.fragment:
        raise ValueError("must not have a query: the URL of a queue ends with its name")
    if url.username or url.password:
        raise ValueError("must not hold credentials; give them as AWS_ACCESS_KEY_ID and so on")
    return value.rstrip("/")  # a FIFO queue is known by how its name ends


def _registry(value: str) -> str:
    registry = registry_of(value)
    if not is_registry(registry):
        raise ValueError("must be the host of a registry, such as ghcr.io or registry.example.com:5000")
    return registry


class _Common(BaseSettings, chosen.Common):
    """How every setting is read, and those that every command has.

    Names are written `MonitorSeconds` or `MONITOR_SECONDS`. The environment wins over `.env`, and
    `.env` over a file of that name under `/run/secrets`. An empty value counts as not set.
    """

    model_config = SettingsConfigDict(
        alias_generator=AliasGenerator(
            validation_alias=lambda name: AliasChoices(to_pascal(name), name.upper())
        ),
        arbitrary_types_allowed=True,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
    )

    log_level: Annotated[LogLevel, BeforeValidator(_level)] = Field(
        LogLevel.INFO, description="debug, info, warning, error or critical."
    )
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = Field(
        LogFormat.TEXT, description="text for people, json for log collectors."
    )
    deploy_time_seconds: int = Field(
        30,
        ge=1,
        le=LONGEST_DEPLOY_TIME,
        description="The expected time of a deploy whose message does not say.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _blank_is_not_set(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise PydanticUseDefault
        return value


class QueueSettings(_Common, chosen.QueueSettings):
    """Where the queue is; credentials of AWS are those of its SDK."""

    sqs_queue_url: Annotated[str, AfterValidator(_queue_url)] = Field(
        description="The queue that brings the deploys."
    )


class EngineSettings(_Common, chosen.EngineSettings):
    """What is done on the engine; the settings of the Docker SDK are its own."""

    monitor_seconds: float = Field(
        5,
        ge=0,
        le=3600,
        description="How long a new container must run before the old one is removed.",
    )
    update_parallelism: int = Field(
        1,
        ge=0,
        le=1000,
        description="How many containers of an image are replaced at the same time; 0 is all of them.",
    )
    require_label: Annotated[bool, BeforeValidator(_stripped)] = Field(
        False,
        description="Whether only containers labelled lookout.enable=true are replaced.",
    )
    registry_username: str | None = Field(None, description="User name at the registry.")
    registry_password: Annotated[Secret, BeforeValidator(_secret)] | None = Field(
        None, validate_default=True, description="Password or token at the registry."
    )
    registry_server: Annotated[str, AfterValidator(_registry)] | None = Field(
        None,
        description="The one registry that gets them; unset, the one that all containers here come from.",
    )
    pull_timeout_seconds: int | None = Field(
        None,
        ge=1,
        le=LONGEST_DEPLOY_TIME,
        description="How long a pull may take with all its tries; unset, 600, or the deploy time if longer.",
    )

    @field_validator("registry_password")
    @classmethod
    def _comes_with_a_user_name(cls, value: Secret | None, info: ValidationInfo) -> Secret | None:
        if (value is None) != (info.data.get("registry_username") is None):
            raise ValueError("must be set together with RegistryUsername, or neither of them")
        return value


class Settings(EngineSettings, QueueSettings, chosen.Settings):
    """Every setting of the daemon."""

    poll_time_seconds: Annotated[int, BeforeValidator(_without_remark)] = Field(
        20, ge=1, le=20, description="How long one receive call waits."
    )
    host_id: str | None = Field(
        None,
        max_length=255,
        description="Messages that carry a HostId are deployed only where it is this.",
    )
    unmatched_messages: Annotated[Unmatched, BeforeValidator(_lower)] = Field(
        Unmatched.KEEP,
        description="keep or delete: what becomes of messages for images that no container here runs.",
    )
    retry_for_seconds: int = Field(
        3600,
        ge=0,
        le=LONGEST_RETENTION,
        description="How long after it was sent a deploy that failed is tried again.",
    )
    dead_letter_queue_url: Annotated[str, AfterValidator(_queue_url)] | None = Field(
        None, description="The queue for messages that ended badly."
    )
    result_queue_url: Annotated[str, AfterValidator(_queue_url)] | None = Field(
        None, description="The queue that is told how each message ended."
    )
    max_messages: int = Field(
        32, ge=1, le=1000, description="How many messages are held at the same time at most."
    )
    stop_grace_seconds: float = Field(
        8, ge=1, le=3600, description="How long Lookout may take to end after SIGTERM."
    )
    cleanup_images: Annotated[bool, BeforeValidator(_stripped)] = Field(
        True, description="Whether images that were replaced are removed once nothing uses them."
    )
    keep_images: int = Field(
        2, ge=0, le=1000, description="How many replaced images of a repository stay for a quick way back."
    )
    heartbeat_file: Path = Field(
        Path("/dev/shm/lookout-heartbeat"),  # noqa: S108  memory, which a read-only container has too
        description="A file that is touched every few seconds while all is well.",
    )
    http_port: int | None = Field(
        None, ge=1, le=65535, description="Where /healthz and /metrics are served; unset, nowhere."
    )
    http_host: str = Field("127.0.0.1", description="The address to serve them on.")
    is_test: str | None = Field(None, description="Of the original, where no queue was read.")

    @field_validator("dead_letter_queue_url", "result_queue_url")
    @classmethod
    def _is_another_queue_of_the_same_server(cls, value: str | None, info: ValidationInfo) -> str | None:
        own = info.data.get("sqs_queue_url")
        if value and own:
            queue, deploys = QueueUrl.parse(value), QueueUrl.parse(own)
            if queue == deploys:
                raise ValueError("must not be the queue of SqsQueueUrl: what is sent there would come back")
            if queue.server != deploys.server:
                raise ValueError("must be a queue of the same region, or server, as that of SqsQueueUrl")
        return value

    @field_validator("result_queue_url")
    @classmethod
    def _is_not_that_of_dead_letters(cls, value: str | None, info: ValidationInfo) -> str | None:
        other = info.data.get("dead_letter_queue_url")
        if value and other and QueueUrl.parse(value) == QueueUrl.parse(other):
            raise ValueError("must not be the queue of DeadLetterQueueUrl")
        return value


Kind = TypeVar("Kind", bound=_Common)


def load(env_file: Path = ENV_FILE, secrets_dir: Path = SECRETS_DIR) -> Settings:
    """Read every setting; raises WrongSettings with a line for each wrong one, never a secret.

    The variables of the AWS and Docker SDKs that stand in `.env` join the environment, where those
    SDKs look for them.
    """
    return _load(Settings, env_file, secrets_dir)


def load_for_plan(env_file: Path = ENV_FILE, secrets_dir: Path = SECRETS_DIR) -> EngineSettings:
    """The same without a queue: its settings may be missing or wrong."""
    return _load(EngineSettings, env_file, secrets_dir)


def load_for_sending(env_file: Path = ENV_FILE, secrets_dir: Path = SECRETS_DIR) -> QueueSettings:
    """The same without an engine."""
    return _load(QueueSettings, env_file, secrets_dir)


def load_for_check() -> tuple[QueueSettings | None, EngineSettings | None, list[str]]:
    """Those of the queue and of the engine, and a line for each that is wrong, which counts as not set.

    None where one is wrong that is required.
    """
    try:
        chosen = load()
    except WrongSettings as exc:
        wrong = {line.partition(":")[0] for line in exc.lines}
        every = _without(Settings, wrong)
        return every or _without(QueueSettings, wrong), every or _without(EngineSettings, wrong), exc.lines
    return chosen, chosen, []


def _without(kind: type[Kind], wrong: Set[str]) -> Kind | None:
    fields = {to_pascal(name): field for name, field in kind.model_fields.items()}
    defaults = {
        name: fields[name].default for name in wrong & fields.keys() if not fields[name].is_required()
    }
    try:
        return _load(kind, ENV_FILE, SECRETS_DIR, **defaults)
    except WrongSettings:
        return None


def _load(kind: type[Kind], env_file: Path, secrets_dir: Path, **given: Any) -> Kind:
    try:
        _drop_blanks()
        _share_with_sdks(env_file)
        return kind(  # type: ignore[call-arg]
            _env_file=env_file,
            _secrets_dir=secrets_dir if secrets_dir.is_dir() else None,
            **given,
        )
    except ValidationError as exc:
        raise WrongSettings([_line(error) for error in exc.errors()]) from None
    except (OSError, ValueError) as exc:
        said = " ".join(str(exc.__cause__ or exc).split())
        raise WrongSettings([f"{env_file} or {secrets_dir}: cannot be read: {said}"]) from None


def _drop_blanks() -> None:
    """Compose's `${NAME:-}` sets a variable to nothing, which the SDKs take for a value."""
    for name, value in list(os.environ.items()):
        if name.startswith(("AWS_", "DOCKER_")) and not value.strip():
            del os.environ[name]


def _share_with_sdks(env_file: Path) -> None:
    for name, value in dotenv_values(env_file, encoding="utf-8").items():
        if name.startswith(("AWS_", "DOCKER_")) and value and not os.environ.get(name):
            os.environ[name] = value


def _line(error: ErrorDetails) -> str:
    """One readable line for one wrong setting. The value itself is never shown: it may be a secret."""
    name = str(error["loc"][0])
    name = name if name[:1].isupper() else to_pascal(name)  # a default is reported by the field's own name
    if error["type"] == "missing":
        return f"{name}: is required; set it in the environment or in {ENV_FILE}"
    if error["type"] == "bool_parsing":
        return f"{name}: should be true or false"
    return f"{name}: {error['msg'].removeprefix('Value error, ').removeprefix('Input ')}"
