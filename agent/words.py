"""How times and revisions are said to a person, and how a text from a repository is made harmless.

For the terminal, the page and notices alike. Pure.
"""

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime

_LONGEST_LINE = 500
_NAMED = 5
_CREDENTIALS_IN_URL = re.compile(r"(\w+://)[^/@\s]+@")


def printable(text: str) -> str:
    """`text` without control characters, so that a commit message cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else "�" for one in text)


def kept(line: str) -> str:
    """A line of a commit as it can be kept anywhere: in UTF-8 throughout, and not without end."""
    whole = os.fsencode(line).decode(errors="replace")
    return whole if len(whole) <= _LONGEST_LINE else f"{whole[: _LONGEST_LINE - 1]}…"


def legible(path: str) -> str:
    """A path as text that can be written anywhere; bytes that are no UTF-8 as `\\xff`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def without_credentials(text: str) -> str:
    """`text` with the user part of every URL taken out."""
    return _CREDENTIALS_IN_URL.sub(r"\1", text)


def short(revision: str | None) -> str:
    return revision[:10] if revision else "-"


def span(seconds: float) -> str:
    """A length of time as one says it: `0.4 s`, `45 s`, `3 min`, `2 h`, `5 d`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def many(count: int, noun: str) -> str:
    """`1 delivery`, `3 deliveries`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def no_branch(repo: str, branch: str, there: Iterable[str] | None = None) -> str:
    """That a remote has no such branch, and which it has; None where that is not known."""
    said = f"{without_credentials(repo)} has no branch {branch}"
    if there is None:
        return said
    names = [printable(ref.removeprefix("refs/heads/")) for ref in there]
    more = ", …" if len(names) > _NAMED else ""
    has = f"; it has: {', '.join(names[:_NAMED])}{more}"
    return said + (has if names else ", and no other")


def ago(at: float | None, now: float) -> str:
    return "never" if at is None else f"{span(now - at)} ago"


def stamp(at: float) -> str:
    """Local time, to the second."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def moment(at: float) -> str:
    """Local time with its zone, for whoever reads it elsewhere."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
