"""What Compose keeps on its containers, and what its next `up` makes of one that was replaced.

`up` leaves a container alone while two labels are what it expects: the hash of its service, over what
its file says with the name of the image in it, and the id of the image that this name means on the
engine. What the container was created from it does not look at. So a container on another tag counts
as the one that the file asks for, as long as its labels say so. A service that shares a namespace of
another one has that container's id in its hash, which nobody but Compose can make anew.
"""

from collections.abc import Iterator

from lookout.model import Json, Reference
from lookout.names import COMPOSED_FROM, reference_of
from lookout.plan import NAMESPACES
from lookout.printable import one_line
from lookout.surroundings import Surroundings

PREFIX = "com.docker.compose."
#: The id of the image that Compose has seen the container run on.
IMAGE = PREFIX + "image"
PROJECT, SERVICE, ONE_OFF = PREFIX + "project", PREFIX + "service", PREFIX + "oneoff"
FILES, FOLDER = PREFIX + "project.config_files", PREFIX + "project.working_dir"
ENVIRONMENT_FILE = PREFIX + "project.environment_file"
#: By which Compose calls a file that it has read from its standard input.
STDIN = "-"


def labels(container: Json, reference: str, image_id: str) -> Json:
    """What the labels of a container must say, on the image `reference`, for Compose to leave it alone.

    Where its file means a new image by the same tag, Compose learns of that. With another tag than its
    file has it must go on seeing the image that it has put there itself.
    """
    if not _is_kept_by_compose(container):
        return {}
    if _has_drifted(container, reference):
        return {COMPOSED_FROM: _composed_from(container)}
    is_new = image_id != container["Image"] or COMPOSED_FROM in _labels(container)
    return {IMAGE: image_id} if is_new else {}


def remarks(container: Json, reference: str, around: Surroundings) -> Iterator[str]:
    """What the next `up` makes of the container once it runs the image `reference`."""
    if not _is_kept_by_compose(container):
        return
    owners = list(_namespace_owners(container))
    is_moved = any(around.successor(owner) != owner for owner in owners)
    known = {key: one_line(str(value)) for key, value in _labels(container).items()}
    service = f"service {known.get(SERVICE, '')} of project {known.get(PROJECT, '')}"
    if _has_drifted(container, reference):
        new = Reference.parse(_meant(container, reference))
        files = f" ({known[FILES]})" if known.get(FILES, STDIN) != STDIN else ""
        usual = f"{known[FOLDER]}/.env" if known.get(FOLDER) else "its .env"
        variables = known.get(ENVIRONMENT_FILE) or usual
        yield (
            f"Compose has {_composed_from(container)} for {service}{files}: {_put_back(bool(owners), is_moved)}; set "
            f"the tag {new.tag if new else reference} there, or in {variables}, and the next `up` makes the container "
            "anew once more, on this image"
        )
    elif is_moved:
        yield (
            "the next `docker compose up` makes the container anew once more, by the same tag: to Compose the id of "
            f"the container whose namespace it shares is part of {service}"
        )


def _put_back(shares: bool, is_moved: bool) -> str:
    if is_moved:
        return "the next `docker compose up` puts that back, since the container whose namespace it shares is new"
    also = " or the container whose namespace it shares is another one" if shares else ""
    return (
        f"`docker compose up` leaves the container alone until something of the service changes{also}, "
        "and then puts that back"
    )


def _is_kept_by_compose(container: Json) -> bool:
    """Whether `up` looks after it: after one of `docker compose run` nobody does."""
    return IMAGE in _labels(container) and _labels(container).get(ONE_OFF) != "True"


def _has_drifted(container: Json, reference: str) -> bool:
    """Whether its file names another image than it will run; what moves a tag moves it for the file too."""
    old = Reference.parse(_composed_from(container))
    new = Reference.parse(_meant(container, reference))
    if old is None or new is None:
        return _composed_from(container) != _meant(container, reference)
    return (old.name, old.tag, old.digest) != (new.name, new.tag, new.digest)


def _composed_from(container: Json) -> str:
    """What the file of Compose said when Compose has made this container, or the first one before it."""
    return str(_labels(container).get(COMPOSED_FROM) or reference_of(container))


def _meant(container: Json, reference: str) -> str:
    """What is recreated on its own image by its id stays what its user has asked for."""
    return reference_of(container) if reference.startswith("sha256:") else reference


def _namespace_owners(container: Json) -> Iterator[str]:
    for field in NAMESPACES:
        kind, _, owner = (container["HostConfig"].get(field) or "").partition(":")
        if kind == "container":
            yield owner


def _labels(container: Json) -> Json:
    found: Json = container["Config"].get("Labels") or {}
    return found
