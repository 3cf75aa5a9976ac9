"""Image names and references, by Docker's own grammar."""

import pytest

from lookout.model import ImageName, Reference


@pytest.mark.parametrize(
    ("written", "canonical", "familiar"),
    [
        ("redis", "docker.io/library/redis", "redis"),
        ("library/redis", "docker.io/library/redis", "redis"),
        ("docker.io/redis", "docker.io/library/redis", "redis"),
        ("docker.io/library/redis", "docker.io/library/redis", "redis"),
        ("index.docker.io/library/redis", "docker.io/library/redis", "redis"),
        ("acme/api", "docker.io/acme/api", "acme/api"),
        ("ghcr.io/acme/api", "ghcr.io/acme/api", "ghcr.io/acme/api"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("registry:5000/a", "registry:5000/a", "registry:5000/a"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("Host/a", "Host/a", "Host/a"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("docker.io/localhost/a", "docker.io/localhost/a", "docker.io/localhost/a"),
        ("docker.io/a.b/c", "docker.io/a.b/c", "docker.io/a.b/c"),
        ("library/" + "a" * 64, "docker.io/library/" + "a" * 64, "library/" + "a" * 64),
    ],
)
def test_one_repository_has_one_canonical_name(written: str, canonical: str, familiar: str) -> None:
    name = ImageName.parse(written)
    assert (name.canonical, str(name)) == (canonical, familiar)
    assert ImageName.parse(familiar) == name


@pytest.mark.parametrize(
    "text", ["", "/", "a//b", "Redis", "a:1", "a@b", "-a", "a b", "a" * 300, "docker.io/", "é"]
)
def test_what_is_not_a_repository_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a repository name"):
        ImageName.parse(text)


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "spelling", "tag", "digest"),
    [
        ("redis", "redis", "latest", None),
        ("library/redis:7", "library/redis", "7", None),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a", "latest", None),
        ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a", "1", None),
        (f"redis@{DIGEST}", "redis", None, DIGEST),
        (f"redis:7@{DIGEST}", "redis", "7", DIGEST),
    ],
)
def test_a_reference_keeps_its_spelling(
    text: str, spelling: str, tag: str | None, digest: str | None
) -> None:
    reference = Reference.parse(text)
    assert reference is not None
    assert (reference.spelling, reference.tag, reference.digest) == (spelling, tag, digest)


@pytest.mark.parametrize("text", [DIGEST, "a" * 64, "", "A B"])
def test_an_image_id_is_not_a_reference(text: str) -> None:
    assert Reference.parse(text) is None
