"""What is shown of a deploy while it lasts, and that the text of others does no harm."""

import io
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from lookout.model import ContainerReport, ImageName, ImageRef, Outcome, Phase
from lookout.printable import error, fenced, group, one_line, printable
from lookout.reply_queue import Answer
from lookout.result import Result
from lookout.screen import GitHub, Lines, Live
from lookout.sender import Watch
from lookout.verdict import Verdict, as_json, as_lines

RESULT = Result("m-1", "acme/api", "2")
IMAGE = ImageRef(ImageName.parse("acme/api"), "2")


def pulling(percent: int | None, done: int | None = None, total: int | None = None) -> Result:
    return replace(RESULT, phase=Phase.PULLING, percent=percent, bytes_done=done, bytes_total=total)


def replacing(**phases: Phase) -> Result:
    reports = tuple(ContainerReport(name, phase=phase) for name, phase in phases.items())
    return replace(RESULT, phase=Phase.REPLACING, containers=reports)


def shown(*results: Result) -> list[str]:
    lines: list[str] = []
    screen = Lines(lines.append)
    for result in results:
        screen.progress(result)
    return lines


def test_there_is_a_line_for_each_change_and_none_for_what_was_told() -> None:
    lines = shown(
        replace(RESULT, phase=Phase.WAITING),
        replace(RESULT, phase=Phase.WAITING),
        replacing(a=Phase.STOPPING, b=Phase.WAITING),
        replacing(a=Phase.STARTING, b=Phase.WAITING),
    )
    assert lines == ["waiting", "replacing", "a: stopping", "b: waiting", "a: starting"]


def test_a_pull_is_told_in_coarse_steps_that_never_fall() -> None:
    percents = [0, 1, 9, 10, 12, 35, 20, 41, 100]
    assert shown(*map(pulling, percents)) == [
        "pulling 0%",
        "pulling 10%",
        "pulling 35%",
        "pulling 41%",
        "pulling 100%",
    ]
    assert shown(pulling(50, 1_500_000, 3_000_000)) == ["pulling 50% (1.5 of 3.0 MB)"]
    assert shown(pulling(None), pulling(None)) == ["pulling"]


def test_a_phase_that_is_not_known_is_passed_over() -> None:
    assert shown(RESULT, replace(RESULT, containers=(ContainerReport("a"),))) == []


def test_after_a_failure_that_is_tried_again_all_is_told_anew() -> None:
    lines: list[str] = []
    screen = Lines(lines.append)
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    screen.progress(pulling(80))
    screen.will_retry(
        replace(RESULT, outcome=Outcome.FAILED, error="no\nregistry", will_retry=True, next_attempt_at=at)
    )
    screen.progress(pulling(10))
    assert lines == [
        "pulling 80%",
        "failed: no registry; it will be tried again at 2030-01-02 03:04:05 UTC",
        "pulling 10%",
    ]


def test_trouble_that_lasts_is_told_once() -> None:
    lines: list[str] = []
    screen = Lines(lines.append)
    for text in ("SQS\nis away", "SQS\nis away", "SQS is here"):
        screen.trouble(text)
    assert lines == ["SQS is away", "SQS is here"]


def test_the_live_display_has_a_bar_and_a_line_for_each_container() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, markup=True, _environ={})
    with Live("deploy of acme/api:2", console) as live:
        live.sent("m-1")
        for result in (pulling(40, 4_000_000, 10_000_000), replacing(web=Phase.STARTING)):
            live.progress(result)
            live._display.refresh()
        live.trouble("[red]a\nb")
    text = output.getvalue()
    assert "40% (4.0 of 10.0 MB)" in text
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in text
    assert "web: starting" in text
    assert "deploy of acme/api:2: replacing" in text


def test_what_is_shown_live_of_others_is_no_markup_and_steers_no_terminal() -> None:
    output = io.StringIO()
    console = Console(
        file=output,
        force_terminal=True,
        color_system=None,
        width=100,
        markup=False,
        highlight=False,
        emoji=False,
    )
    with Live("deploy", console) as live:
        live.progress(replacing(**{"[bold]x\x1b]0;title\x07": Phase.STARTING}))
        live._display.refresh()
        live.will_retry(replace(RESULT, outcome=Outcome.FAILED, error="[red]:smile:\x1b[5m"))
    text = output.getvalue()
    assert "[bold]x" in text
    assert "[red]:smile:" in text
    assert "\x1b]" not in text
    assert "\x1b[5m" not in text


@given(st.text())
def test_printable_text_has_nothing_that_a_terminal_acts_upon(text: str) -> None:
    made = printable(text)
    assert all(char.isprintable() or char in "\n\t" for char in made)
    assert printable(made) == made
    assert one_line(text).isprintable()
    made.encode()


def test_text_that_can_be_shown_stays_as_it_is() -> None:
    assert printable("a\tb\n\N{SNOWMAN} [bold]\n") == "a\tb\n\N{SNOWMAN} [bold]\n"
    assert printable("a\r\nb\x1b[1mc") == "a\nb\N{REPLACEMENT CHARACTER}[1mc"


def test_a_command_for_github_is_one_line_whatever_it_says() -> None:
    assert error("a:b,c%\n", "x:y,\r\n%0A") == "::error title=a%3Ab%2Cc%25%0A::x:y,%0D%0A%250A"
    assert group("a\nb") == "::group::a%0Ab"


def test_each_fence_has_a_token_of_its_own_that_opens_and_closes_it() -> None:
    first, second = (list(fenced(iter(["::error::x"]))) for _ in range(2))
    token = first[0].removeprefix("::stop-commands::")
    assert first == [f"::stop-commands::{token}", "::error::x", f"::{token}::"]
    assert len(token) >= 32
    assert first[0] != second[0]


