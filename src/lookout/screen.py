"""What is shown of a deploy while it lasts: live on a terminal, else a line for each change."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lookout.model import ContainerReport, Phase
from lookout.printable import END_GROUP, Fence, group, one_line
from lookout.result import Result

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

STEP = 10  # percent of a pull between two lines
_BAR = 40  # characters
_REFRESHES = 8  # a second

Say = Callable[[str], object]


class Lines:
    """A line for each change, with nothing in it that only a terminal understands."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told: dict[str, str] = {}
        self._step = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sent(self, message_id: str) -> None:
        self._say(f"sent as {message_id}")

    def progress(self, result: Result) -> None:
        if result.phase is Phase.PULLING and result.percent is not None:
            self._pulling(result, result.percent)
        elif result.phase:
            self._tell("phase", _words(result.phase), _words(result.phase))
        for one in result.containers:
            if state := _state(one):
                name = one_line(one.name)
                self._tell(f"container {name}", state, f"{name}: {state}")

    def will_retry(self, result: Result) -> None:
        self._told, self._step = {}, -1
        self._say(_retry(result))

    def trouble(self, text: str) -> None:
        self._tell("trouble", text, one_line(text))

    def _pulling(self, result: Result, percent: int) -> None:
        """Not for a share that falls because more is known of what is to come."""
        step = percent // STEP
        if step > self._step:
            self._step = step
            self._tell("phase", f"pulling {step}", f"pulling {percent}%{_bytes(result)}")

    def _tell(self, of: str, state: str, line: str) -> None:
        if self._told.get(of) != state:
            self._told[of] = state
            self._say(line)


class GitHub(Lines):
    """The same, folded away in the log of a run."""

    def __init__(self, say: Say, title: str) -> None:
        super().__init__(say)
        self._title = title
        self._fence = Fence()

    def __enter__(self) -> Self:
        self._say(group(self._title))
        self._say(self._fence.begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._say(self._fence.end)
        self._say(END_GROUP)


class Live:
    """A display that changes in place, and is gone at the end."""

    def __init__(self, title: str, console: "Console | None" = None) -> None:
        from rich.console import Console
        from rich.live import Live as Display

        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._title = title
        self._note = "waiting for a Lookout to take it"
        self._result: Result | None = None
        self._display = Display(
            get_renderable=self._rendered,
            console=self._console,
            refresh_per_second=_REFRESHES,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal is gone
            self._display.stop()

    def sent(self, message_id: str) -> None:
        self._console.print(f"sent as {message_id}")

    def progress(self, result: Result) -> None:
        self._result = result
        self._note = _words(result.phase) if result.phase else self._note

    def will_retry(self, result: Result) -> None:
        self._console.print(_retry(result))
        self._result, self._note = None, "waiting for the next try"

    def trouble(self, text: str) -> None:
        self._console.print(one_line(text))

    def _rendered(self) -> "RenderableType":
        from rich.console import Group

        return Group(*self._rows())

    def _rows(self) -> Iterator[Any]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        yield Text(f"{self._title}: {self._note}", style="bold")
        result = self._result
        if result is None:
            return
        if result.phase is Phase.PULLING and result.percent is not None:
            row = Table.grid(padding=(0, 1))
            row.add_row(
                ProgressBar(total=100, completed=result.percent, width=_BAR),
                Text(f"{result.percent}%{_bytes(result)}"),
            )
            yield row
        for one in result.containers:
            yield Text(f"  {one_line(one.name)}: {_state(one)}")


def _words(phase: Phase) -> str:
    return phase.value.replace("_", " ")


def _state(one: ContainerReport) -> str:
    if one.outcome:
        return one.outcome.value.replace("_", " ")
    return _words(one.phase) if one.phase else ""


def _bytes(result: Result) -> str:
    if result.bytes_done is None or not result.bytes_total:
        return ""
    return f" ({result.bytes_done / 1e6:.1f} of {result.bytes_total / 1e6:.1f} MB)"


def _retry(result: Result) -> str:
    return f"{result.outcome}: {one_line(result.error) or 'no reason given'}; {when(result)}"


def when(result: Result) -> str:
    """Whether and when it is tried again."""
    if not result.will_retry:
        return "it will not be tried again"
    if result.next_attempt_at is None:
        return "it will be tried again"
    return f"it will be tried again at {result.next_attempt_at:%Y-%m-%d %H:%M:%S %Z}".rstrip()
