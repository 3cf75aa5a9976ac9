"""A wide grammar of what a user may ask of an engine at create, for property tests.

What is drawn is plain JSON, so that a failure can be kept as it is:

    {"images": ["v1", "v2"],    the image it is made on, and the one that it is copied to
     "create": {...},           the body of POST /containers/create, without Image
     "connect": {name: {...}},  networks that are joined after create, with their EndpointConfig
     "disconnect": [name],      networks that are left after that, where it is on them
     "start": false}            whether it runs before it is copied

`$HOST` is a folder of the machine, `$TARGET` and `$SOURCE` are ids of two containers that are there,
`$NET1` is the id of the network `net1`, and `$V1` and `$V2` are references of the two images.
"""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
Api = tuple[int, int]
Draw = Any  # hypothesis' own type has no name that is public

TARGET, SOURCE = "lookout-test-target", "lookout-test-source"
#: Another container to take volumes from, which is removed before anything is copied.
GONE = "lookout-test-gone"
#: Networks, each with the start of its subnet.
NETWORKS = {"net1": "10.81.1", "net2": "10.81.2", "net3": "10.81.3"}
#: Destinations: declared by v1 and v2, by v1, by v2, mounted by SOURCE, GONE and nobody.
DESTINATIONS = ("/data", "/oldvol", "/newvol", "/from", "/gone", "/a", "/b", "/b/deep", "/c")

MIB = 1 << 20
SECOND = 1_000_000_000

V1_ENV = ("PATH=/bin:/v1", "LEVEL=info", "VERSION=1", "MODE=prod", "GONE=1", "TEXT=a=b")
V2_ENV = ("PATH=/bin:/v2", "VERSION=2", "LEVEL=debug", "NEWENV=2", "MODE=prod", "TEXT=c=d")

#: Dockerfile lines of the images. v1 and v2 differ in every default; the others have next to none.
IMAGES: dict[str, tuple[str, ...]] = {
    "v1": (
        *(f"ENV {entry.partition('=')[0]}={entry.partition('=')[2]}" for entry in V1_ENV),
        'ENTRYPOINT ["/entry1"]',
        'CMD ["/app", "one"]',
        "USER guest",
        "WORKDIR /work1",
        "STOPSIGNAL SIGINT",
        "EXPOSE 8080 9000/udp",
        "VOLUME /data /oldvol",
        "HEALTHCHECK --interval=7s --timeout=6s --start-period=5s --retries=4 CMD /bin/true one",
        "LABEL role=api tier=1 only.v1=1 org.opencontainers.image.version=1",
        "LABEL com.docker.compose.project=built com.docker.compose.version=2.1",
    ),
    "v2": (
        *(f"ENV {entry.partition('=')[0]}={entry.partition('=')[2]}" for entry in V2_ENV),
        'ENTRYPOINT ["/entry2"]',
        'CMD ["/app", "two"]',
        "USER 1001",
        "WORKDIR /work2",
        "STOPSIGNAL SIGQUIT",
        "EXPOSE 8081",
        "VOLUME /data /newvol",
        "HEALTHCHECK --interval=17s --timeout=16s --start-period=15s --retries=14 CMD /bin/true two",
        "LABEL role=worker tier=2 only.v2=1 org.opencontainers.image.version=2",
        "LABEL com.docker.compose.project=rebuilt com.docker.compose.version=2.2",
    ),
    "bare": ('CMD ["/app"]',),
    "tool": ('ENTRYPOINT ["/entry1"]', "ENV PATH=/bin:/v1"),
}
#: The image that a container is made on and the one that it is copied to, the common ones more often.
PAIRS = (
    *[("v1", "v2")] * 12,
    ("v1", "bare"),
    ("bare", "v2"),
    ("v1", "tool"),
    ("tool", "v2"),
    ("tool", "bare"),
)
#: What the images need beside their application.
FILES = dict.fromkeys(("/entry1", "/entry2", "/mine"), b'#!/bin/sh\nexec "$@"\n')


def _some(values: Sequence[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), max_size=most, unique_by=repr)


