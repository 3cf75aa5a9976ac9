"""What an engine tells of a pull, line by line, as numbers."""

import pytest
from structlog.testing import capture_logs

from lookout import progress
from lookout.model import ImageName, ImageRef, Json
from lookout.progress import Layers, Progress


def line(key: str, status: str, current: int | None = None, total: int | None = None) -> Json:
    detail = {key: value for key, value in (("current", current), ("total", total)) if value is not None}
    return {"id": key, "status": status, "progressDetail": detail}


def test_layers_and_bytes_add_up() -> None:
    layers = Layers()
    seen: list[Progress] = []
    for told in (
        {"status": "Pulling from acme/api", "id": "2"},
        line("a", "Pulling fs layer"),
        line("b", "Pulling fs layer"),
        line("b", "Waiting"),
        line("a", "Downloading", 50, 100),
        line("b", "Already exists"),
        line("a", "Retrying in 5 seconds"),
        line("a", "Downloading", 10, 100),
        line("a", "Download complete"),
        line("a", "Extracting", 20, 100),
        line("a", "Pull complete"),
        {"status": "Digest: sha256:ab"},
        {"status": "Status: Downloaded newer image for acme/api:2"},
    ):
        assert layers.read(told)
        seen.append(layers.progress())
    assert [one.percent for one in seen] == [0, 0, 0, 0, 25, 75, 75, 55, 100, 100, 100, 100, 100]
    assert seen[4] == Progress(layers=2, layers_done=0, bytes=50, bytes_total=100, percent=25)
    assert seen[-1] == Progress(layers=2, layers_done=2, bytes=100, bytes_total=100, percent=100)
    assert layers.digest == "sha256:ab"


def test_what_is_said_again_is_no_news() -> None:
    layers = Layers()
    assert layers.read(line("a", "Downloading", 1, 9))
    assert layers.read(line("b", "Downloading", 1, 9))
    assert not layers.read(line("a", "Downloading", 1, 9))
    assert layers.read(line("a", "Downloading", 2, 9))


def test_unpacking_is_what_is_left_when_all_has_come() -> None:
    layers = Layers()
    assert not layers.is_unpacking
    layers.read(line("a", "Download complete"))
    layers.read(line("b", "Downloading", 1, 9))
    assert not layers.is_unpacking
    layers.read(line("b", "Extracting", 1, 9))
    assert layers.is_unpacking
    layers.read(line("a", "Pull complete"))
    layers.read(line("b", "Pull complete"))
    assert not layers.is_unpacking, "the registry still owes the rest"


def test_a_line_of_another_shape_does_no_harm() -> None:
    layers = Layers()
    for told in ({}, {"status": None, "id": None, "progressDetail": None}, line("a", "Downloading")):
        layers.read(told)
    assert layers.progress().percent == 0


@pytest.mark.parametrize(("every", "level"), [(0, "info"), (60, "debug")])
def test_a_long_pull_is_told_now_and_then_and_each_step_at_debug_level(
    monkeypatch: pytest.MonkeyPatch, every: float, level: str
) -> None:
    monkeypatch.setattr(progress, "TELL_EVERY", every)
    image = ImageRef(ImageName("ghcr.io", "acme/api"), "2")
    with capture_logs() as logs:
        told = progress.ProgressLog(image)
        told(Progress(layers=2, bytes=5, bytes_total=10, percent=50))
        told(Progress(layers=2, layers_done=1, bytes=5, bytes_total=10, percent=50))
    assert {event["log_level"] for event in logs} == {level}
    assert [(event["image"], event["percent"], event["layers_done"]) for event in logs] == [
        ("ghcr.io/acme/api:2", 50, 0),
        ("ghcr.io/acme/api:2", 50, 1),
    ]
