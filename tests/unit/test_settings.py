"""Settings from the environment, `.env` and secret files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lookout.chosen import LogFormat, LogLevel
from lookout.errors import WrongSettings
from lookout.settings import EngineSettings, Settings, load, load_for_plan

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/deploys"
Load = Callable[..., Settings]


@pytest.fixture
def load_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load settings from these variables, this `.env` and these secret files, and nothing else."""

    def make(
        env: dict[str, str] | None = None, dotenv: str = "", secrets: dict[str, str] | None = None
    ) -> Settings:
        for name in list(os.environ):
            if name.startswith(("AWS_", "DOCKER_")):
                monkeypatch.delenv(name)
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        (tmp_path / ".env").write_text(dotenv)
        (tmp_path / "secrets").mkdir()
        for name, value in (secrets or {}).items():
            (tmp_path / "secrets" / name).write_text(value)
        return load(tmp_path / ".env", tmp_path / "secrets")

    return make


def test_one_setting_is_enough_and_the_others_have_defaults(load_with: Load) -> None:
    settings = load_with({"SqsQueueUrl": URL})
    assert settings.shown() == {
        "SqsQueueUrl": URL,
        "LogLevel": "info",
        "LogFormat": "text",
        "PollTimeSeconds": 20,
        "HostId": None,
        "UnmatchedMessages": "keep",
        "RetryForSeconds": 3600,
        "DeadLetterQueueUrl": None,
        "DeployTimeSeconds": 30,
        "MonitorSeconds": 5,
        "UpdateParallelism": 1,
        "RequireLabel": False,
        "MaxMessages": 32,
        "StopGraceSeconds": 8,
        "RegistryUsername": None,
        "RegistryPassword": None,
        "RegistryServer": None,
        "PullTimeoutSeconds": None,
        "CleanupImages": True,
        "KeepImages": 2,
        "ResultQueueUrl": None,
        "HeartbeatFile": "/dev/shm/lookout-heartbeat",
        "HttpPort": None,
        "HttpHost": "127.0.0.1",
    }


def test_names_may_be_pascal_case_or_upper_snake_case(load_with: Load) -> None:
    settings = load_with({"SQS_QUEUE_URL": URL, "PollTimeSeconds": "3", "MAX_MESSAGES": "4"})
    assert (settings.sqs_queue_url, settings.poll_time_seconds, settings.max_messages) == (URL, 3, 4)


def test_the_environment_wins_over_dotenv_however_the_names_are_written(load_with: Load) -> None:
    settings = load_with({"SQS_QUEUE_URL": URL}, dotenv="SqsQueueUrl=http://other/queue\nLogLevel=debug\n")
    assert (settings.sqs_queue_url, settings.log_level) == (URL, LogLevel.DEBUG)


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_value_counts_as_not_set(load_with: Load, blank: str) -> None:
    env = {"SqsQueueUrl": "", "PollTimeSeconds": blank, "HostId": blank, "RegistryUsername": blank}
    settings = load_with(env, dotenv=f"SqsQueueUrl={URL}\n")
    assert (settings.sqs_queue_url, settings.poll_time_seconds) == (URL, 20)
    assert (settings.host_id, settings.registry_username) == (None, None)


@pytest.mark.parametrize("name", ["RegistryPassword", "REGISTRY_PASSWORD", "registry_password"])
def test_a_secret_may_be_a_file(load_with: Load, name: str) -> None:
    settings = load_with({"SqsQueueUrl": URL, "RegistryUsername": "ci"}, secrets={name: "hunter2\n"})
    assert settings.registry_password is not None
    assert settings.registry_password.get_secret_value() == "hunter2"


def test_an_empty_secret_file_counts_as_not_set(load_with: Load) -> None:
    assert load_with({"SqsQueueUrl": URL}, secrets={"RegistryPassword": "\n"}).registry_password is None


