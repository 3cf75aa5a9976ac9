"""What engines say of a failed pull, word for word, and what Lookout makes of it."""

import pytest

from lookout.engine import Credentials
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
    ("toomanyrequests: You have reached your pull rate limit", PullFault.TRANSIENT),
    # containerd image store
    (f"{CONTAINERD}{HOST}/acme/api:2: not found", PullFault.NOT_FOUND),
    (f"unknown: {CONTAINERD}unexpected status from HEAD request: 401 Unauthorized", PullFault.CREDENTIALS),
    (f"{CONTAINERD}pull access denied, may require authorization", PullFault.CREDENTIALS),
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
    assert pull_failed(API, said, credentials=False).fault is fault


def test_the_name_of_an_image_is_no_cause() -> None:
    image = ImageRef(ImageName(HOST, "denied/unauthorized"), "forbidden")
    said = f"manifest for {HOST}/denied/unauthorized:forbidden not found: manifest unknown"
    assert pull_failed(image, said, credentials=False).fault is PullFault.NOT_FOUND


def test_the_hint_names_what_to_set() -> None:
    without, wrong = (str(pull_failed(API, "unauthorized", credentials=sent)) for sent in (False, True))
    assert "set RegistryUsername and RegistryPassword" in without
    assert "check RegistryUsername and RegistryPassword" in wrong


def test_credentials_are_never_shown() -> None:
    assert "hunter2" not in repr(Credentials("ci", "hunter2"))
