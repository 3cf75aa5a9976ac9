"""The names and labels by which a half-done swap is recognised, and finished or undone."""

import re

from lookout.model import Json

PREFIX = "lookout.swap."
#: Full id of the container that this one takes over from.
REPLACES = PREFIX + "replaces"
#: The name that this container gets in the end.
NAME = PREFIX + "name"
#: In which order the two containers stop and start.
MODE = PREFIX + "mode"
#: Restart policy of the old container as JSON: what to restore after it was parked.
RESTART = PREFIX + "restart"
#: What this container was created from before its tag moved on: now it is from the image's id.
IMAGE = PREFIX + "image"
#: What its predecessor was created from.
OLD_IMAGE = PREFIX + "old-image"
#: What its Compose file said, where that is not what this container was created from.
COMPOSED_FROM = PREFIX + "composed-from"
#: Paths of files in its own layer that were carried to it, as JSON.
FILES = PREFIX + "files"
#: Who is doing the swap.
BY = PREFIX + "by"
#: The id of the deploy: all its containers are replaced, or none.
DEPLOY = PREFIX + "deploy"
#: Whether the old container ran: `true` or `false`.
SERVES = PREFIX + "serves"
#: What is asked of this container before it counts as ready, as JSON.
MONITOR = PREFIX + "monitor"
#: Full id of the container that served, where the one to go back to is its stand-in.
LIVE = PREFIX + "live"
#: Of a stand-in: full id of the container that it stands in for.
ROLLBACK_FOR = PREFIX + "rollback-for"

#: The message that this container came from: its id, when it was sent, in milliseconds since the epoch, and
#: its group in a FIFO queue.
MESSAGE_ID = "lookout.message-id"
SENT_TIMESTAMP = "lookout.sent-timestamp"
MESSAGE_GROUP_ID = "lookout.message-group-id"

#: The images that its predecessors ran, as JSON: candidates for removal.
REPLACED_IMAGES = "lookout.replaced-images"

STOP_FIRST = "stop-first"

_LEFTOVER = re.compile(r"\.lookout-(?:new|old|done|rb)\.[0-9a-f]{12}$")


def name_of(container: Json) -> str:
    """The name of an inspected container, as people write it."""
    return str(container["Name"]).lstrip("/")


def reference_of(container: Json) -> str:
    """What an inspected container was created from, as its user wrote it: mostly a name and a tag."""
    labels = container["Config"].get("Labels") or {}
    return str(labels.get(IMAGE) or container["Config"]["Image"])


def policy_of(container: Json) -> Json:
    """The restart policy of an inspected container. Without a name, as API clients may leave it, it is `no`."""
    policy: Json = container["HostConfig"].get("RestartPolicy") or {}
    return policy if policy.get("Name") else {"Name": "no"}


def short_id(container_id: str) -> str:
    """The 12 digits that the engine itself uses as hostname and alias."""
    return container_id[:12]


def new_name(name: str, old_id: str) -> str:
    """The name of the new container until it takes over.

    It follows from the old container alone, so a second attempt gets a 409 and no second container.
    """
    return f"{name}.lookout-new.{short_id(old_id)}"


def old_name(name: str, old_id: str) -> str:
    """The name of the old container from the moment it gives its own away."""
    return f"{name}.lookout-old.{short_id(old_id)}"


def standin_name(name: str, old_id: str) -> str:
    """The name of the stand-in for a container that is removed when it stops, until that may stop."""
    return f"{name}.lookout-rb.{short_id(old_id)}"


def done_name(name: str, old_id: str) -> str:
    """The name of the old container from the moment that the new one has proven itself."""
    return f"{name}.lookout-done.{short_id(old_id)}"


def is_done_name(name: str) -> bool:
    """Whether a container of this name was replaced by one that has proven itself."""
    return is_leftover_name(name) and name.rpartition(".lookout-")[2].startswith("done.")


def listed_name(listed: Json) -> str:
    """The name of a container as the engine lists it, which adds the aliases of links: `/other/alias`."""
    own = [name for name in listed.get("Names") or () if name.count("/") == 1]
    return str(own[0]).lstrip("/") if own else ""


def is_leftover_name(name: str) -> bool:
    """Whether a container of this name is, or was left by, a swap."""
    return bool(_LEFTOVER.search(name))


def final_name(name: str) -> str:
    """The name without what a swap has added to it."""
    return _LEFTOVER.sub("", name)
