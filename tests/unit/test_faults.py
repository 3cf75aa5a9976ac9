"""What engines say of a failed pull, word for word, and what Lookout makes of it."""

import pytest

from lookout.credentials import Access, Credentials
from lookout.errors import PullFault
from lookout.faults import pull_failed
from lookout.model import ImageName, ImageRef

HOST = "127.0.0.1:5001"
API = ImageRef(ImageName(HOST, "acme/api"), "2")
CONTAINERD = f'failed to resolve reference "{HOST}/acme/api:2": '
SAID = [
    # overlay2, 20.10 to 28.5
    ("unauthorized: authentication required", PullFault.CREDENTIALS),
    (f'Head "http://{HOST}/v2/acme/api/manifests/2": no basic auth credentials', PullFault.CREDENTIALS),
    (f"manifest for {HOST}/acme/api:2 not found: manifest unknown: manifest unknown", PullFault.NOT_FOUND),
    (f'Get "http://{HOST}/v2/": dial tcp {HOST}: connect: connection refused', PullFault.TRANSIENT),
    ("filesystem layer verification failed for digest sha256:00", PullFault.TRANSIENT),
    ("failed to register layer: open /data/x: permission denied", PullFault.TRANSIENT),
    ("write /data/layer.tar: no space left on device", PullFault.NO_SPACE),
    ("no matching manifest for linux/arm64 in the manifest list entries", PullFault.PLATFORM),
    ("toomanyrequests: You have reached your pull rate limit", PullFault.THROTTLED),
    ("toomanyrequests: slow down", PullFault.THROTTLED),
    ('error parsing HTTP 429 response body: invalid character: "slow down"', PullFault.THROTTLED),
    ('error parsing HTTP 403 response body: invalid character: "<h1>"', PullFault.CREDENTIALS),
    ('error parsing HTTP 404 response body: invalid character: "<h1>"', PullFault.NOT_FOUND),
    ("received unexpected HTTP status: 503 Service Unavailable", PullFault.TRANSIENT),
    ("error pulling image configuration: download failed after attempts=6: denied", PullFault.CREDENTIALS),
    ("unexpected EOF", PullFault.TRANSIENT),
    (
        (
            f"image with reference {HOST}/acme/api:2 was found but does not match the specified platform: "
            "wanted linux/amd64, actual: linux/arm64"
        ),
        PullFault.PLATFORM,
    ),
    # containerd image store
    (
        f"{CONTAINERD}unexpected status from HEAD request to http://{HOST}/v2: 429 Too Many Requests",
        PullFault.THROTTLED,
    ),
    (
        f"{CONTAINERD}unexpected status from HEAD request to http://{HOST}/v2: 403 Forbidden",
        PullFault.CREDENTIALS,
    ),
    (
        f"{CONTAINERD}unexpected status from HEAD request to http://{HOST}/v2: 503 Service Unavailable",
        PullFault.TRANSIENT,
    ),
    (
        (
            f"{CONTAINERD}failed to authorize: failed to fetch anonymous token: "
            "unexpected status from GET request: 503 Service Unavailable"
        ),
        PullFault.TRANSIENT,
    ),
    ("authentication required - incorrect username or password", PullFault.CREDENTIALS),
    ("requested access to the resource is denied - no", PullFault.CREDENTIALS),
    (
        "error from registry: User: x is not authorized to perform: ecr:GetDownloadUrlForLayer",
        PullFault.CREDENTIALS,
    ),
    ("error from registry: Your authorization token has expired. Reauthenticate", PullFault.CREDENTIALS),
    (
        (
            "no matching manifest for linux/s390x in the manifest list entries: "
            "no match for platform in manifest: not found"
        ),
        PullFault.PLATFORM,
    ),
    (
        (
            f"failed to check image sha256:{'0' * 64}: rpc error: code = NotFound "
            f"desc = content digest sha256:{'0' * 64}: not found"
        ),
        PullFault.TRANSIENT,
    ),
    ("failed to copy: failed to send write: write /data: no space left on device", PullFault.NO_SPACE),
    ("short read: expected 4084125 bytes but got 500000: unexpected EOF", PullFault.TRANSIENT),
    (f"{CONTAINERD}{HOST}/acme/api:2: not found", PullFault.NOT_FOUND),
    (f"unknown: {CONTAINERD}unexpected status from HEAD request: 401 Unauthorized", PullFault.CREDENTIALS),
    (f"{CONTAINERD}pull access denied, may require authorization", PullFault.CREDENTIALS),
    ('Get "https://registry.test/v2/": x509: certificate signed by unknown authority', PullFault.UNTRUSTED),
    ('Get "https://registry.test/v2/": http: server gave HTTP response to HTTPS client', PullFault.UNTRUSTED),
    ("Cannot overwrite digest sha256:00", PullFault.PLATFORM),
    # public registries
    (
        "pull access denied for acme/api, repository does not exist or may require 'docker login'",
        PullFault.CREDENTIALS,
    ),
    ("error from registry: denied", PullFault.CREDENTIALS),
    ("denied: Your authorization token has expired. Reauthenticate and try again.", PullFault.CREDENTIALS),
]


@pytest.mark.parametrize(("said", "fault"), SAID)
def test_the_cause_is_read_from_the_words(said: str, fault: PullFault) -> None:
    assert pull_failed(API, said, Access()).fault is fault


def test_the_name_of_an_image_is_no_cause() -> None:
    image = ImageRef(ImageName(HOST, "denied/unauthorized"), "forbidden")
    said = f"manifest for {HOST}/denied/unauthorized:forbidden not found: manifest unknown"
    assert pull_failed(image, said, Access()).fault is PullFault.NOT_FOUND


def test_the_hint_names_what_was_shown_and_what_to_do() -> None:
    said, shown = "unauthorized", Access(Credentials("RegistryUsername", "ci", "hunter2"))
    assert str(pull_failed(API, said, Access())).endswith(
        "with no credentials: unauthorized; "
        f"set RegistryUsername and RegistryPassword, or log in to {HOST} with `docker login`"
    )
    assert "with RegistryUsername: unauthorized; check them" in str(pull_failed(API, said, shown))


def test_what_kept_credentials_away_is_said_where_they_were_missed() -> None:
    access = Access(remarks=["config.json cannot be read"])
    assert str(pull_failed(API, "unauthorized", access)).endswith("; config.json cannot be read")
    assert "config.json" not in str(pull_failed(API, "manifest unknown", access))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("toomanyrequests: retry-after: 97.5ms, allowed: 44000/minute", 0.0975),
        ("toomanyrequests: Retry-After: 7", 7),
        ("denied: retry-after: 1m2.5s", 62.5),
        ("toomanyrequests: You have reached your pull rate limit", None),
        ("429 Too Many Requests", None),
    ],
)
def test_what_a_registry_asks_to_wait_is_read_from_its_words(said: str, seconds: float | None) -> None:
    failed = pull_failed(API, said, Access())
    assert (failed.fault, failed.retry_after) == (PullFault.THROTTLED, seconds)
