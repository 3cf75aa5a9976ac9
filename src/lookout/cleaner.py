"""Removes the images that deploys have left behind, so that they never fill a disk."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from lookout.engine import Engine
from lookout.errors import EngineError, EngineUnavailable, NotFound
from lookout.history import Replaced
from lookout.model import ImageName, ImageRef, Json, Reference

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Before:
    """What an engine had before a pull."""

    ids: frozenset[str]
    tagged: str  # id of the image that had the tag; empty if none had


class Cleaner:
    """Removes what was replaced, or was no good, and nothing else. What cannot be removed stays for later."""

    def __init__(self, engine: Engine, *, keep: int) -> None:
        """So many of the images that were replaced last stay as `keep` says, for a quick way back."""
        self._engine = engine
        self._keep = keep

    async def known(self, replaced: Sequence[Replaced]) -> list[Replaced]:
        """Those of them that the engine still has; all, where it does not tell, which is no reason to fail."""
        try:
            return await self._known(replaced)
        except (EngineError, EngineUnavailable) as exc:
            log.warning("the engine does not tell its images; none is forgotten", error=str(exc))
            return [*replaced]

    async def clean(self, repository: ImageName, replaced: Sequence[Replaced]) -> None:
        """Remove the images of this repository that nobody needs, of those replaced, the latest first.

        One that cannot be removed is a warning in the log. Raises the engine's errors where it could not
        be looked into.
        """
        for entry in await self._spare(replaced) if replaced else ():
            try:
                image = await self._engine.image(entry.id)
            except NotFound:
                continue
            if is_only(image, repository, entry.tags):
                await self._remove(entry.id, image.get("RepoTags") or ())

    async def before(self, image: ImageRef) -> Before | None:
        """What the engine has now; for `take_back`. None where it does not tell, which is no reason to fail."""
        try:
            ids = frozenset(one["Id"] for one in await self._engine.images())
            return Before(ids, await self._tagged(image))
        except (EngineError, EngineUnavailable) as exc:
            log.warning("the engine does not tell its images; none is taken back", error=str(exc))
            return None

    async def take_back(self, image: ImageRef, pulled: str, before: Before) -> None:
        """After a pull that was in vain: the tag means again what it did, and what has come is removed.

        Else whoever uses the tag next would get what is no good. Where the tag means another image than the
        one that was `pulled`, by its id, somebody else was at work. Raises the engine's errors.
        """
        try:
            if (await self._engine.image(image.canonical))["Id"] == pulled != before.tagged:
                await self._untag(image, pulled, before)
            brought = await self._engine.image(pulled)
        except NotFound:
            return  # somebody else has tidied up
        is_new = pulled not in before.ids and pulled not in await self._used()
        if is_new and is_only(brought, image.name, frozenset([image.tag])):
            await self._remove(pulled, brought.get("RepoTags") or ())

    async def _tagged(self, image: ImageRef) -> str:
        """The id of the image that has this tag; empty if none has."""
        try:
            return str((await self._engine.image(image.canonical))["Id"])
        except NotFound:
            return ""

    async def _untag(self, image: ImageRef, pulled: str, before: Before) -> None:
        if before.tagged:
            await self._engine.tag(before.tagged, image)
        elif len((await self._engine.image(pulled)).get("RepoTags") or ()) > 1:  # else it would go too
            await self._engine.remove_image(image.canonical)

    async def _spare(self, replaced: Sequence[Replaced]) -> list[Replaced]:
        """Those that are still there, are not to be kept, and that no container and no other image is made of."""
        used = await self._used()
        return [entry for entry in (await self._known(replaced))[self._keep :] if entry.id not in used]

    async def _known(self, replaced: Sequence[Replaced]) -> list[Replaced]:
        ids = {image["Id"] for image in await self._engine.images()} if replaced else set()
        return [entry for entry in replaced if entry.id in ids]

    async def _used(self) -> set[str]:
        """Ids of the images that containers, running or not, or other images are made of."""
        parents = {image["ParentId"] for image in await self._engine.images() if image.get("ParentId")}
        return parents | {container["ImageID"] for container in await self._engine.listed()}

    async def _remove(self, image: str, names: Sequence[str]) -> None:
        try:
            for key in (*names, image):
                with suppress(NotFound):  # the image goes with its last name
                    await self._engine.remove_image(key)
        except (EngineError, EngineUnavailable) as exc:
            log.warning("an old image could not be removed", image=", ".join(names) or image, error=str(exc))
            return
        log.info("old image removed", image=", ".join(names) or image, image_id=image)


def is_only(image: Json, repository: ImageName, tags: frozenset[str]) -> bool:
    """Whether an inspected image has no other names than these tags of this repository, and digests there."""
    tagged = [Reference.parse(name) for name in image.get("RepoTags") or ()]
    digested = [Reference.parse(name) for name in image.get("RepoDigests") or ()]
    return all(one and one.name == repository and (one.digest or one.tag in tags) for one in tagged) and all(
        one and one.name == repository for one in digested
    )