def _one(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def _maybe_list(values: Sequence[Any], most: int = 3) -> st.SearchStrategy[Any]:
    return st.none() | _some(values, most)


# Config

_ENV_KEYS = ("PATH", "LEVEL", "VERSION", "MODE", "GONE", "TEXT", "NEWENV", "MINE", "OTHER")
_ENV_ENTRY = st.one_of(
    _one(*V1_ENV),
    _one(*V2_ENV),
    _one(*_ENV_KEYS),  # without = it takes the image's variable away
    st.builds("{}={}".format, _one(*_ENV_KEYS), _one("", "mine", "a=b", "two words", "two\nlines", "ü")),
)
_ENV_PREFIX = st.integers(0, len(V1_ENV)).map(lambda count: list(V1_ENV[:count]))
_ENV = st.one_of(
    st.none(),
    st.lists(_ENV_ENTRY, max_size=5),
    st.lists(_one(*V1_ENV), max_size=6, unique=True),
    st.builds(lambda mine, first: [*mine, *first], st.lists(_ENV_ENTRY, max_size=2), _ENV_PREFIX),
)
_ENTRYPOINT = _one(None, [], [""], ["/entry1"], ["/entry2"], ["/mine"], ["/mine", "-x"], "/mine")
_CMD = _one(None, [], ["/app", "one"], ["/app", "two"], ["/app"], ["/bin/sleep", "60"], "/app", ["/app", ""])
_LABEL = st.sampled_from(
    (
        *(("role", "api"), ("role", "worker"), ("role", "mine"), ("role", ""), ("tier", "1"), ("tier", "2")),
        *(("only.v1", "1"), ("only.v1", "2"), ("only.v2", "1"), ("mine", "yes"), ("mine", "a=b,c")),
        *(("org.opencontainers.image.version", "1"), ("org.opencontainers.image.version", "0")),
        *(("com.docker.compose.project", "built"), ("com.docker.compose.project", "shop")),
        *(("com.docker.compose.service", "web"), ("com.docker.compose.config-hash", "0" * 64)),
        *(("com.docker.compose.image", "sha256:" + "0" * 64), ("com.docker.compose.replace", "web-1")),
        *(("com.docker.compose.oneoff", "False"), ("com.docker.stack.namespace", "shop")),
        *(("desktop.docker.io/binds/0/Source", "/x"), ("lookout.swap.mode", "stop-first")),
        *(
            ("traefik.enable", "true"),
            ("lookout.enable", "true"),
            ("lookout.pin", "user,stop-signal, label:role"),
        ),
        *(("lookout.pin", "env"), ("lookout.pin", "workdir,env:LEVEL,healthcheck"), ("lookout.pin", "cmd")),
        *(("lookout.pin", "entrypoint,labels"), ("lookout.pin", "expose:8080,env:MINE"), ("lookout.pin", "")),
    )
)
_TEST = _one(
    *(
        None,
        [],
        ["NONE"],
        ["CMD", "/bin/true"],
        ["CMD-SHELL", "/bin/true one"],
        ["CMD-SHELL", "/bin/true two"],
    )
)
_PORTS = ("8080/tcp", "8081/tcp", "9000/udp", "7000/tcp", "7001/udp")
_BINDING = st.builds(
    lambda ip, port: {"HostIp": ip, "HostPort": port},
    _one("", "127.0.0.1", "0.0.0.0"),
    _one("", "0", "28080", "28081", "28100-28110"),
)


def _mapping(keys: Sequence[str], value: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[Any]:
    return st.none() | st.dictionaries(st.sampled_from(keys), value, max_size=most)


def _health(api: Api) -> st.SearchStrategy[Any]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "Test": _TEST,
        "Interval": _one(0, 7 * SECOND, 17 * SECOND, 3 * SECOND),
        "Timeout": _one(0, 6 * SECOND, 16 * SECOND, 3 * SECOND),
        "StartPeriod": _one(0, 5 * SECOND, 15 * SECOND, 3 * SECOND),
        "Retries": _one(0, 4, 14, 3),
    }
    if api >= (1, 44):
        fields["StartInterval"] = _one(0, 2 * SECOND)
    return st.none() | st.fixed_dictionaries({}, optional=fields)


def _config(api: Api) -> dict[str, st.SearchStrategy[Any]]:
    switch = _one(True, False, None)
    return {
        "Env": _ENV,
        "Entrypoint": _ENTRYPOINT,
        "Cmd": _CMD,
        "User": _one("", "0", "1000", "1000:1000", "guest", "1001", "root"),
        "WorkingDir": _one("", "/", "/work1", "/work1/", "/work2", "/tmp", "/tmp/../etc", "/new/folder"),
        "StopSignal": _one("", "SIGINT", "SIGQUIT", "SIGTERM", "INT", "USR1", "15", "SIGRTMIN+3"),
        "StopTimeout": _one(None, 0, 1, 30, -1),
        "Labels": st.none() | st.lists(_LABEL, max_size=5).map(dict),
        "ExposedPorts": _mapping(_PORTS, st.just({})),
        "Healthcheck": _health(api),
        "Hostname": _one("", "web", "web-1.example", "0123456789ab", "h" * 63),
        "Domainname": _one("", "example.org"),
        "MacAddress": _one("", "02:42:0a:51:01:09", "de:ad:be:ef:00:01", "DE-AD-BE-EF-00-02"),
        "Tty": switch,
        "OpenStdin": switch,
        "StdinOnce": switch,
        "AttachStdin": switch,
        "AttachStdout": switch,
        "AttachStderr": switch,
        "NetworkDisabled": _one(None, False, True),
        "ArgsEscaped": _one(None, False, True),
        "Shell": _one(None, [], ["/bin/sh", "-c"]),
        "OnBuild": _one(None, [], ["RUN /bin/true"]),
    }


# HostConfig

_CAPABILITIES = ("ALL", "NET_ADMIN", "CAP_SYS_PTRACE", "cap_chown", "net_raw", "SYS_TIME", "KILL")
_MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
_MASKED_CORE = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEVICE = {"PathOnHost": "/dev/null", "PathInContainer": "/dev/nil", "CgroupPermissions": "rwm"}
_ULIMITS = (
    *({"Name": "nofile", "Soft": 1024, "Hard": 2048}, {"Name": "core", "Soft": 0, "Hard": 0}),
    *({"Name": "nproc", "Soft": -1, "Hard": -1}, {"Name": "memlock", "Soft": 65536, "Hard": 65536}),
)
_TMPFS = ("", "rw,size=1m", "size=64k,mode=1777,noexec")


def _rates(values: Sequence[int]) -> st.SearchStrategy[Any]:
    return st.none() | st.lists(
        st.builds(
            lambda path, rate: {"Path": path, "Rate": rate}, _one("/dev/null", "/dev/zero"), _one(*values)
        ),
        max_size=2,
    )


def _host(api: Api) -> dict[str, st.SearchStrategy[Any]]:
    switch = _one(True, False, None)
    fields: dict[str, st.SearchStrategy[Any]] = {
        "ContainerIDFile": _one("", "/var/cid"),
        "LogConfig": _one(
            *(None, {}, {"Type": ""}, {"Type": "none"}, {"Type": "json-file", "Config": {"max-size": "1m"}}),
            *({"Type": "local", "Config": {"max-file": "3"}}, {"Type": "json-file", "Config": {}}),
            {"Type": "json-file", "Config": {"labels": "role", "env": "MODE", "tag": "{{.ImageName}}"}},
        ),
        "PortBindings": _mapping(_PORTS, st.lists(_BINDING, min_size=1, max_size=2) | st.just([])),
        "RestartPolicy": _one(
            *(None, {}, {"Name": ""}, {"Name": "no"}, {"Name": "always"}, {"Name": "unless-stopped"}),
            *({"Name": "on-failure"}, {"Name": "on-failure", "MaximumRetryCount": 3}),
        ),
        "AutoRemove": _one(True, False),
        "VolumeDriver": _one("", "local"),
        "VolumesFrom": _one(
            *(None, [], [SOURCE], [f"{SOURCE}:ro"], [f"{SOURCE}:rw"], ["$SOURCE"], ["$SOURCE:ro"]),
            *([GONE], [f"{GONE}:ro"], [SOURCE, f"{GONE}:ro"]),
        ),
        "CapAdd": _maybe_list(_CAPABILITIES),
        "CapDrop": _maybe_list(_CAPABILITIES),
        "CgroupnsMode": _one("", "host", "private"),
        "Dns": _maybe_list(("10.0.0.53", "1.1.1.1", "::1")),
        "DnsOptions": _maybe_list(("ndots:2", "use-vc")),
        "DnsSearch": _maybe_list(("example.org", ".")),
        "ExtraHosts": _maybe_list(("db:10.0.0.7", "gate:host-gateway", "six:::1", "db:10.0.0.8")),
        "GroupAdd": _maybe_list(("10", "0", "root")),
        "IpcMode": _one(
            "", "none", "private", "shareable", "host", f"container:{TARGET}", "container:$TARGET"
        ),
        "Links": _maybe_list((f"{TARGET}:db", TARGET, "$TARGET:idlink"), 2),
        "OomScoreAdj": _one(0, 100, -100),
        "PidMode": _one("", "host", f"container:{TARGET}", "container:$TARGET"),
        "Privileged": switch,
        "PublishAllPorts": switch,
        "ReadonlyRootfs": switch,
        "SecurityOpt": _maybe_list(
            ("no-new-privileges", "no-new-privileges:true", "seccomp=unconfined", "label=disable"), 2
        ),
        "StorageOpt": _one(None, {}),
        "UTSMode": _one("", "host"),
        "UsernsMode": _one("", "host"),
        "ShmSize": _one(0, MIB, 128 * MIB),
        "Sysctls": _mapping(
            ("net.ipv4.ip_forward", "net.core.somaxconn", "kernel.shm_rmid_forced"), _one("0", "1")
        ),
        "Runtime": _one("", "runc"),
        "Isolation": _one("", "default"),
        "CpuShares": _one(0, 2, 512),
        "Memory": _one(0, 64 * MIB, 512 * MIB),
        "MemoryReservation": _one(0, 32 * MIB),
        "MemorySwap": _one(0, -1, 1024 * MIB),
        "MemorySwappiness": _one(None, -1, 0, 60),
        "KernelMemoryTCP": _one(0, 32 * MIB),
        "OomKillDisable": switch,
        "NanoCpus": _one(0, 500_000_000),
        "CpuPeriod": _one(0, 50_000),
        "CpuQuota": _one(0, -1, 25_000),
        "CpusetCpus": _one("", "0", "0-1", "0,1"),
        "CpusetMems": _one("", "0"),
        "CgroupParent": _one("", "/lookout-test-parent"),
        "BlkioWeight": _one(0, 300),
        "BlkioWeightDevice": st.none() | st.lists(st.just({"Path": "/dev/null", "Weight": 200}), max_size=1),
        "BlkioDeviceReadBps": _rates((MIB,)),
        "BlkioDeviceWriteBps": _rates((MIB, 2 * MIB)),
        "BlkioDeviceReadIOps": _rates((100,)),
        "BlkioDeviceWriteIOps": _rates((200,)),
        "Devices": _maybe_list(
            (_DEVICE, _DEVICE | {"PathInContainer": "/dev/two", "CgroupPermissions": "r"}), 2
        ),
        "DeviceCgroupRules": _maybe_list(("c 1:3 r", "a 7:* rmw"), 2),
        "DeviceRequests": _one(
            *(None, []),
            [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}],
            [{"DeviceIDs": ["0", "1"], "Capabilities": [["gpu", "compute"]], "Options": {"a": "b"}}],
        ),
        "PidsLimit": _one(None, 0, -1, 100),
        "Ulimits": _maybe_list(_ULIMITS),
        "Init": _one(None, True, False),
        "MaskedPaths": st.one_of(
            st.none(),
            _some(("/proc/kcore", "/secret", "/sys/firmware")),
            _one(list(_MASKED), list(_MASKED_CORE), [*_MASKED_CORE, "/proc/mine"]),
        ),
        "ReadonlyPaths": st.one_of(
            st.none(), _some(("/proc/sys", "/mine")), _one(list(_READONLY), [*_READONLY, "/mine"])
        ),
        "ConsoleSize": _one(None, [0, 0], [24, 80]),
    }
    if api < (1, 42):
        fields["KernelMemory"] = _one(0, 64 * MIB)
    if api >= (1, 43):
        fields["Annotations"] = _one(None, {}, {"org.example/key": "value", "empty": ""})
    return fields


