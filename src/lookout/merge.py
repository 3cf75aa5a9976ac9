"""What the engine makes of a create request: the rules by which it fills in the image's defaults.

Field by field as the engine does it (Engine API v1.41 to v1.51); the reverse of it is `overrides`.
"""

from collections.abc import Iterator
from typing import Any

from lookout.model import Json
from lookout.names import PREFIX
from lookout.plan import Change

HEALTHCHECK_FIELDS = ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def merge(said: Json, defaults: Json) -> Json:
    """The Config of a container that is asked for with `said`, on an image whose Config is `defaults`.

    Only the fields in which an image has a say; those that stay empty are left out.
    """
    merged = {
        **{key: said.get(key) or defaults.get(key) for key in ("User", "WorkingDir", "StopSignal")},
        # The user's entry wins over the image's of the same key; what only the image has is added.
        **{
            key: (defaults.get(key) or {}) | (said.get(key) or {})
            for key in ("Labels", "ExposedPorts", "Volumes")
        },
        "Env": _env(said.get("Env") or [], defaults.get("Env") or []),
        "Healthcheck": _healthcheck(said.get("Healthcheck") or {}, defaults.get("Healthcheck") or {}),
        **_command(said, defaults),
    }
    return {key: value for key, value in merged.items() if value}


def _env(said: list[str], defaults: list[str]) -> list[str]:
    """The user's entries first, then the image's whose key the user does not name."""
    named = {entry.partition("=")[0] for entry in said}
    return said + [entry for entry in defaults if entry.partition("=")[0] not in named]


def _command(said: Json, defaults: Json) -> Json:
    """Who gives an entrypoint loses the image's command; `[""]` and `[]` give none and end the image's."""
    entrypoint, cmd = said.get("Entrypoint"), said.get("Cmd")
    if not entrypoint:
        cmd = cmd or defaults.get("Cmd")
        entrypoint = defaults.get("Entrypoint") if entrypoint is None else None
    return {"Entrypoint": None if entrypoint == [""] else entrypoint, "Cmd": cmd}


def _healthcheck(said: Json, defaults: Json) -> Json:
    """Each field by itself; zero and empty mean the image's."""
    merged: dict[str, Any] = {key: said.get(key) or defaults.get(key) for key in HEALTHCHECK_FIELDS}
    return {key: value for key, value in merged.items() if value}


def changes(config: Json, said: Json, defaults: Json) -> Iterator[Change]:
    """What a container with this Config gets anew from an image, where it is asked for again with `said`."""
    merged = merge(said, defaults)
    for field in ("User", "WorkingDir", "StopSignal", "Entrypoint", "Cmd"):
        old, new = config.get(field) or None, merged.get(field)
        if old != new:
            yield Change(field, old, new)
    yield from _changed_keys("Env", _variables(config), _variables(merged))
    yield from _changed_keys("Labels", _labels(config), _labels(merged))
    for field in ("ExposedPorts", "Healthcheck"):
        yield from _changed_keys(field, config.get(field) or {}, merged.get(field) or {})


def _changed_keys(field: str, old: Json, new: Json) -> Iterator[Change]:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield Change(f"{field} {key}", old.get(key), new.get(key))


def _variables(config: Json) -> Json:
    """Env as the program sees it: of two entries with one key the last wins, one without `=` is none."""
    variables: Json = {}
    for entry in config.get("Env") or []:
        key, equals, value = entry.partition("=")
        variables[key] = value if equals else None
    return variables


def _labels(config: Json) -> Json:
    """Without those that the swap itself sets."""
    return {key: value for key, value in (config.get("Labels") or {}).items() if not key.startswith(PREFIX)}
