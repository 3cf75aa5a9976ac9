"""What all tests share."""

import os

import pytest

from lookout.settings import Settings

OWN = {name.replace("_", "") for name in Settings.model_fields}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches a test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "DOCKER_")) or name.lower().replace("_", "") in OWN:
            monkeypatch.delenv(name)