# Mounts, each at a destination of its own


def _slashed(destination: str) -> st.SearchStrategy[str]:
    return _one(destination, destination, f"{destination}/", f"{destination}/.")


def _bind(destination: str) -> st.SearchStrategy[str]:
    return st.one_of(
        _slashed(destination),
        st.builds(
            "{}:{}{}".format,
            _one("lookout-test-one", "lookout-test-two"),
            _slashed(destination),
            _one("", ":ro", ":rw", ":nocopy", ":ro,nocopy", ":z"),
        ),
        st.builds(
            "$HOST/{}:{}{}".format,
            _one("one", "two"),
            _slashed(destination),
            _one("", ":ro", ":rw", ":rslave", ":ro,rprivate", ":z"),
        ),
    )


def _mount(destination: str, api: Api) -> st.SearchStrategy[Json]:
    common = {"Target": _slashed(destination)}
    read_only = {"ReadOnly": _one(True, False), "Consistency": _one("", "default", "cached")}
    volume_options: dict[str, st.SearchStrategy[Any]] = {
        "NoCopy": _one(True, False),
        "Labels": _one(None, {}, {"a": "b"}),
        "DriverConfig": _one(
            None,
            {"Name": "local"},
            {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}},
        ),
    }
    named_options = dict(volume_options)
    bind_options: dict[str, st.SearchStrategy[Any]] = {
        "Propagation": _one("", "rprivate", "rslave"),
        "NonRecursive": _one(True, False),
    }
    if api >= (1, 42):
        bind_options["CreateMountpoint"] = _one(True, False)
    if api >= (1, 45):
        named_options["Subpath"] = _one("", "sub")

    def options(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
        return st.none() | st.fixed_dictionaries({}, optional=fields)

    anonymous = st.fixed_dictionaries(
        {"Type": st.just("volume"), **common},
        optional={"Source": st.just(""), "VolumeOptions": options(volume_options)},
    )
    named = st.fixed_dictionaries(
        {"Type": st.just("volume"), "Source": _one("lookout-test-one", "lookout-test-three"), **common},
        optional=read_only | {"VolumeOptions": options(named_options)},
    )
    bind = st.fixed_dictionaries(
        {"Type": st.just("bind"), "Source": _one("$HOST/one", "$HOST/two"), **common},
        optional=read_only | {"BindOptions": options(bind_options)},
    )
    tmpfs = st.fixed_dictionaries(
        {"Type": st.just("tmpfs"), **common},
        optional={"TmpfsOptions": _one(None, {}, {"SizeBytes": MIB, "Mode": 0o700})},
    )
    kinds = [anonymous, named, bind, tmpfs]
    if api >= (1, 48):
        kinds.append(
            st.fixed_dictionaries(
                {"Type": st.just("image"), "Source": st.just("$V2"), "ReadOnly": st.just(True), **common},
                optional={"ImageOptions": _one(None, {"Subpath": "www"})},
            )
        )
    return st.one_of(kinds)


@st.composite
def _storage(draw: Draw, api: Api) -> Json:
    """Binds, Mounts and Tmpfs in HostConfig and Volumes in Config, without a clash."""
    found: Json = {"Binds": [], "Mounts": [], "Tmpfs": {}, "Volumes": {}}
    for destination in draw(_some(DESTINATIONS, 5)):
        kind = draw(_one("Volumes", "Binds", "Mounts", "Tmpfs"))
        if kind == "Binds":
            found["Binds"].append(draw(_bind(destination)))
        elif kind == "Mounts":
            found["Mounts"].append(draw(_mount(destination, api)))
        elif kind == "Tmpfs":
            found["Tmpfs"][draw(_slashed(destination))] = draw(_one(*_TMPFS))
        if kind == "Volumes" or draw(_one(False, False, True)):
            found["Volumes"][draw(_slashed(destination))] = {}
    return {key: value for key, value in found.items() if value or draw(_one(False, False, True))}


# Networks


def _endpoint(name: str, number: int, api: Api) -> st.SearchStrategy[Any]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "Aliases": _maybe_list(("shop", "api", "web", "ba5eba11feed")),
        "IPAMConfig": _one(
            None, {}, {"IPv4Address": f"{NETWORKS[name]}.{10 + number}"}, {"LinkLocalIPs": ["169.254.34.68"]}
        ),
        "Links": _maybe_list((f"{TARGET}:db", f"{TARGET}:cache"), 2),
        "DriverOpts": _one(None, {}, {"mine": "1"}, {"com.example.opt": "a", "other": ""}),
    }
    if api >= (1, 44):
        fields["MacAddress"] = _one(
            "", f"02:00:00:00:0{number}:01", f"02:42:0a:51:0{number}:{10 + number:02x}"
        )
    if api >= (1, 48):
        fields["GwPriority"] = _one(0, 5, -5)
    return st.none() | st.fixed_dictionaries({}, optional=fields)


