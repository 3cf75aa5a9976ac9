"""A plan as text for people and as JSON for programs: the object that the daemon carries out, shown."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from lookout.model import Json
from lookout.names import PREFIX, short_id
from lookout.plan import Change, DeployPlan, Group, Plan
from lookout.preview import Preview
from lookout.rollout import schedule

HIDDEN = "***"  # for values that may be secrets
_WIDTH = 34
#: Parts of HostConfig that the printout shows as mounts, by what is mounted rather than how it was asked for.
_AS_MOUNTS = ("Binds", "Mounts", "VolumesFrom")


def as_text(preview: Preview) -> str:
    """For a terminal: a block for each container."""
    ending = f"{preview.image}: a deploy would end {preview.report.outcome}"
    lines = [ending, *_reason(preview), *map(_note, preview.remarks)]
    if preview.plan:
        for group in preview.plan.groups:
            lines += _group(group)
        if preview.plan.groups:
            lines += ["", *_section("steps", map(_numbered, enumerate(schedule(preview.plan.groups), 1)))]
        lines += [f"{name}: unchanged, it runs this image already" for name in preview.plan.unchanged]
        lines += [f"{name}: left alone, it {reason}" for name, reason in preview.plan.left_alone]
    return "\n".join(lines)


def as_json(preview: Preview) -> str:
    """One object, with the create requests; the values of variables and options of drivers are hidden."""
    plan = preview.plan or DeployPlan(image=preview.image, groups=(), unchanged=(), left_alone=())
    return json.dumps(
        {
            "Image": str(preview.image),
            "Outcome": preview.report.outcome,
            "Reason": preview.report.reason,
            "Remarks": list(preview.remarks),
            "Containers": [_container(one) for one in plan.plans],
            "Steps": list(schedule(plan.groups)),
            "Unchanged": list(plan.unchanged),
            "LeftAlone": [{"Name": name, "Reason": reason} for name, reason in plan.left_alone],
        },
        indent=2,
        ensure_ascii=False,
    )


def _reason(preview: Preview) -> Iterator[str]:
    if preview.report.reason:
        yield _note(preview.report.reason)


def _numbered(step: tuple[int, str]) -> str:
    return f"  {step[0]}. {step[1]}"


def _note(text: str) -> str:
    return f"  - {text}"


def _group(group: Group) -> Iterator[str]:
    for plan in group:
        yield ""
        yield f"{plan.name} ({short_id(plan.old_id)}): {plan.container['Config']['Image']} -> {plan.image}"
        if plan.follows:
            yield f"  recreated on its own image, because it depends on {', '.join(plan.follows)}"
        yield from _section("carried over", (_row(*pair) for pair in _carried(plan)))
        yield from _section("from the new image (old value -> new value)", map(_change, plan.changes))
        yield from _section("dropped", (_row(one.field, one.why) for one in plan.dropped))
        yield from _section("remarks", map(_note, plan.remarks))


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = [f"  {line}" for line in lines]
    if found:
        yield f"  {title}"
        yield from found


def _row(field: str, value: object) -> str:
    return f"  {field:<{_WIDTH}} {_shown(value)}"


def _change(change: Change) -> str:
    return _row(change.field, f"{_shown(change.old)} -> {_shown(change.new)}")


def _shown(value: object) -> str:
    if value is None:
        return "(none)"
    if value == {}:
        return "yes"  # an exposed port: the key is all there is
    if isinstance(value, str) and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=False)


def _carried(plan: Plan) -> Iterator[tuple[str, Any]]:
    """What the user has set, and is asked for again."""
    body = masked(plan.body)
    for field, value in sorted(body.items()):
        if value and field not in ("Image", "Labels", "HostConfig", "NetworkingConfig"):
            yield field, value
    for label, value in sorted(body["Labels"].items()):
        if not label.startswith(PREFIX):
            yield f"Labels {label}", value
    for field, value in sorted(body["HostConfig"].items()):
        if value and field not in _AS_MOUNTS:
            yield f"HostConfig {field}", value
    for mount in sorted(plan.container.get("Mounts") or (), key=lambda mount: str(mount["Destination"])):
        yield f"{mount['Type']} at {mount['Destination']}", _source(mount)
    endpoints = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    for name, endpoint in [*endpoints.items(), *plan.connect]:
        yield f"network {name}", endpoint or "joined"
    for path in plan.archives:
        yield f"files in {path}", "copied"


def _source(mount: Json) -> str:
    access = "" if mount["RW"] else " (read-only)"
    return f"{mount.get('Name') or mount.get('Source') or 'in memory'}{access}"


def _container(plan: Plan) -> Json:
    return {
        "Name": plan.name,
        "Id": plan.old_id,
        "OldImage": plan.container["Config"]["Image"],
        "NewImage": plan.image,
        "Platform": plan.platform,
        "DependsOn": list(plan.follows),
        "Request": masked(plan.body),
        "Disconnect": list(plan.disconnect),
        "Connect": [{"Network": name, "EndpointConfig": endpoint} for name, endpoint in plan.connect],
        "Files": list(plan.archives),
        "Carried": [{"Field": field, "Value": value} for field, value in _carried(plan)],
        "Changes": [{"Field": one.field, "Old": one.old, "New": one.new} for one in plan.changes],
        "Dropped": [{"Field": one.field, "Why": one.why} for one in plan.dropped],
        "Remarks": list(plan.remarks),
    }


def masked(body: Json) -> Json:
    """The request with the values of variables, and of options of log and volume drivers, hidden."""
    host = body["HostConfig"]
    hidden = {"Mounts": [_masked_mount(mount) for mount in host["Mounts"]]} if host.get("Mounts") else {}
    if log := host.get("LogConfig"):
        hidden |= {"LogConfig": log | {"Config": dict.fromkeys(log.get("Config") or {}, HIDDEN)}}
    env = {"Env": [*map(_masked_variable, body["Env"])]} if body.get("Env") else {}
    return body | env | {"HostConfig": host | hidden}


def _masked_mount(mount: Json) -> Json:
    options = mount.get("VolumeOptions") or {}
    driver = options.get("DriverConfig") or {}
    if not driver.get("Options"):
        return mount
    driver = driver | {"Options": dict.fromkeys(driver["Options"], HIDDEN)}
    return mount | {"VolumeOptions": options | {"DriverConfig": driver}}


def _masked_variable(entry: str) -> str:
    key, equals, _ = entry.partition("=")
    return f"{key}={HIDDEN}" if equals else key
