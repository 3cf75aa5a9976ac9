"""How far a deploy is: its parts note it here, and whoever follows it is told that there is news."""

from collections.abc import Callable, Iterable

from lookout.model import ContainerReport, Phase
from lookout.progress import Progress


def _nobody_follows() -> None:
    pass


class Course:
    """One deploy, from the pull to the cleaning."""

    def __init__(self, changed: Callable[[], None] = _nobody_follows) -> None:
        self.phase = Phase.WAITING
        self.pull: Progress | None = None
        self._changed = changed
        self._containers: dict[str, ContainerReport] = {}

    @property
    def containers(self) -> tuple[ContainerReport, ...]:
        return tuple(self._containers.values())

    def enter(self, phase: Phase, containers: Iterable[ContainerReport] = ()) -> None:
        """Begin a phase; those of `containers` that are not known yet wait for their turn in it."""
        self.phase = phase
        self._containers = {one.name: one for one in containers} | self._containers
        self._changed()

    def pulling(self, progress: Progress) -> None:
        self.pull = progress
        self._changed()

    def note(self, container: ContainerReport) -> None:
        """Where one of them is; one that goes back takes the whole deploy back."""
        self._containers[container.name] = container
        if container.phase is Phase.ROLLING_BACK:
            self.phase = Phase.ROLLING_BACK
        self._changed()