@st.composite
def _networking(draw: Draw, api: Api) -> Json:
    """NetworkMode, NetworkingConfig, and what is joined and left after create."""
    names = draw(st.permutations(sorted(NETWORKS)))[: draw(st.integers(1, 3))]
    mode = draw(_one(names[0], names[0], "bridge", "default", "", "$NET1"))
    endpoints = {name: draw(_endpoint(name, 1 + i, api)) for i, name in enumerate(names)}
    if mode == "$NET1":
        endpoints = {name: endpoint for name, endpoint in endpoints.items() if name != "net1"}
        if draw(_one(True, False)):
            endpoints = {"$NET1": draw(_endpoint("net1", 4, api)), **endpoints}
    if mode in ("bridge", "default", "") and api < (1, 44):
        at_create: Json = {}
    else:
        count = len(endpoints) if api >= (1, 44) else 1
        first = list(endpoints.items())[: draw(st.integers(0, count))]
        at_create = {name: endpoint or {} for name, endpoint in first}  # 20.10 refuses null here
        if mode == "$NET1" and "$NET1" not in at_create and api < (1, 44):
            at_create = {}
    connect = {
        name: e for name, e in endpoints.items() if name not in at_create and name not in (mode, "$NET1")
    }
    for endpoint in filter(None, connect.values()):
        endpoint.pop("MacAddress", None)  # ignored by `connect` through 1.53
    found: Json = {"NetworkMode": mode, "connect": connect}
    if at_create or draw(_one(True, False)):
        found["NetworkingConfig"] = {"EndpointsConfig": at_create} if at_create else draw(_one(None, {}))
    if draw(st.integers(0, 7)) == 0:
        found["disconnect"] = draw(_some((*names, "bridge"), 4))
    return found


