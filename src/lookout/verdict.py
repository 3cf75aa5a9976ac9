"""How a deploy that was waited for has ended: as text for people, and as JSON for programs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from lookout.model import ImageRef, Json, Outcome
from lookout.printable import one_line, printable
from lookout.result import TYPE, Result
from lookout.screen import when

#: After these what was asked for runs, or something newer, or nothing was asked for.
GOOD = (Outcome.DEPLOYED, Outcome.UNCHANGED, Outcome.SUPERSEDED, Outcome.IGNORED)
NO_ANSWER = "no_answer"
SENT = "sent"
_WIDEST = 10_000  # characters: what is no terminal breaks no lines
_UNKNOWN = "-"


@dataclass(frozen=True)
class Verdict:
    """What is known in the end."""

    message_id: str
    image: ImageRef
    result: Result | None
    progress: Result | None = None  # the last that was told of it, without a result
    reason: str = ""  # why there is none
    hint: str = ""  # what may be wrong where nobody has told of it

    @property
    def is_good(self) -> bool:
        return self.result is not None and self.result.outcome in GOOD

    @property
    def ending(self) -> str:
        """The outcome; of its own where there is none."""
        return self.result.outcome.value if self.result and self.result.outcome else NO_ANSWER

    @property
    def explanation(self) -> str:
        """On one line."""
        if self.result:
            return f"{one_line(self.result.error)}; {when(self.result)}".removeprefix("; ")
        return one_line(f"{self.reason}; {self._left}")

    @property
    def _left(self) -> str:
        seen = f"no Lookout has told of it; {self.hint}"
        if self.progress:
            phase = self.progress.phase.value.replace("_", " ") if self.progress.phase else "under way"
            seen = f"its deploy had begun: {phase}"
        return f"{seen}; the message is still on the queue or in the hands of a Lookout, and may be deployed later"


def as_json(verdict: Verdict) -> str:
    """The result as Lookout sent it; without one, an object of the same kind with the outcome `no_answer`."""
    text = verdict.result.to_json() if verdict.result else json.dumps(_no_answer(verdict))
    # GitHub Actions looks for an older kind of commands, `##[…]`, in the middle of lines too.
    return text.replace("##[", "\\u0023\\u0023[")


def _no_answer(verdict: Verdict) -> Json:
    told: Json = {
        "Type": TYPE,
        "MessageId": verdict.message_id,
        "ImageName": str(verdict.image.name),
        "ImageTag": verdict.image.tag,
        "Outcome": NO_ANSWER,
        "Error": verdict.explanation,
    }
    if verdict.progress:
        told["LastProgress"] = json.loads(verdict.progress.to_json())
    return told


def sent_as_json(message_id: str, image: ImageRef) -> str:
    """What `--no-wait` tells a program."""
    return json.dumps(
        {"MessageId": message_id, "ImageName": str(image.name), "ImageTag": image.tag, "Outcome": SENT}
    )


def as_lines(verdict: Verdict, *, terminal: bool) -> Iterator[str]:
    """Tables, then what is too long for them; on no terminal without a character beyond ASCII of Lookout's own."""
    yield from _table([], list(_facts(verdict)), terminal=terminal)
    if not verdict.result:
        return
    rows = list(_containers(verdict.result))
    if rows:
        yield ""
        yield from _table(["container", "outcome", "image", "downtime", "reason"], rows, terminal=terminal)
    for one in verdict.result.containers:
        if one.log_tail:
            yield ""
            yield f"the last lines of the log of {one_line(one.name)}:"
            yield from (f"  | {line}" for line in printable(one.log_tail).splitlines())


def _facts(verdict: Verdict) -> Iterator[list[str]]:
    result = verdict.result
    yield ["outcome", verdict.ending.replace("_", " ")]
    yield ["image", str(verdict.image)]
    yield ["message", verdict.message_id]
    if result is None:
        yield ["reason", verdict.explanation]
        return
    yield ["host", one_line(result.host_id) or _UNKNOWN]
    yield ["duration", _seconds(result.duration)]
    if result.error:
        yield ["reason", one_line(result.error)]
    if not verdict.is_good:
        yield ["next", when(result)]


def _containers(result: Result) -> Iterator[list[str]]:
    for one in result.containers:
        images = one_line(one.old_image) or _UNKNOWN
        if one.new_image:
            images += f" -> {one_line(one.new_image)}"
        ending = one.outcome.value.replace("_", " ") if one.outcome else _UNKNOWN
        yield [one_line(one.name), ending, images, _seconds(one.downtime), one_line(one.reason)]


def _seconds(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else f"{seconds:.1f} s"


def _table(heads: list[str], rows: list[list[str]], *, terminal: bool) -> list[str]:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        force_terminal=False,
        color_system=None,
        markup=False,
        highlight=False,
        emoji=False,
        width=None if terminal else _WIDEST,
    )
    table = Table(
        show_header=bool(heads),
        box=box.SIMPLE if terminal and heads else None,
        pad_edge=False,
        show_edge=False,
    )
    for head in heads or rows[0]:
        table.add_column(head, no_wrap=not terminal, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
