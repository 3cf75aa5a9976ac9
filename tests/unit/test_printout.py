"""What a plan shows, and what it hides."""

import json

from tests.unit.inspected import container, copied, volume

from lookout.model import ImageName, ImageRef, Outcome, Report
from lookout.plan import DeployPlan, Plan
from lookout.preview import Preview
from lookout.printout import as_json, as_text, masked

SECRET = "hunter2"


def secretive() -> Plan:
    mount = {
        "Type": "volume",
        "Source": "share",
        "Target": "/share",
        "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"o": f"password={SECRET}"}}},
    }
    old = container(
        config={
            "Env": [f"TOKEN={SECRET}", "UNSET"],
            "Labels": {"Env": "prod", "Options": "a", "Config": "b"},
        },
        host={"Mounts": [mount], "LogConfig": {"Type": "splunk", "Config": {"splunk-token": SECRET}}},
        mounts=[volume("share", "/share")],
    )
    return copied(old | {"State": {"Running": True}})


def preview(*plans: Plan) -> Preview:
    image = ImageRef(ImageName.parse("app"), "v2")
    return Preview(
        image, Report(Outcome.DEPLOYED), DeployPlan(image, (plans,), ("same",), (("other", "is paused"),))
    )


def test_values_that_may_be_secrets_are_hidden_and_nothing_else_is() -> None:
    shown = masked(secretive().body)
    assert shown["Env"] == ["TOKEN=***", "UNSET"]
    assert shown["HostConfig"]["LogConfig"] == {"Type": "splunk", "Config": {"splunk-token": "***"}}
    options = shown["HostConfig"]["Mounts"][0]["VolumeOptions"]["DriverConfig"]
    assert options == {"Name": "local", "Options": {"o": "***"}}
    assert {"Env": "prod", "Options": "a", "Config": "b"}.items() <= shown["Labels"].items()
    assert SECRET not in as_text(preview(secretive()))
    assert SECRET not in as_json(preview(secretive()))


def test_the_plan_itself_keeps_what_its_printout_hides() -> None:
    plan = secretive()
    masked(plan.body)
    assert plan.body["Env"][0] == f"TOKEN={SECRET}"


def test_who_is_not_touched_is_told_with_the_reason() -> None:
    text, parsed = as_text(preview(secretive())), json.loads(as_json(preview(secretive())))
    assert "same: unchanged, it runs this image already" in text
    assert "other: left alone, it is paused" in text
    assert (parsed["Unchanged"], parsed["LeftAlone"]) == (
        ["same"],
        [{"Name": "other", "Reason": "is paused"}],
    )


def test_without_a_plan_there_is_the_reason() -> None:
    refused = Preview(
        ImageRef(ImageName.parse("app"), "v2"), Report(Outcome.FAILED, "it is so"), None, ("note",)
    )
    assert as_text(refused).splitlines() == ["app:v2: a deploy would end failed", "  - it is so", "  - note"]
    parsed = json.loads(as_json(refused))
    assert (parsed["Reason"], parsed["Containers"], parsed["Remarks"]) == ("it is so", [], ["note"])
