"""`lookout plan`: what a deploy would do on this engine, found out without doing it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from lookout.engine import Credentials, Engine
from lookout.errors import (
    CopyRefused,
    EngineError,
    EngineUnavailable,
    NotFound,
    SwapRefused,
    UnknownContainer,
)
from lookout.model import DeployRequest, ImageRef, Json, Outcome, Reference, Report
from lookout.names import name_of
from lookout.plan import DeployPlan
from lookout.planner import Planner
from lookout.puller import Puller
from lookout.targets import Target


@dataclass(frozen=True)
class Preview:
    """How a message for this image would end, as far as that can be told before."""

    image: ImageRef
    report: Report
    plan: DeployPlan | None = None
    remarks: tuple[str, ...] = ()


class Previewer:
    """Looks with the eyes of the daemon; changes nothing, but for the image where it is told to pull."""

    def __init__(self, engine: Engine, planner: Planner, credentials: Credentials | None) -> None:
        self._engine = engine
        self._planner = planner
        self._credentials = credentials

    async def preview(self, image: ImageRef | None, container: str | None, *, pull: bool) -> Preview:
        """The plan for an image, as far as it is about `container` if one is named.

        Without an image it is the one that the container was created from.
        Raises UnknownContainer, PullFailed, and the engine's errors.
        """
        only = await self._container(container) if container else None
        image = image or self._image_of(only or {})
        targets = await self._planner.find(image.name)
        if report := self._planner.idle(targets):
            return Preview(image, report)
        preview = await self._plan(image, targets, pull=pull)
        return _about(preview, name_of(only)) if only else preview

    async def _container(self, name: str) -> Json:
        try:
            return await self._engine.container(name)
        except NotFound:
            raise UnknownContainer(name) from None

    def _image_of(self, container: Json) -> ImageRef:
        reference = Reference.parse(container["Config"]["Image"])
        if reference is None or reference.tag is None:
            raise UnknownContainer(name_of(container), "was not created from a tag; say IMAGE:TAG too")
        return ImageRef(reference.name, reference.tag)

    async def _plan(self, image: ImageRef, targets: list[Target], *, pull: bool) -> Preview:
        if pull:
            request = DeployRequest(image)
            inspected: Json | None = await Puller(self._engine, self._credentials).pull(
                request, deploy_time=0
            )
            remarks: tuple[str, ...] = ()
        else:
            inspected = await self._present(image)
            remarks = tuple([remark async for remark in self._compare(image, inspected)])
        try:
            plan = await self._planner.plan(targets, image, inspected)
        except (CopyRefused, SwapRefused) as exc:
            return Preview(image, Report(Outcome.FAILED, str(exc)), remarks=remarks)
        outcome = Outcome.DEPLOYED if plan.groups else Outcome.UNCHANGED
        return Preview(image, Report(outcome), plan, remarks)

    async def _present(self, image: ImageRef) -> Json | None:
        try:
            return await self._engine.image(f"{image.name.canonical}:{image.tag}")
        except NotFound:
            return None

    async def _compare(self, image: ImageRef, present: Json | None) -> AsyncIterator[str]:
        """A deploy pulls first; whether it would get what is here already."""
        if present is None:
            yield "the image is not on this engine yet, so what comes from it is not known; see --pull"
        try:
            digest = await self._engine.registry_digest(image, self._credentials)
        except (EngineError, EngineUnavailable) as exc:
            yield f"a deploy pulls the image first, and that may fail: {exc}"
        else:
            known = (present or {}).get("RepoDigests") or ()
            if present and not any(one.endswith(f"@{digest}") for one in known):
                yield "the registry has another image under this tag by now; see --pull"


def _about(preview: Preview, name: str) -> Preview:
    """A deploy is always for all containers of its image; shown is what happens to one."""
    if preview.plan is None:
        return preview
    plan = preview.plan.about(name)
    if not (plan.groups or plan.unchanged or plan.left_alone):
        return replace(preview, report=Report(Outcome.NOT_HERE, f"{name} is not touched by it"), plan=plan)
    if not plan.groups:
        outcome = Outcome.UNCHANGED if plan.unchanged else Outcome.IGNORED
        return replace(preview, report=Report(outcome), plan=plan)
    return replace(preview, plan=plan)
