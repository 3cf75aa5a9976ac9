"""Platforms, as inspect tells them and as Docker writes them."""

import pytest

from lookout.platforms import (
    as_json,
    fits,
    platform_of_container,
    platform_of_engine,
    platform_of_image,
)


def test_a_platform_is_written_as_docker_does() -> None:
    assert platform_of_image({"Os": "linux", "Architecture": "amd64", "Variant": ""}) == "linux/amd64"
    assert platform_of_image({"Os": "linux", "Architecture": "arm", "Variant": "v7"}) == "linux/arm/v7"
    assert platform_of_image({"Os": "linux", "Architecture": ""}) == ""
    assert platform_of_image({}) == ""


def test_an_architecture_has_one_name() -> None:
    assert platform_of_image({"Os": "linux", "Architecture": "x86_64"}) == "linux/amd64"
    assert platform_of_engine({"OSType": "linux", "Architecture": "aarch64"}) == "linux/arm64"


def test_a_container_tells_its_own_where_its_image_is_for_several() -> None:
    chosen = {"architecture": "arm64", "os": "linux", "variant": "v8"}
    assert platform_of_container({"ImageManifestDescriptor": {"platform": chosen}}) == "linux/arm64/v8"
    assert platform_of_container({"ImageManifestDescriptor": None}) == ""
    assert platform_of_container({"Platform": "linux"}) == ""


@pytest.mark.parametrize(
    ("platform", "wanted", "does"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm64", "linux/amd64", False),
        ("windows/amd64", "linux/amd64", False),
        ("", "linux/amd64", True),
        ("linux/amd64", "", True),
    ],
)
def test_an_image_fits_a_platform(platform: str, wanted: str, does: bool) -> None:
    assert fits(platform, wanted) is does


def test_the_api_has_them_in_json() -> None:
    assert as_json("linux/arm/v7") == {"os": "linux", "architecture": "arm", "variant": "v7"}
    assert as_json("linux/amd64") == {"os": "linux", "architecture": "amd64"}
