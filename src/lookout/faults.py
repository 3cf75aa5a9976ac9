"""Why a pull failed: engines tell it in words alone, with one status for most causes."""

import re

from lookout.credentials import ECR_TOKEN, Access
from lookout.errors import AccessFailed, PullFailed, PullFault
from lookout.model import ImageRef

_FAULTS = {
    # The containerd image store says so of content that it is just about to clear away.
    PullFault.TRANSIENT: re.compile(r"content digest \S+ not found"),
    PullFault.THROTTLED: re.compile(
        r"toomanyrequests|too many requests|http 429 response|rate limit|rate exceeded|retry-after"
    ),
    PullFault.CREDENTIALS: re.compile(
        r"unauthorized|no basic auth credentials|authentication required|authorization failed|forbidden"
        r"|incorrect username or password|(?<!permission )denied|http 40[13] response"
        r"|not authorized|authorization token has expired"
    ),
    PullFault.NO_SPACE: re.compile(r"no space left on device|disk quota exceeded"),
    PullFault.UNTRUSTED: re.compile(r"x509:|server gave http response to https client"),
    PullFault.PLATFORM: re.compile(
        r"no matching manifest|not match the specified platform|cannot overwrite digest"
    ),
    PullFault.NOT_FOUND: re.compile(r"manifest unknown|name unknown|not found|http 404 response"),
}
IMAGES = "ecr:BatchGetImage and ecr:GetDownloadUrlForLayer"

# As some registries write it into their texts: "retry-after: 3", "retry-after: 1m2.5s", "retry-after: 97.5ms".
_RETRY_AFTER = re.compile(
    r"retry-after:? *(?:(?P<m>\d+)m(?!s))?(?:(?P<n>\d+(?:\.\d+)?)(?P<unit>ms|µs|us|ns|s|\b))?"
)
_UNITS = {"ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}


def pull_failed(image: ImageRef, message: str, access: Access) -> PullFailed:
    """The error with its cause and the next step; `access` is how the registry was asked."""
    # A repository may well be named "denied".
    text = message.lower().replace(f"/{image.name.path}".lower(), "").replace(f":{image.tag}".lower(), "")
    fault = next((f for f, words in _FAULTS.items() if words.search(text)), PullFault.TRANSIENT)
    hint = "; ".join(
        (_hint(image, fault, access, text), *(access.remarks if fault is PullFault.CREDENTIALS else ()))
    )
    shown = " ".join(message.split())[:500]
    return PullFailed(str(image), fault, shown, access.source, hint, _retry_after(text))


def no_access(image: ImageRef, problem: AccessFailed) -> PullFailed:
    """The error where no pull was tried, since there is no way to the registry."""
    return PullFailed(str(image), problem.fault, problem.message, problem.source, problem.hint)


def _hint(image: ImageRef, fault: PullFault, access: Access, text: str) -> str:
    registry = image.name.domain
    match fault:
        case PullFault.CREDENTIALS if access.credentials and "token has expired" in text:
            return "the next try fetches another one"
        case PullFault.CREDENTIALS if access.source == ECR_TOKEN:
            return f"check that Lookout's IAM policy allows {IMAGES} on this repository"
        case PullFault.CREDENTIALS if access.credentials:
            return f"check them: {registry} did not take them, or they may not read this repository"
        case PullFault.CREDENTIALS:
            return f"set RegistryUsername and RegistryPassword, or log in to {registry} with `docker login`"
        case PullFault.NOT_FOUND:
            return "check ImageName and ImageTag or ImageDigest, and that CI pushed it before it sent the message"
        case PullFault.UNTRUSTED:
            return (
                f"let the engine trust the certificate of {registry}, or name it an insecure registry there"
            )
        case PullFault.PLATFORM if "overwrite" in text:
            return "remove the image of this digest that is here for another platform"
        case PullFault.PLATFORM:
            return "build the image for the platform that the container runs on"
        case PullFault.NO_SPACE:
            return "free space on this host's disk, for example with docker image prune"
        case PullFault.THROTTLED if access.credentials is None:
            return f"{registry} allows more to those who log in; give Lookout credentials for it"
        case PullFault.THROTTLED:
            return (
                f"{registry} is asked more often than it allows; spread deploys, or ask it for a higher limit"
            )
        case _:
            return f"check that {registry} can be reached from this host"


def _retry_after(text: str) -> float | None:
    """Seconds that the registry asks to wait for, where its text says so."""
    match = _RETRY_AFTER.search(text)
    if match is None or not (match["m"] or match["n"]):
        return None
    return 60.0 * int(match["m"] or 0) + float(match["n"] or 0) * _UNITS.get(match["unit"] or "", 1.0)
