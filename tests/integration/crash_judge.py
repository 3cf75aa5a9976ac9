"""Says what is wrong after a crash, looking only at the engine, the queue and the log."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from lookout.model import Json, Outcome
from lookout.names import reference_of
from testbed.engine import DockerFailed, PrivateEngine
from tests.integration.crash_scenarios import NEW, OLD, Part, Scenario
from tests.integration.deploys import leftovers
from tests.integration.watching import page, served, volumes

#: The file that a container keeps in each of its volumes, and what is in it.
FOLDERS, FILE, CONTENT = ("/data", "/anonymous"), "file", "kept"

SERVES_WITHIN = 5  # seconds from the start of an application
DELETED = "the message is deleted"
_GOOD_END = {
    "new": (Outcome.DEPLOYED, Outcome.UNCHANGED),
    "old": (Outcome.ROLLED_BACK,),
}


class Judge:
    """Knows how the containers were before; made before Lookout may touch them.

    `names` are those of the containers by their parts' suffixes, `label` what all of them and their
    copies have, `images` the ids of the deployed image by tag.
    """

    def __init__(
        self,
        engine: PrivateEngine,
        scenario: Scenario,
        names: Mapping[str, str],
        *,
        label: str,
        images: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._scenario = scenario
        self._names = names
        self._label = label
        self._images = images
        self._volumes = volumes(engine)
        self.before = {container["Name"][1:]: container for container in self._inspect_all()}

    @property
    def ids(self) -> dict[str, str]:
        """The suffix of each container by its id before."""
        return {self.before[name]["Id"]: suffix for suffix, name in self._names.items()}

    def complaints(self, tag: str = "", *, down: bool = False) -> list[str]:
        """What is not as it must be in the end, or with containers that run `tag`; empty if all is well.

        `down` tells of containers that the engine itself has left stopped.
        """
        return list(self._complaints(tag or self._scenario.tag, down))

    def complaints_of_either(self) -> list[str]:
        """What is wrong if all containers may be the old ones or the new ones, but not a mixture."""
        return min((self.complaints(OLD), self.complaints(NEW)), key=len)

    def _complaints(self, tag: str, down: bool) -> Iterator[str]:
        now = {container["Name"][1:]: container for container in self._inspect_all()}
        yield from (f"{name} is missing" for name in self._names.values() if name not in now)
        yield from (f"{name} is left over" for name in {*now, *leftovers(self._engine)} - {*self.before})
        for part in self._scenario.parts:
            name = self._names[part.suffix]
            if new := now.get(name):
                found = self._of_container(part, self.before[name], new, tag, down)
                yield from (f"{name}: {complaint}" for complaint in found)
        yield from self._of_volumes(now.values())

    def _of_container(self, part: Part, old: Json, new: Json, tag: str, down: bool) -> Iterator[str]:
        for field, (then, here) in _differences(old, new).items():
            yield f"{field} is {here}, and was {then}"
        if part.parent:
            yield from self._of_reference(part, new)
        else:
            yield from self._of_image(old, new, tag)
        if new["State"]["Running"] is down:
            yield f"it is {new['State']['Status']}"
        elif not down:
            yield from self._of_service(part, old, new, tag)

    def _of_image(self, old: Json, new: Json, tag: str) -> Iterator[str]:
        wanted = old["Config"]["Image"].rpartition(":")[0] + f":{tag}"
        if reference_of(new) != wanted or new["Image"] != self._images[tag]:
            yield f"it runs {reference_of(new)} ({new['Image']}) rather than {wanted}"
        # What removes itself when it stops comes back as a copy.
        is_same = new["Id"] == old["Id"]
        if is_same != (tag == OLD) and not (tag == OLD and old["HostConfig"]["AutoRemove"]):
            yield "it is the old container" if is_same else "it is another container"

    def _of_reference(self, part: Part, new: Json) -> Iterator[str]:
        parent = self._engine.inspected(self._names[part.parent])["Id"]
        if new["HostConfig"]["NetworkMode"] != f"container:{parent}":
            yield f"its network is {new['HostConfig']['NetworkMode']}, not that of {parent}"

    def _of_service(self, part: Part, old: Json, new: Json, tag: str) -> Iterator[str]:
        before = {name: network["IPAddress"] for name, network in old["NetworkSettings"]["Networks"].items()}
        after = {name: network["IPAddress"] for name, network in new["NetworkSettings"]["Networks"].items()}
        if before != after:
            yield f"its addresses are {after}, and were {before}"
        try:
            if part.parent:
                if "eth0" not in self._engine.inside(new["Id"], "ls", "/sys/class/net").split():
                    yield "it has no eth0"
                answer = served(self._engine, new["Id"], "http://127.0.0.1:8080/", SERVES_WITHIN)
            else:
                answer = page(self._engine, f"http://127.0.0.1:{part.port}/", SERVES_WITHIN)
        except (DockerFailed, RuntimeError) as exc:
            yield f"nothing answers: {exc}"
        else:
            if answer != tag:
                yield f"{answer!r} answers rather than {tag!r}"
        for folder in FOLDERS:
            try:
                content = self._engine.inside(new["Id"], "cat", f"{folder}/{FILE}")
            except DockerFailed as exc:
                content = str(exc)
            if content != CONTENT:
                yield f"{folder}/{FILE} is lost: {content}"

    def _of_volumes(self, now: Collection[Json]) -> Iterator[str]:
        exist = volumes(self._engine)
        used = {mount.get("Name") for container in now for mount in container["Mounts"]}
        yield from (f"volume {name} is gone" for name in self._volumes - exist)
        yield from (f"volume {name} is left over" for name in exist - self._volumes - used)

    def _inspect_all(self) -> list[Json]:
        found = [self._inspect(container["Id"]) for container in self._engine.listed(label=self._label)]
        return [container for container in found if container]

    def _inspect(self, container: str) -> Json | None:
        try:
            return self._engine.inspected(container)
        except DockerFailed:
            return None  # gone since it was listed


def ends(events: Sequence[Mapping[str, Any]], message: str) -> list[Mapping[str, Any]]:
    """The events that say that the message has ended for good."""
    return [e for e in events if e.get("message_id") == message and e.get("next") == DELETED]


def complaints_of_message(
    scenario: Scenario, left: tuple[int, int], message: str, runs: Sequence[Sequence[Mapping[str, Any]]]
) -> list[str]:
    """What is wrong with how the message ended.

    `left` is how many messages are visible and in flight, `runs` are the events of each run, in order.
    """
    found = [] if left == (0, 0) else [f"the message is still there: visible and in flight are {left}"]
    allowed = _GOOD_END[scenario.ends]
    finals = [[str(event["outcome"]) for event in ends(events, message)] for events in runs]
    flat = [outcome for run in finals for outcome in run]
    # A message that was settled, but not deleted before the end came, finds nothing to do then.
    again = any(finals[:-1]) and flat == [Outcome.DEPLOYED, Outcome.UNCHANGED]
    if not (again or (len(flat) == 1 and flat[0] in allowed)):
        found.append(f"its final outcomes are {flat}, expected one of {[*map(str, allowed)]}")
    return found


def _differences(old: Json, new: Json) -> dict[str, tuple[object, object]]:
    then, here = _kept(old), _kept(new)
    return {field: (then[field], here[field]) for field in then if then[field] != here[field]}


def _kept(container: Json) -> dict[str, object]:
    """What neither a deploy nor its failure may change."""
    config, host, networks = (
        container["Config"],
        container["HostConfig"],
        container["NetworkSettings"]["Networks"],
    )
    own = {container["Id"][:12], config["Hostname"]}
    return {
        "restart policy": host["RestartPolicy"],
        "AutoRemove": host["AutoRemove"],
        "published ports": host["PortBindings"],
        "environment": sorted(config["Env"]),
        "addresses": {name: network["IPAMConfig"] for name, network in networks.items()},
        "aliases": {name: sorted({*(n["Aliases"] or ())} - own) for name, n in networks.items()},
        "volumes": {
            mount["Destination"]: mount.get("Name")
            for mount in container["Mounts"]
            if mount["Destination"] in FOLDERS
        },
    }
