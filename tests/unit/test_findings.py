"""A finding is one line, and holds no secret of an address."""

from lookout.findings import Summary, ok, problem, remark


def test_a_finding_is_one_line_that_begins_with_its_level() -> None:
    assert str(ok("queue", "is there")) == "ok       queue: is there"
    assert str(remark("clock", "is off\n by 2 min", "set it")) == "remark   clock: is off by 2 min; set it"


def test_what_stands_before_the_host_of_an_address_is_not_shown() -> None:
    shown = str(problem("queue", "no answer of https://me:hunter2@proxy.test:8080/", "see http://x:y@z/"))
    assert shown == "problem  queue: no answer of https://…@proxy.test:8080/; see http://…@z/"


def test_the_last_line_counts_what_needs_a_person() -> None:
    summary = Summary()
    assert str(summary) == "all is well"
    for finding in (ok("queue", "is there"), problem("a", "b"), remark("a", "b"), remark("a", "c")):
        assert summary.counted(finding) is finding
    assert (str(summary), summary.problems) == ("1 problem, 2 remarks", 1)