def _alone(mode: str) -> bool:
    return mode in ("host", "none") or mode.startswith("container:")


@st.composite
def draws(draw: Draw, api: Api, *, start: bool = False) -> Json:
    """What a user may ask an engine of this API for; `start` leaves out what can hardly run."""
    config, host = _config(api), _host(api)
    create: Json = {name: draw(config[name]) for name in draw(_some(sorted(config), 8))}
    settings: Json = {name: draw(host[name]) for name in draw(_some(sorted(host), 9))}
    asked: Json = {"images": list(draw(_one(*PAIRS))), "start": start}

    storage = draw(_storage(api))
    if "Volumes" in storage:
        create["Volumes"] = storage.pop("Volumes")
    settings |= storage

    kind = draw(_one("plain", "alone", "networks", "networks"))
    if kind == "networks":
        networking = draw(_networking(api))
        settings["NetworkMode"] = networking["NetworkMode"]
        asked |= {key: networking[key] for key in ("connect", "disconnect") if networking.get(key)}
        if "NetworkingConfig" in networking:
            create["NetworkingConfig"] = networking["NetworkingConfig"]
    elif kind == "alone":
        settings["NetworkMode"] = draw(
            _one("host", "none", f"container:{TARGET}", "container:$TARGET", f"container:{TARGET}")
        )
    elif draw(_one(True, False)):
        settings["NetworkMode"] = draw(_one("", "default", "bridge"))
    if settings or draw(_one(True, False)):
        create["HostConfig"] = settings
    return _sensible(asked | {"create": create}, api)


