"""`doctor`: why a webhook does not fire, or fires and nothing happens.

Here is what it says: findings, each good or bad, with what to do. `examine` has what is looked at;
it is imported only when somebody asks.
"""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Nothing to mend, or it could not be tried; worth knowing."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    about: str
    """Such as `clock`, or `hook` with its target: `hook shop/restart`."""
    verdict: Verdict
    says: str
    todo: str = ""
    """What to type or change; empty where nothing is to be done."""


RECEIVERS = "listener of the receiver"
"""What a core's finding is about that may not ask the receiver: it has none of its secrets."""


def ok(about: str, says: str) -> Finding:
    return Finding(about, Verdict.OK, says)


def note(about: str, says: str, todo: str = "") -> Finding:
    return Finding(about, Verdict.NOTE, says, todo)


def wrong(about: str, says: str, todo: str) -> Finding:
    return Finding(about, Verdict.WRONG, says, todo)