def test_the_fence_of_the_progress_is_closed_also_after_an_error() -> None:
    lines: list[str] = []
    with suppress(KeyboardInterrupt), GitHub(lines.append, "deploy") as screen:
        screen.progress(replacing(**{"::error::x": Phase.STARTING}))
        raise KeyboardInterrupt
    token = lines[1].removeprefix("::stop-commands::")
    assert [lines[0], *lines[-2:]] == ["::group::deploy", f"::{token}::", "::endgroup::"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from([10**4000, "9" * 4000]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
MOMENTS = st.sampled_from(
    ["2030-01-01", "2030-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31", "x"]
)
NUMBERS = ("Percent", "BytesDone", "BytesTotal", "DowntimeMs")
TIMES = ("NextAttemptAt", "StartedAt", "FinishedAt")
CONTAINER = st.fixed_dictionaries(
    {"Name": st.text(), "Outcome": st.sampled_from(["in_progress", "deployed"]) | VALUES},
    optional={"LogTail": VALUES, "Phase": st.sampled_from(Phase) | VALUES, "DowntimeMs": VALUES},
)
TOLD = st.fixed_dictionaries(
    {
        "Type": st.just("lookout.result"),
        "MessageId": st.just("m-1"),
        "Outcome": st.sampled_from(["in_progress", "deployed", "failed"]) | VALUES,
    },
    optional={
        **dict.fromkeys(NUMBERS, st.integers() | VALUES),
        **dict.fromkeys(TIMES, MOMENTS | VALUES),
        "Phase": st.sampled_from(Phase) | VALUES,
        "WillRetry": VALUES,
        "Error": VALUES,
        "HostId": VALUES,
        "Containers": st.lists(CONTAINER, max_size=2) | VALUES,
    },
)


STRANGE = {"Type": "lookout.result", "MessageId": "m-1", "Outcome": "in_progress", "Phase": "pulling"}


@settings(deadline=None)
@example(STRANGE | {"Percent": float("inf")})
@example(STRANGE | {"Percent": 1, "BytesDone": 10**4000, "BytesTotal": 10**4000})
@example(STRANGE | {"Outcome": "deployed", "StartedAt": "2030-01-01", "FinishedAt": "2030-01-01T00:00:00Z"})
@example(STRANGE | {"Outcome": "deployed", "StartedAt": "0001-01-01T00:00:00+14:00"})
@given(TOLD)
def test_whatever_comes_on_the_queue_is_no_result_or_can_be_shown(told: dict[str, object]) -> None:
    """Who may send to a shared queue must not end the waiting of all."""
    with suppress(ValueError):
        text = json.dumps(told)
        answer = Answer(1, Result.from_json(text))
        lines: list[str] = []
        show_all(answer, lines)
        assert all(line.isprintable() for line in lines)


def show_all(answer: Answer, lines: list[str]) -> None:
    try:
        watch = Watch(Lines(lines.append), for_retries=True)
        watch.hear(answer)
        Watch(Live("deploy", Console(file=io.StringIO())), for_retries=True).hear(answer)
        told = verdict(watch.result, progress=watch.progress)
        lines += as_lines(told, terminal=False)
        json.loads(as_json(told))
        error("x", told.explanation).encode()
    except ValueError as exc:
        raise AssertionError from exc


def verdict(result: Result | None, **more: object) -> Verdict:
    return Verdict("m-1", IMAGE, result, **more)  # type: ignore[arg-type]


def test_off_a_terminal_no_line_is_wrapped_however_long() -> None:
    error = "x" * 4000
    report = ContainerReport(
        "web", Outcome.FAILED, old_image="a" * 300, new_image="b" * 300, reason="c" * 500
    )
    result = replace(RESULT, outcome=Outcome.FAILED, error=error, containers=(report,))
    lines = list(as_lines(verdict(result), terminal=False))
    assert f"reason    {error}" in lines
    assert any("a" * 300 + " -> " + "b" * 300 in line and "c" * 500 in line for line in lines)
    assert all(line == line.rstrip() and line.isascii() for line in lines)


def test_cells_are_no_markup() -> None:
    result = replace(RESULT, outcome=Outcome.FAILED, error="[red]no[/red] :smile:\x1b[0m")
    for terminal in (True, False):
        text = "\n".join(as_lines(verdict(result), terminal=terminal))
        assert "[red]no[/red] :smile:" in text
        assert "\x1b" not in text


def test_a_rollback_that_failed_is_spelled_for_people() -> None:
    report = ContainerReport("web", Outcome.ROLLBACK_FAILED, downtime=1.26)
    result = replace(RESULT, outcome=Outcome.ROLLBACK_FAILED, containers=(report,))
    lines = list(as_lines(verdict(result), terminal=False))
    assert lines[0] == "outcome   rollback failed"
    assert lines[-1] == "web        rollback failed  -      1.3 s"


def test_the_json_of_no_answer_has_the_last_progress_and_is_no_result_of_lookout() -> None:
    text = as_json(verdict(None, progress=pulling(7), reason="no answer within 5 s"))
    assert '"Outcome": "no_answer"' in text
    assert '"Percent": 7' in text
    assert "LastProgress" not in as_json(verdict(None))


def test_the_json_reads_the_same_although_githubs_older_commands_are_broken_up() -> None:
    result = replace(RESULT, outcome=Outcome.FAILED, error="a##[error]b###[c]")
    text = as_json(verdict(result))
    assert "##[" not in text
    assert Result.from_json(text) == result