def _sensible(asked: Json, api: Api) -> Json:
    """Without what the engine itself refuses."""
    create, host = asked["create"], asked["create"].get("HostConfig") or {}
    mode = host.get("NetworkMode") or "default"
    dropped: set[str] = set()
    if create.get("Entrypoint") == [""] and not create.get("Cmd"):
        create["Cmd"] = ["/app"]
    if "tool" in asked["images"] and "Entrypoint" in create and create.get("Cmd") != ["/bin/sleep", "60"]:
        create["Cmd"] = ["/app"]  # neither without a command on one image, nor on the other
    if asked["images"] != ["v1", "v2"] and "lookout.pin" in (create.get("Labels") or {}):
        del create["Labels"]["lookout.pin"]  # how to keep what is empty is a chapter of its own
    if host.get("UTSMode") == "host" or mode.startswith("container:"):
        dropped |= {"Hostname", "Domainname"}
    if _alone(mode):
        dropped |= {"MacAddress", "Links"}
    if mode.startswith("container:"):
        dropped |= {"ExposedPorts", "PortBindings", "PublishAllPorts", "Dns", "DnsOptions", "DnsSearch"}
        dropped |= {"ExtraHosts", "UTSMode", "Sysctls"}
    if mode == "host":
        dropped |= {"Sysctls", "NetworkDisabled"}
    if mode not in ("default", "bridge"):
        dropped |= {"Links"}
    images = [mount for mount in host.get("Mounts") or [] if mount["Type"] == "image"]
    for mount in images[1:]:
        host["Mounts"].remove(mount)  # 28.5 takes two of one image for one
    if asked.get("connect") or asked.get("disconnect") or create.get("NetworkingConfig"):
        dropped |= {"NetworkDisabled"}
        if mode not in NETWORKS or api >= (1, 44):
            dropped |= {"MacAddress"}  # for that there is a place in the endpoints
    if create.get("NetworkDisabled"):
        dropped |= {"MacAddress", "PortBindings", "Links", "PublishAllPorts"}
    if host.get("AutoRemove"):
        dropped |= {"RestartPolicy"}
    if host.get("NanoCpus"):
        dropped |= {"CpuPeriod", "CpuQuota"}
    if (host.get("CgroupnsMode") or "host") != "host" and host.get("Privileged"):
        dropped |= {"CgroupnsMode"}
    if host.get("MemorySwap", 0) > 0 and not host.get("Memory"):
        dropped |= {"MemorySwap"}
    if (host.get("Memory") or MIB << 10) < (host.get("MemoryReservation") or 0):
        dropped |= {"MemoryReservation"}
    if host.get("IpcMode") in ("host", "none") or (host.get("IpcMode") or "").startswith("container:"):
        dropped |= {"Sysctls"}
    if asked["start"]:
        dropped |= {"AutoRemove", "DeviceRequests", "BlkioWeight", "BlkioWeightDevice", "CgroupParent"}
        dropped |= {name for name in host if name.startswith("BlkioDevice")}
        if create.get("Entrypoint"):
            create["Cmd"] = ["/bin/sleep", "60"]  # else it ends at once
    for key in dropped:
        create.pop(key, None)
        host.pop(key, None)
    return asked
