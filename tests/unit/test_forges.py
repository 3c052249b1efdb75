"""A delivery's signature and its body, as GitHub's documentation has them."""

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Malformed
from agent.forges import github
from agent.forges.signature import Hmac
from agent.model import Other, Ping, Push

# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
SECRET = b"It's a Secret to Everybody"
BODY = b"Hello, World!"
SIGNATURE = b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

SHA = "ab" * 20


def payload(**changes: object) -> bytes:
    repository = {"clone_url": "https://github.com/acme/shop.git", "ssh_url": "git@github.com:a/b"}
    return json.dumps(
        {"ref": "refs/heads/main", "after": SHA, "repository": repository, **changes}
    ).encode()


def signer(*secrets: bytes, body: bytes = BODY) -> Hmac:
    one = Hmac(secrets)
    for start in range(0, len(body), 5):
        one.update(body[start : start + 5])
    return one


def test_github_own_test_vector_matches() -> None:
    assert signer(SECRET).matched(SIGNATURE) == 0


def test_which_of_several_secrets_matched_is_told() -> None:
    assert signer(b"another secret, 16+", SECRET).matched(SIGNATURE) == 1


@pytest.mark.parametrize(
    "claimed",
    [
        None,
        b"",
        b"sha256=",
        SIGNATURE[7:],
        SIGNATURE.replace(b"sha256", b"sha1"),
        SIGNATURE.upper(),
        SIGNATURE + b"0",
        SIGNATURE[:-1],
        SIGNATURE[:-1] + b"8",
        b" " + SIGNATURE,
        SIGNATURE + b"\n",
        b"sha256=" + b"\xff" * 64,
        b"sha256=" + b"0" * 64,
    ],
)
def test_anything_else_matches_nothing(claimed: bytes | None) -> None:
    assert signer(SECRET).matched(claimed) is None


def test_no_secret_is_no_signer() -> None:
    with pytest.raises(ValueError, match="needs a secret"):
        Hmac(())


def test_a_comparison_is_made_for_every_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(mine: bytes, theirs: bytes) -> bool:
        compared.append(theirs)
        return mine == theirs

    monkeypatch.setattr("hmac.compare_digest", compare)
    for claimed in (SIGNATURE, None, b"rubbish"):
        compared.clear()
        signer(SECRET, b"x" * 20, b"y" * 20).matched(claimed)
        assert len(compared) == 3


def test_a_push_is_parsed() -> None:
    push = github.parse("push", github.JSON, payload())
    urls = frozenset({"https://github.com/acme/shop.git", "git@github.com:a/b"})
    assert push == Push("refs/heads/main", SHA, urls)


def test_a_form_is_the_same_push() -> None:
    form = urlencode({"payload": payload().decode()}).encode()
    assert github.parse("push", github.FORM, form) == github.parse("push", github.JSON, payload())


def test_a_deleted_branch_has_no_revision() -> None:
    push = github.parse("push", github.JSON, payload(deleted=True, after="0" * 40))
    assert isinstance(push, Push)
    assert push.revision is None


def test_a_sha256_revision_is_one() -> None:
    push = github.parse("push", github.JSON, payload(after="cd" * 32))
    assert isinstance(push, Push)
    assert push.revision == "cd" * 32


def test_ping_and_others() -> None:
    assert github.parse("ping", github.JSON, b'{"zen": "Keep it simple."}') == Ping()
    assert github.parse("issues", github.JSON, b"{}") == Other("issues")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"refs/heads/main"',
        b"{}",
        payload(ref=3),
        payload(ref="main"),
        payload(ref="refs/"),
        payload(ref="refs/" + "x" * 5000),
        payload(after="--upload-pack=evil"),
        payload(after=SHA.upper()),
        payload(after=SHA + "\n"),
        payload(after=None),
        payload(deleted="no"),
        payload(repository=None),
        payload(repository={}),
        payload(repository={"clone_url": 3}),
        payload()[:-1],
        payload().replace(b"acme", b"\xff\xfe"),
        payload(note="x").replace(b'"x"', b'"\xff"'),
        b'{"ref": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_another_shape_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        github.parse("push", github.JSON, body)


@pytest.mark.parametrize("event", ["ping", "issues", "push"])
@pytest.mark.parametrize("body", [b"\xff", b"no", b"[" * 5000, b'{"a": "\xc3"}'])
def test_what_is_not_json_is_malformed_for_every_event(event: str, body: bytes) -> None:
    with pytest.raises(Malformed):
        github.parse(event, github.JSON, body)


@pytest.mark.parametrize(
    "form",
    [b"", b"payload", b"payload=", b"other=1", b"payload=%7B%7D&payload=%7B%7D",
     b"&".join(b"a=1" for _ in range(100)), b"payload=%FF"],
)  # fmt: skip
def test_a_bad_form_is_malformed(form: bytes) -> None:
    with pytest.raises(Malformed):
        github.parse("push", github.FORM, form)


@given(st.binary(max_size=200), st.sampled_from([github.JSON, github.FORM]))
def test_any_bytes_are_an_event_or_malformed(body: bytes, content_type: str) -> None:
    try:
        event = github.parse("push", content_type, body)
    except Malformed:
        return
    assert isinstance(event, Push)
