"""Why a pull failed: engines tell it in words alone, with one status for most causes."""

import re

from lookout.errors import PullFailed, PullFault
from lookout.model import ImageRef

_FAULTS = {
    PullFault.CREDENTIALS: re.compile(
        r"unauthorized|no basic auth credentials|authentication required|authorization failed|forbidden"
        r"|incorrect username or password|(?<!permission )denied"
    ),
    PullFault.NO_SPACE: re.compile(r"no space left on device|disk quota exceeded"),
    PullFault.PLATFORM: re.compile(r"no matching manifest|does not match the specified platform"),
    PullFault.NOT_FOUND: re.compile(r"manifest unknown|name unknown|not found"),
}


def pull_failed(image: ImageRef, message: str, *, credentials: bool) -> PullFailed:
    """The error with its cause and the next step; `credentials` says whether any were sent."""
    # A repository may well be named "denied".
    text = message.lower().replace(f"/{image.name.path}".lower(), "").replace(f":{image.tag}".lower(), "")
    fault = next((f for f, words in _FAULTS.items() if words.search(text)), PullFault.TRANSIENT)
    return PullFailed(str(image), fault, " ".join(message.split())[:500], _hint(image, fault, credentials))


def _hint(image: ImageRef, fault: PullFault, credentials: bool) -> str:
    match fault:
        case PullFault.CREDENTIALS if credentials:
            return f"check RegistryUsername and RegistryPassword: {image.name.domain} refused them"
        case PullFault.CREDENTIALS:
            return f"set RegistryUsername and RegistryPassword for {image.name.domain}"
        case PullFault.NOT_FOUND:
            return "check ImageName and ImageTag, and that CI pushed the image before it sent the message"
        case PullFault.PLATFORM:
            return "build the image for the platform of this host too"
        case PullFault.NO_SPACE:
            return "free space on this host's disk, for example with docker image prune"
        case PullFault.TRANSIENT:
            return f"check that {image.name.domain} can be reached from this host"
