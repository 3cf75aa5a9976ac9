"""Platforms as Docker writes them: `linux/amd64`, `linux/arm64/v8`."""

from lookout.model import Json

# As kernels have it, and some images too.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
}


def platform_of_container(container: Json) -> str:
    """The one that an inspected container was created for; empty where only its image can tell.

    Only image stores that keep several platforms under one id say it (API 1.48).
    """
    chosen = (container.get("ImageManifestDescriptor") or {}).get("platform") or {}
    return _joined(chosen.get("os"), chosen.get("architecture"), chosen.get("variant"))


def platform_of_image(image: Json) -> str:
    """The one that an inspected image is for; empty where it does not say."""
    return _joined(image.get("Os"), image.get("Architecture"), image.get("Variant"))


def platform_of_engine(info: Json) -> str:
    """The one that an engine itself runs on, by what it says of itself."""
    return _joined(info.get("OSType"), info.get("Architecture"), "")


def fits(platform: str, wanted: str) -> bool:
    """Whether an image for `platform` is one for `wanted`; where nothing tells, it is.

    Variants are left to the engine: a processor runs those that are older than itself.
    """
    return not (platform and wanted) or platform.split("/")[:2] == wanted.split("/")[:2]


def as_json(platform: str) -> dict[str, str]:
    """The same as the Engine API has it where it wants JSON."""
    return dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))


def _joined(system: object, architecture: object, variant: object) -> str:
    if not (system and architecture):
        return ""
    known = _ARCHITECTURES.get(str(architecture), architecture)
    return "/".join(str(part) for part in (system, known, variant) if part)
