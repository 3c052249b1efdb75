"""Git's protocol 2 between us and an upload-pack: what is asked, and what an answer says. Pure.

Sources: gitprotocol-v2(5), gitprotocol-common(5), gitprotocol-pack(5). For repositories of SHA-1.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from agent.errors import AgentError
from agent.model import REVISION, Revision

_SIZE = re.compile(rb"[0-9a-f]{4}")
_DATA, _PROGRESS = b"\1", b"\2"


class Odd(AgentError):
    """Not what a git server of our kind answers."""


def ls_refs(refs: Collection[str]) -> bytes:
    """The question for refs whose full names begin with these."""
    return _command("ls-refs", [f"ref-prefix {ref}" for ref in sorted(refs)])


def tips(answer: bytes, refs: Collection[str]) -> Mapping[str, Revision | None]:
    """What each of `refs` is at, as `ls-refs` was answered; None for one that is not there. Odd."""
    found: dict[str, Revision | None] = dict.fromkeys(refs)
    for content in _lines(answer):
        line = content.decode(errors="replace").removesuffix("\n")
        revision, _, rest = line.partition(" ")
        name = rest.partition(" ")[0]
        if not REVISION.fullmatch(revision):
            raise Odd(f"a line of it is {line[:60]!r}")
        if name in found:
            found[name] = revision
    return found


def fetch(wants: Collection[Revision], haves: Collection[Revision]) -> bytes:
    """The question for a pack of what `wants` have, and `haves` have not.

    Without a negotiation: what is named is all that we have to say.
    """
    asked = [f"want {one}" for one in sorted(wants)] + [f"have {one}" for one in sorted(haves)]
    return _command("fetch", ["thin-pack", "no-progress", "ofs-delta", *asked, "done"])


def pack(answer: bytes) -> bytes:
    """The pack with which `fetch` was answered. Odd where it was with something else."""
    lines = _lines(answer)
    if next(lines, b"") != b"packfile\n":
        raise Odd("it does not begin with a pack")
    found = []
    for content in lines:
        if content[:1] == _DATA:
            found.append(content[1:])
        elif content[:1] != _PROGRESS:
            raise Odd(f"it broke off: {content[1:200].decode(errors='replace').strip()!r}")
    return b"".join(found)


def _command(name: str, arguments: Collection[str]) -> bytes:
    asked = [_line(f"{one}\n") for one in arguments]
    return b"".join((_line(f"command={name}\n"), b"0001", *asked, b"0000"))


def _line(text: str) -> bytes:
    content = text.encode()
    return b"%04x%s" % (len(content) + 4, content)


def _lines(body: bytes) -> Iterator[bytes]:
    """The lines of a message that is whole: it ends with a flush, and nothing comes after that."""
    place = 0
    while (head := body[place : place + 4]) != b"0000":
        size = int(head, 16) if _SIZE.fullmatch(head) else 0
        if size <= 4 or place + size > len(body):
            raise Odd("it is no pkt-line, or cut short")
        yield body[place + 4 : place + size]
        place += size
    if place + 4 != len(body):
        raise Odd("it goes on after its end")
