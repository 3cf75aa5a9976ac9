"""Bodies as nobody should send them: made up, nearly right, or damaged on the way."""

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st
from tests.unit.bodies import ACCOUNT, DIGEST, PUSH, QUEUES, SECRET, body, event, notification, push

DETAIL = PUSH["detail"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just(SECRET), inner), max_leaves=5
)

#: What might stand where a name, a tag or a URL is asked for.
WORDS = st.sampled_from(
    [
        SECRET,
        SECRET.upper(),
        f"me:{SECRET}@ghcr.io/acme/api",
        f"https://me:{SECRET}@ghcr.io/acme/api",
        f"ghcr.io/acme/api:{SECRET}",
        f"ghcr.io/acme/api@sha256:{SECRET}",
        f"docker.io/library/{SECRET}/api",
        f"docker.io/localhost/{SECRET}",
        f"library/{'a' * 64}",
        f"{SECRET}\n",
        f"\ud800{SECRET}\x00",
        f"{SECRET}\u2028",
        SECRET * 100,
        DIGEST,
        DIGEST.upper(),
        "28800",
        "28801",
        "9" * 5000,
        f"{ACCOUNT}/lookout-reply-{SECRET}",
        f"{ACCOUNT}/{SECRET}",
        f"https://me:{SECRET}@sqs.eu-west-1.amazonaws.com/123456789012/lookout-reply-7",
        f"https://{SECRET}.example/123456789012/lookout-reply-7",
        f"https://[{SECRET}",
        *QUEUES,
        f"{QUEUES[1]}/",
    ]
)
ANYTHING = WORDS | WORDS | WORDS | JSON


def _nearly(good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A good object with up to two other values, perhaps a key less, and keys of a stranger."""
    keys = st.sampled_from(list(good))
    return st.builds(
        lambda changed, gone, strange: {
            key: value for key, value in (strange | good | changed).items() if key != gone
        },
        st.dictionaries(keys, ANYTHING, max_size=2),
        st.none() | keys,
        st.dictionaries(st.text() | st.just(SECRET), JSON, max_size=1),
    )


PLAIN = _nearly(
    {
        "ImageName": "ghcr.io/acme/api",
        "imagetag": SECRET,
        "ImageDigest": DIGEST,
        "DEPLOYTIMESECONDS": "30",
        "HostId": SECRET,
        "ReplyQueueUrl": f"{ACCOUNT}/lookout-reply-7",
        "Type": "deploy",
    }
).map(json.dumps)
EVENT = st.builds(
    lambda outer, detail: outer | {"detail": detail},
    _nearly({key: value for key, value in PUSH.items() if key != "detail"}),
    _nearly(DETAIL) | _nearly(DETAIL | {"image-tag": SECRET}) | _nearly(DETAIL | {"action-type": "DELETE"}),
).map(json.dumps)
STRANGE_TYPE = st.builds(
    lambda kind: json.dumps({"Type": kind, "Message": SECRET, "Token": SECRET, "SubscribeURL": SECRET}),
    st.sampled_from(["lookout.result", "SubscriptionConfirmation", "UnsubscribeConfirmation"]),
)
UNWRAPPED = PLAIN | EVENT | STRANGE_TYPE
#: Right in their shape, with any value for any key.
NEARLY_RIGHT = UNWRAPPED | (UNWRAPPED | ANYTHING).map(notification)

_RICH = body(ImageDigest=DIGEST, HostId=SECRET, ReplyQueueUrl=f"{ACCOUNT}/lookout-reply-7", Note=SECRET)
_PUSHED = push(**{"image-tag": SECRET, "note": SECRET})
WHOLE = (
    body(),
    _RICH,
    event(),
    _PUSHED,
    push(**{"action-type": "DELETE", "image-tag": SECRET}),
    notification(_RICH, Token=SECRET),
    notification(_PUSHED, Token=SECRET),
)


def _cut(text: str, random: Random) -> str:
    start, end = _slice(text, random)
    return text[:start] + text[end:]


def _double(text: str, random: Random) -> str:
    start, end = _slice(text, random)
    return text[:end] + text[start:]


def _flip(text: str, random: Random) -> str:
    octets = bytearray(text.encode("utf-8", "surrogatepass"))
    if octets:
        octets[random.randrange(len(octets))] ^= 1 << random.randrange(8)
    return octets.decode("utf-8", "replace")


INSERTED: tuple[str, ...] = (*'"\\{}[]:,@/ \n\x00é\ud800aA0', SECRET, "null", "1e999", "9" * 5000, "[" * 5000)


def _insert(text: str, random: Random) -> str:
    at = random.randint(0, len(text))
    what = random.choice(INSERTED)
    return text[:at] + what + text[at:]


def _recase(text: str, random: Random) -> str:
    def perhaps(key: re.Match[str]) -> str:
        written: str = key[0]
        return written.swapcase() if random.random() < 0.3 else written

    return re.sub(r'"[A-Za-z-]+\\?":', perhaps, text)


def _again(text: str, random: Random) -> str:
    """One key is given once more, before its own value."""
    keys = list(re.finditer(r'(\\?")[A-Za-z-]+\1:', text))
    if not keys:
        return text
    key = random.choice(keys)
    quote = key[1]
    return f"{text[: key.end()]} {quote}{SECRET}{quote}, {text[key.start() :]}"


def _slice(text: str, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(text))
    return start, min(len(text), start + random.choice([1, 2, 10, 100, len(text)]))


DAMAGES: tuple[Callable[[str, Random], str], ...] = (_cut, _double, _flip, _insert, _recase, _again)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good body of any kind that was damaged up to three times."""
    text = draw(st.sampled_from(WHOLE))
    random = Random(draw(st.integers(0, 2**32)))  # noqa: S311  to be repeated, not to be secret
    for damage in draw(st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=3)):
        text = damage(text, random)
    return text