@pytest.mark.parametrize(
    ("written", "registry"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://GHCR.io/", "ghcr.io"),
        ("registry.example.com:5000", "registry.example.com:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
    ],
)
def test_a_registry_is_known_by_its_host(load_with: Load, written: str, registry: str) -> None:
    assert load_with({"SqsQueueUrl": URL, "RegistryServer": written}).registry_server == registry


def test_levels_and_formats_are_read_in_any_case(load_with: Load) -> None:
    settings = load_with({"SqsQueueUrl": URL, "LogLevel": "Information", "LogFormat": "JSON"})
    assert (settings.log_level, settings.log_format) == (LogLevel.INFO, LogFormat.JSON)


def test_every_wrong_setting_gets_one_line_with_its_name_and_no_secret(load_with: Load) -> None:
    with pytest.raises(WrongSettings) as caught:
        load_with(
            {
                "SqsQueueUrl": "deploys",
                "LogLevel": "loud",
                "POLL_TIME_SECONDS": "21",
                "DeployTimeSeconds": "soon",
                "REQUIRE_LABEL": "perhaps",
                "MaxMessages": "0",
                "StopGraceSeconds": "-1",
                "UnmatchedMessages": "drop",
                "RetryForSeconds": "1209601",
                "DeadLetterQueueUrl": "https://me:hunter2@sqs.eu-west-1.amazonaws.com/1/dead",
                "RegistryPassword": "hunter2",
                "RegistryServer": "ghcr.io and others",
                "PullTimeoutSeconds": "28801",
                "CleanupImages": "sometimes",
                "KeepImages": "-1",
                "ResultQueueUrl": "results",
                "HttpPort": "70000",
            }
        )
    lines = caught.value.lines
    assert sorted(line.partition(":")[0] for line in lines) == [
        "CleanupImages",
        "DeadLetterQueueUrl",
        "DeployTimeSeconds",
        "HttpPort",
        "KeepImages",
        "LogLevel",
        "MaxMessages",
        "PollTimeSeconds",
        "PullTimeoutSeconds",
        "RegistryPassword",
        "RegistryServer",
        "RequireLabel",
        "ResultQueueUrl",
        "RetryForSeconds",
        "SqsQueueUrl",
        "StopGraceSeconds",
        "UnmatchedMessages",
    ]
    assert not any("hunter2" in line or "\n" in line for line in lines)


@pytest.mark.parametrize(
    ("own", "dead", "fault"),
    [
        (URL, URL, "must not be the queue of SqsQueueUrl"),
        (URL, URL + "/", "must not be the queue of SqsQueueUrl"),
        (
            "https://sqs.eu-west-1.amazonaws.com/1/q",
            "https://eu-west-1.queue.amazonaws.com/1/q",
            "must not be the queue of SqsQueueUrl",
        ),
        (
            "https://sqs.eu-west-1.amazonaws.com/1/q",
            "https://sqs.eu-west-2.amazonaws.com/1/dead",
            "must be a queue of the same region",
        ),
        ("http://sqs:9324/queue/q", "http://other:9324/queue/dead", "must be a queue of the same region"),
    ],
)
@pytest.mark.parametrize("setting", ["DeadLetterQueueUrl", "ResultQueueUrl"])
def test_a_queue_that_is_sent_to_is_another_one_that_can_be_reached_the_same_way(
    load_with: Load, setting: str, own: str, dead: str, fault: str
) -> None:
    with pytest.raises(WrongSettings, match=f"^{setting}: {fault}"):
        load_with({"SqsQueueUrl": own, setting: dead})


APART = {"SqsQueueUrl": "http://sqs:9324/queue/q", "DeadLetterQueueUrl": "http://sqs:9324/queue/dead"}


def test_results_do_not_go_to_the_dead_letters(load_with: Load) -> None:
    fault = r"^ResultQueueUrl: must not be the queue of DeadLetterQueueUrl"
    with pytest.raises(WrongSettings, match=fault):
        load_with(APART | {"ResultQueueUrl": "http://sqs:9324/queue/dead/"})


def test_the_other_queues_are_those_that_are_sent_to(load_with: Load) -> None:
    chosen = load_with(APART | {"ResultQueueUrl": "http://sqs:9324/queue/results/"})
    assert chosen.other_queues == ("http://sqs:9324/queue/dead", "http://sqs:9324/queue/results")


@pytest.mark.parametrize(
    ("own", "dead"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/1/q", "https://sqs.eu-west-1.amazonaws.com/1/dead"),
        ("https://sqs.eu-west-1.amazonaws.com/1/q", "https://eu-west-1.queue.amazonaws.com/2/q"),
        ("http://sqs:9324/queue/q", "http://sqs:9324/queue/dead"),
    ],
)
def test_it_may_be_of_another_account_and_have_another_name_of_the_same_server(
    load_with: Load, own: str, dead: str
) -> None:
    assert load_with({"SqsQueueUrl": own, "DEAD_LETTER_QUEUE_URL": dead}).dead_letter_queue_url == dead


def test_the_queue_url_is_required(load_with: Load) -> None:
    with pytest.raises(WrongSettings, match=r"^SqsQueueUrl: is required"):
        load_with()


def test_a_queue_url_with_a_password_is_refused_without_showing_it(load_with: Load) -> None:
    with pytest.raises(WrongSettings) as caught:
        load_with({"SqsQueueUrl": "https://me:hunter2@sqs.eu-west-1.amazonaws.com/1/q"})
    assert "hunter2" not in str(caught.value)


def test_the_password_is_never_shown(load_with: Load) -> None:
    settings = load_with({"SqsQueueUrl": URL, "RegistryUsername": "ci", "RegistryPassword": "hunter2"})
    assert "hunter2" not in f"{settings!r} {settings} {settings.shown()}"


def test_variables_of_the_sdks_in_dotenv_join_the_environment(
    load_with: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    load_with(
        {"AWS_REGION": "eu-west-1"},
        dotenv=f"SqsQueueUrl={URL}\nAWS_REGION=us-east-1\nAWS_ACCESS_KEY_ID=key\nPATH=x",
    )
    assert os.environ["AWS_REGION"] == "eu-west-1"
    assert os.environ["AWS_ACCESS_KEY_ID"] == "key"
    assert os.environ["PATH"] != "x"


@pytest.mark.parametrize(
    ("env", "url", "region"),
    [
        ({"AWS_REGION": "ap-southeast-2", "AWS_DEFAULT_REGION": "us-east-1"}, URL, "ap-southeast-2"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-east-1"}, URL, "us-east-1"),
        ({}, URL, "eu-west-1"),
        ({}, "https://eu-west-1.queue.amazonaws.com/1/q", "eu-west-1"),
        ({}, "https://queue.amazonaws.com/1/q", "us-east-1"),
        ({}, "https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ({}, "https://vpce-0a.sqs.us-east-2.vpce.amazonaws.com/1/q", "us-east-2"),
        ({}, "https://sqs.us-gov-west-1.amazonaws.com/1/q", "us-gov-west-1"),
        ({}, "http://localhost:9324/queue/q", None),
    ],
)
def test_the_region_comes_from_the_variables_else_from_the_queue_url(
    load_with: Load, env: dict[str, str], url: str, region: str | None
) -> None:
    assert load_with(env | {"SqsQueueUrl": url}).region == region


def test_a_queue_elsewhere_than_at_aws_is_called_where_its_url_says(load_with: Load) -> None:
    assert load_with({"SqsQueueUrl": "http://sqs:9324/queue/q"}).endpoint_url == "http://sqs:9324"


def test_the_endpoint_variable_of_the_sdk_wins_over_the_queue_url(load_with: Load) -> None:
    env = {"SqsQueueUrl": "http://sqs:9324/queue/q", "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1"}
    assert load_with(env).endpoint_url is None


def test_blank_variables_of_the_sdks_count_as_not_set(
    load_with: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    load_with({"SqsQueueUrl": URL, "AWS_PROFILE": "", "DOCKER_HOST": " "})
    assert not {"AWS_PROFILE", "DOCKER_HOST"} & set(os.environ)


@pytest.mark.parametrize("url", ["http://host:port/q", "http://host:99999/q", URL + "?token=hunter2"])
def test_a_queue_url_that_cannot_be_one_is_refused_without_showing_it(load_with: Load, url: str) -> None:
    with pytest.raises(WrongSettings) as caught:
        load_with({"SqsQueueUrl": url})
    assert "hunter2" not in str(caught.value)


def test_files_that_cannot_be_read_are_wrong_settings(load_with: Load, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "RegistryPassword").write_bytes(b"\xff\xfe")
    with pytest.raises(WrongSettings) as caught:
        load(tmp_path / "none", tmp_path / "secrets")
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("true", True),
        (" True ", True),
        ("1", True),
        ("yes", True),
        ("ON", True),
        ("off", False),
        ("0", False),
    ],
)
@pytest.mark.parametrize("name", ["RequireLabel", "REQUIRE_LABEL"])
def test_a_switch_is_read_in_any_spelling(load_with: Load, name: str, value: str, meant: bool) -> None:
    assert load_with({"SqsQueueUrl": URL, name: value}).require_label is meant


@pytest.mark.parametrize("value", ["perhaps", "2", "tru", "true false"])
def test_a_switch_that_is_neither_on_nor_off_is_one_clear_line(load_with: Load, value: str) -> None:
    with pytest.raises(WrongSettings) as caught:
        load_with({"SqsQueueUrl": URL, "RequireLabel": value})
    assert caught.value.lines == ["RequireLabel: should be true or false"]


@pytest.fixture
def load_engine_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EngineSettings]:
    """Load what concerns the engine from these variables and this `.env`."""

    def make(env: dict[str, str], dotenv: str = "") -> EngineSettings:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        (tmp_path / ".env").write_text(dotenv)
        return load_for_plan(tmp_path / ".env", tmp_path / "secrets")

    return make


@pytest.mark.parametrize("queue", [{}, {"SqsQueueUrl": "deploys", "MaxMessages": "none"}])
def test_a_plan_needs_no_setting_of_the_queue(
    load_engine_with: Callable[..., EngineSettings], queue: dict[str, str]
) -> None:
    settings = load_engine_with(queue | {"MonitorSeconds": "7", "REQUIRE_LABEL": "true"}, "LogLevel=debug\n")
    assert (settings.monitor_seconds, settings.require_label) == (7, True)
    assert settings.log_level is LogLevel.DEBUG
    assert not hasattr(settings, "sqs_queue_url")


def test_a_plan_names_every_wrong_setting_of_the_engine_in_the_same_words_as_the_daemon(
    load_with: Load, load_engine_with: Callable[..., EngineSettings]
) -> None:
    wrong = {"MonitorSeconds": "-1", "RequireLabel": "perhaps", "RegistryPassword": "hunter2"}
    with pytest.raises(WrongSettings) as planning:
        load_engine_with(wrong)
    with pytest.raises(WrongSettings) as running:
        load_with(wrong | {"SqsQueueUrl": URL})
    assert [line.partition(":")[0] for line in planning.value.lines] == [*wrong]
    assert planning.value.lines == running.value.lines


def test_a_plan_shares_the_variables_of_the_sdks_too(
    load_engine_with: Callable[..., EngineSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    load_engine_with({}, "DOCKER_HOST=tcp://docker:2375\n")
    assert os.environ["DOCKER_HOST"] == "tcp://docker:2375"


# What the original Lookout understood


@pytest.mark.parametrize(
    ("written", "level"),
    [
        ("Trace", "debug"),
        ("Debug", "debug"),
        ("Information", "info"),
        ("Warning", "warning"),
        ("Error", "error"),
        ("Critical", "critical"),
        ("None", "critical"),
        *zip("0123456", ["debug", "debug", "info", "warning", "error", "critical", "critical"], strict=True),
    ],
)
def test_each_level_of_the_original_means_one_here(load_with: Load, written: str, level: str) -> None:
    assert load_with({"SqsQueueUrl": URL, "LogLevel": written}).log_level == level


@pytest.mark.parametrize("name", ["SqsQueueUrl", "SQSQUEUEURL", "sqsqueueurl"])
def test_names_are_read_without_regard_to_case(load_with: Load, name: str) -> None:
    assert load_with(dotenv=f"{name}={URL}\n").sqs_queue_url == URL


@pytest.mark.parametrize("written", ["7", "7 //1 to 20 - 20 is long polling", "7\t// or more"])
def test_the_poll_time_may_have_the_remark_of_the_originals_example(load_with: Load, written: str) -> None:
    assert load_with(dotenv=f"SqsQueueUrl={URL}\nPollTimeSeconds={written}\n").poll_time_seconds == 7


def test_the_registry_of_the_original_needs_no_server(load_with: Load) -> None:
    settings = load_with(dotenv=f"SqsQueueUrl={URL}\nRegistryUsername=ci\nRegistryPassword=hunter2\n")
    assert settings.registry_username == "ci"
    assert settings.registry_password is not None
    assert settings.registry_password.get_secret_value() == "hunter2"


def test_the_host_id_of_the_original_is_this_one(load_with: Load) -> None:
    assert load_with(dotenv=f"SqsQueueUrl={URL}\nHostId=f75qrd5p0\n").host_id == "f75qrd5p0"


@pytest.mark.parametrize("value", ["true", "False", "(true,false)"])
def test_a_setting_that_means_nothing_any_more_is_accepted_and_told(load_with: Load, value: str) -> None:
    settings = load_with(dotenv=f"SqsQueueUrl={URL}\nIsTest={value}\n")
    assert "lookout plan" in settings.retired["IsTest"]
    assert "IsTest" not in settings.shown()


@pytest.mark.parametrize("dotenv", ["", "IsTest=\n"])
def test_nothing_is_told_of_what_is_not_set(load_with: Load, dotenv: str) -> None:
    assert not load_with(dotenv=f"SqsQueueUrl={URL}\n{dotenv}").retired
