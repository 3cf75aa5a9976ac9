"""What the user said over the image's defaults.

At create the engine merges the request with the defaults of the image, and from then on inspect
shows only the result. A request made of that result would pin the old image's defaults for ever. So
each rule here takes the old defaults away again, and what remains is what the user typed; the engine
then merges the new image's defaults in.

A value that is equal to the old default counts as inherited wherever inspect cannot tell, unless
the user has pinned it.
"""

import posixpath
import re
from collections.abc import Collection, Iterator

from lookout.model import Json
from lookout.names import PREFIX
from lookout.pins import NO_PINS, Pins, port

#: Labels that belong to the container even where its image carries the same: `docker compose build`
#: labels images with project and service, and without them compose would not know its container.
OWNED_LABELS = (
    "com.docker.compose.",
    "com.docker.stack.",
    "com.docker.swarm.",
    "desktop.docker.io/",
)

#: Compose's note on a container that it has recreated: which one it replaced. Of a copy it would not be true.
COMPOSE_REPLACE = "com.docker.compose.replace"

#: What images say about themselves: nobody overrides these by hand.
_ABOUT_THE_IMAGE = re.compile(r"org\.opencontainers\.image\..+")
_ABOUT_THE_BUILD = re.compile(r"PATH|(?:\w+_)?VERSION")

#: What an engine takes where the field is empty. A pin has to say it: an empty value in a request means
#: the new image's. 0 is root whatever /etc/passwd calls it, with the groups and the home of no user at all.
_EMPTY_USER, _EMPTY_WORKING_DIR, _EMPTY_STOP_SIGNAL = "0", "/", "SIGTERM"
#: The same of health checks, in nanoseconds; the shortest start period that engines accept is none in effect.
_EMPTY_HEALTHCHECK = {
    "Interval": 30_000_000_000,
    "Timeout": 30_000_000_000,
    "StartPeriod": 1_000_000,
    "Retries": 3,
}


def overrides(config: Json, defaults: Json, published: Collection[str], pins: Pins = NO_PINS) -> Json:
    """The user's part of a container's Config; `published` are the keys of its PortBindings."""
    said = {
        "Env": env(config.get("Env") or [], defaults.get("Env") or [], pins),
        "User": user(config, defaults, pins),
        "WorkingDir": working_dir(config, defaults, pins),
        "StopSignal": stop_signal(config, defaults, pins),
        "Labels": labels(config.get("Labels") or {}, defaults.get("Labels") or {}, pins),
        "ExposedPorts": exposed_ports(
            config.get("ExposedPorts") or {}, defaults.get("ExposedPorts") or {}, published, pins
        ),
        "Healthcheck": healthcheck(config.get("Healthcheck") or {}, defaults.get("Healthcheck") or {}, pins),
    }
    return {key: value for key, value in said.items() if value} | command(config, defaults, pins)


def env(entries: list[str], defaults: list[str], pins: Pins = NO_PINS) -> list[str]:
    """The user's entries: the ones before the image's.

    The engine writes the user's entries first and then, in the image's order, those of the image whose
    key the user did not set. So the order tells who said what, even where the user repeats a default;
    only a request that repeats the image's first entries, and nothing else before them, cannot be told
    from none. A list, never a dict: `KEY` without `=` removes a variable of the image, and of two
    entries with one key the last wins. A pinned entry of the image joins the user's, behind them.
    """
    pinned = [pins.keep("env", _key(entry)) for entry in entries]
    count = _count_said(entries, defaults)
    if count is None:
        return [entry for entry, pin in zip(entries, pinned, strict=True) if pin or entry not in defaults]
    return [entry for at, entry in enumerate(entries) if at < count or pinned[at]]


def _count_said(entries: list[str], defaults: list[str]) -> int | None:
    """How many entries come from the user; None if it was not the engine that ordered the list."""
    for count in range(len(entries) + 1):
        said = {_key(entry) for entry in entries[:count]}
        if entries[count:] == [default for default in defaults if _key(default) not in said]:
            return count
    return None


def _key(entry: str) -> str:
    return entry.partition("=")[0]


def command(config: Json, defaults: Json, pins: Pins = NO_PINS) -> Json:
    """Entrypoint and Cmd, merged as a pair: who sets the first loses the image's second.

    So a pinned entrypoint keeps the command too, and an empty command cannot be kept without the entrypoint.
    """
    entrypoint, cmd = config.get("Entrypoint"), config.get("Cmd")
    if pins.keep("entrypoint") or (pins.keep("cmd") and not cmd):
        return {"Entrypoint": entrypoint or _no_entrypoint(entrypoint, cmd)} | _some("Cmd", cmd)
    inherited = _same(cmd, defaults.get("Cmd")) and not pins.keep("cmd")
    own_cmd = {} if inherited else _some("Cmd", cmd)
    if _same(entrypoint, defaults.get("Entrypoint")):
        # Only an explicit entrypoint can leave Cmd empty: without it the image's Cmd would come back.
        explicit = not cmd and bool(defaults.get("Cmd"))
        return _some("Entrypoint", entrypoint) if explicit else own_cmd
    if entrypoint:
        return {"Entrypoint": entrypoint} | _some("Cmd", cmd)
    if entrypoint == []:
        # Asked for as [] (compose does): the image's entrypoint is cleared, its Cmd is inherited.
        return {"Entrypoint": []} | own_cmd
    # Asked for as [""], which reads back as null, and null in a request would mean the image's.
    return {"Entrypoint": [""]} | _some("Cmd", cmd)


