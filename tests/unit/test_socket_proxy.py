"""The README lists exactly the calls that the socket proxy lets through."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docker" / "socket-proxy.cfg").read_text()
LONGEST_CALL = 12  # hours: no message is held any longer


def in_readme() -> list[str]:
    section = (ROOT / "README.md").read_text().partition("\n### A socket proxy\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", section, re.MULTILINE)


def let_through() -> list[str]:
    patterns = re.findall(r'^ *acl listed var\(txn\.call\) -m reg "\^(.*)\\\$"$', CONFIGURATION, re.MULTILINE)
    return [re.sub(r"\$\{(ID|NAME)\}", lambda part: f"{{{part[1].lower()}}}", one) for one in patterns]


def test_the_table_has_a_row_for_each_call_that_is_let_through_and_no_other() -> None:
    assert in_readme()
    assert in_readme() == let_through()


def test_no_way_to_the_engine_is_missing_from_the_list() -> None:
    assert len(re.findall(r"^ *acl listed\b", CONFIGURATION, re.MULTILINE)) == len(let_through())
    assert re.findall(r"^ *(?:use_|default_)backend +engine\b.*$", CONFIGURATION, re.MULTILINE) == [
        "    use_backend engine if listed"
    ]


def test_no_call_is_cut_that_is_silent_for_as_long_as_a_message_can_be_held() -> None:
    limits = dict(re.findall(r"^ *timeout (client|server) (\d+)d$", CONFIGURATION, re.MULTILINE))
    assert set(limits) == {"client", "server"}
    assert all(int(days) * 24 > LONGEST_CALL for days in limits.values())
