"""`lookout plan`: what a deploy would do on this engine, found out without doing it."""

from dataclasses import dataclass, replace

from lookout.engine import Engine
from lookout.errors import (
    AccessFailed,
    CopyRefused,
    InProgress,
    NotFound,
    PullFailed,
    UnknownContainer,
)
from lookout.model import DeployRequest, ImageRef, Json, Outcome, Reference, Report
from lookout.names import name_of, reference_of
from lookout.plan import DeployPlan
from lookout.planner import Planner
from lookout.puller import Puller
from lookout.targets import Target, created_from_id

UNKNOWN = "the image is not on this engine yet, so what comes from it is not known; see --pull"
MOVED = "the registry has another image under this tag by now; see --pull"


@dataclass(frozen=True)
class Preview:
    """How a message for this image would end, as far as that can be told before."""

    image: ImageRef
    report: Report
    plan: DeployPlan | None = None
    remarks: tuple[str, ...] = ()


class Previewer:
    """Looks with the eyes of the daemon; changes nothing, but for the image where it is told to pull."""

    def __init__(self, engine: Engine, planner: Planner, puller: Puller) -> None:
        self._engine = engine
        self._planner = planner
        self._puller = puller

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
            return await self._engine.container(name.lstrip("/"))
        except NotFound:
            raise UnknownContainer(name) from None

    def _image_of(self, container: Json) -> ImageRef:
        reference = None if created_from_id(container) else Reference.parse(reference_of(container))
        if reference is None or reference.tag is None:
            raise UnknownContainer(name_of(container), "was not created from a tag; say IMAGE:TAG too")
        return ImageRef(reference.name, reference.tag)

    async def _plan(self, image: ImageRef, targets: list[Target], *, pull: bool) -> Preview:
        """As far as the image is known: a deploy pulls first."""
        failure, remarks = "", tuple[str, ...]()
        try:
            platform = await self._planner.platform(targets)
        except CopyRefused as exc:
            return Preview(image, Report(Outcome.FAILED, str(exc)))
        if pull:
            request = DeployRequest(image)
            present: Json | None = await self._puller.pull(request, platform=platform, deploy_time=0)
        else:
            present = await self._present(image, platform)
            try:
                remarks = await self._compare(image, present)
            except PullFailed as exc:
                failure = str(exc)
        try:
            plan = await self._planner.plan(targets, image, present)
        except (CopyRefused, InProgress) as exc:
            return Preview(image, Report(Outcome.FAILED, failure or str(exc)), remarks=remarks)
        outcome = Outcome.DEPLOYED if plan.groups else Outcome.UNCHANGED
        return Preview(image, Report(Outcome.FAILED if failure else outcome, failure), plan, remarks)

    async def _present(self, image: ImageRef, platform: str) -> Json | None:
        try:
            return await self._engine.image(image.canonical, platform)
        except NotFound:
            return None

    async def _compare(self, image: ImageRef, present: Json | None) -> tuple[str, ...]:
        """Whether the pull of a deploy would get what is here already; raises PullFailed if it would fail."""
        unknown = () if present else (UNKNOWN,)
        try:
            digest = await self._puller.digest(image)
        except PullFailed as exc:
            if exc.fault.passes_soon and not isinstance(exc.__cause__, AccessFailed):
                return (*unknown, f"whether the pull of a deploy would work is not known: {exc.__cause__}")
            raise
        known = (present or {}).get("RepoDigests") or ()
        moved = present and not any(one.endswith(f"@{digest}") for one in known)
        return (*unknown, *((MOVED,) if moved else ()))


def _about(preview: Preview, name: str) -> Preview:
    """A deploy is always for all containers of its image; shown is what happens to one."""
    if preview.plan is None:
        return preview
    plan = preview.plan.about(name)
    if not (plan.groups or plan.unchanged or plan.left_alone):
        return replace(preview, report=Report(Outcome.NOT_HERE, f"{name} is not touched by it"), plan=plan)
    if not plan.groups and preview.report.outcome is not Outcome.FAILED:
        outcome = Outcome.UNCHANGED if plan.unchanged else Outcome.IGNORED
        return replace(preview, report=Report(outcome), plan=plan)
    return replace(preview, plan=plan)