def _no_entrypoint(entrypoint: list[str] | None, cmd: list[str] | None) -> list[str]:
    """Both forms clear the image's entrypoint; after [] its Cmd would still come where none is sent."""
    return [] if entrypoint == [] and cmd else [""]


def _same(one: list[str] | None, other: list[str] | None) -> bool:
    return (one or []) == (other or [])


def _some(key: str, value: object) -> Json:
    return {key: value} if value else {}


def user(config: Json, defaults: Json, pins: Pins = NO_PINS) -> str | None:
    """The engine takes the image's where the request has none, and so for the two below."""
    value: str = config.get("User") or ""
    if pins.keep("user"):
        return value or _EMPTY_USER
    return None if value == defaults.get("User") else value


def working_dir(config: Json, defaults: Json, pins: Pins = NO_PINS) -> str | None:
    """Compared as a path, because older engines clean it for the container: /srv/ becomes /srv."""
    value: str = config.get("WorkingDir") or ""
    if pins.keep("workdir"):
        return value or _EMPTY_WORKING_DIR
    default: str = defaults.get("WorkingDir") or ""
    return None if posixpath.normpath(value) == posixpath.normpath(default) else value


def stop_signal(config: Json, defaults: Json, pins: Pins = NO_PINS) -> str | None:
    value: str = config.get("StopSignal") or ""
    if pins.keep("stop-signal"):
        return value or _EMPTY_STOP_SIGNAL
    return None if value == defaults.get("StopSignal") else value


def labels(labels: dict[str, str], defaults: dict[str, str], pins: Pins = NO_PINS) -> dict[str, str]:
    """The user's labels and those that compose and others keep state in; none of an earlier swap."""
    return {
        key: value
        for key, value in labels.items()
        if not key.startswith(PREFIX)
        and key != COMPOSE_REPLACE
        and (key.startswith(OWNED_LABELS) or defaults.get(key) != value or pins.keep("label", key))
    }


def exposed_ports(ports: Json, defaults: Json, published: Collection[str], pins: Pins = NO_PINS) -> Json:
    """The user's ports, and the image's that the user publishes.

    Engines before 29 publish a port only if it is exposed too, so `-p 8080:8080` must expose 8080
    itself once the new image does not. A port that was bound but not exposed stays so: unpublished.
    """
    return {
        key: value
        for key, value in ports.items()
        if key not in defaults or key in published or pins.keep("expose", port(key))
    }


def healthcheck(check: Json, default: Json, pins: Pins = NO_PINS) -> Json:
    """The fields that the user set; the engine fills those that are zero from the image, one by one.

    `--no-healthcheck` needs no rule of its own: it is the Test ["NONE"]. A pinned one says the engine's own
    value for what is zero, or that there is none.
    """
    if pins.keep("healthcheck"):
        if (check.get("Test") or ["NONE"]) == ["NONE"]:
            return {"Test": ["NONE"]}
        return _EMPTY_HEALTHCHECK | {field: value for field, value in check.items() if value}
    return {field: value for field, value in check.items() if value and value != default.get(field)}


def remarks(config: Json, defaults: Json, pins: Pins = NO_PINS) -> Iterator[str]:
    """What cannot be known about the user's part, and pins that keep nothing."""
    yield from pins.remarks
    entries, inherited = config.get("Env") or [], defaults.get("Env") or []
    if _count_said(entries, inherited) is None:
        yield "the order of Env is not the engine's: entries equal to the old image's count as inherited"
    said = {key: v for key, v in map(_split, env(entries, inherited)) if not pins.keep("env", key)}
    labelled = {key: v for key, v in (config.get("Labels") or {}).items() if not pins.keep("label", key)}
    stale = [
        *_masked(said, dict(map(_split, inherited)), _ABOUT_THE_BUILD),
        *_masked(labelled, defaults.get("Labels") or {}, _ABOUT_THE_IMAGE),
    ]
    if stale:
        yield (
            f"{', '.join(stale)}: set on the container over the image's own value, perhaps left by a tool that "
            "copied an older image's defaults; kept, and so the new image's value does not show"
        )


def _split(entry: str) -> tuple[str, str]:
    key, _, value = entry.partition("=")
    return key, value


def _masked(said: dict[str, str], defaults: dict[str, str], suspicious: re.Pattern[str]) -> Iterator[str]:
    for key, value in said.items():
        if suspicious.fullmatch(key) and key in defaults and defaults[key] != value:
            yield key
