"""Fuzzes what a stranger can reach: verify, then parse. `python -m tests.soak.fuzz -runs=10000000`

Needs `pip install atheris`; options are libFuzzer's. Any crash, and any forgery that is accepted,
ends it with the input that did it.
"""

import hashlib
import hmac
import sys
import tempfile
from pathlib import Path

from agent import plan
from agent.errors import Malformed
from agent.forges import github
from agent.forges.signature import Hmac
from agent.model import REVISION, Other, Ping, Push

SECRET = b"a secret of the fuzzer, long enough"
SEEDS = (
    b'{"ref":"refs/heads/main","after":"' + b"ab" * 20 + b'","deleted":false,'
    b'"repository":{"clone_url":"https://github.com/a/b.git","ssh_url":"git@github.com:a/b"}}',
    b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D",
    b"sha256=" + b"0" * 64,
)
_ROUTES = plan.Routes(())
_EVENTS = ("push", "ping", "issues")


def one_input(data: bytes) -> None:
    """Take `data` as a whole delivery: two bytes choose its event and type, the rest is content."""
    if len(data) < 2:
        return
    event, content_type = _EVENTS[data[0] % 3], (github.JSON, github.FORM)[data[1] % 2]
    body = data[2:]
    forged = Hmac((SECRET,))
    forged.update(body)
    claimed = body[-71:]
    right = b"sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest().encode()
    assert forged.matched(claimed) is None or claimed == right, "a forgery was accepted"
    try:
        parsed = github.parse(event, content_type, body)
    except Malformed:
        return
    if isinstance(parsed, Push):
        assert parsed.ref.startswith("refs/")
        assert parsed.revision is None or REVISION.fullmatch(parsed.revision)
        _ROUTES.match(parsed)
    else:
        assert isinstance(parsed, Ping | Other)


def main() -> None:
    import atheris

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for n, seed in enumerate(SEEDS):
            for chosen in (b"\0\0", b"\1\0", b"\2\0", b"\0\1"):
                Path(corpus, f"{n}-{chosen.hex()}").write_bytes(chosen + seed)
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
