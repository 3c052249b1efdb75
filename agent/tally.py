"""What became of deliveries since the start, counted in memory: for status, metrics and doctor.

Plain counters, so that they cost the receiver nothing; nothing in here is ever told to a sender.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.forges.signature import Refusal

_FORGE = "GitHub-Hookshot/"
_WORDS = {
    400: "malformed",
    401: "refused",
    405: "wrong-method",
    408: "timed-out",
    413: "too-large",
    415: "wrong-type",
    503: "not-recorded",
}
ANSWERS = ("queued", "duplicate", "pong", "ignored", *_WORDS.values())
"""Every way in which a delivery to a webhook is answered, in a word."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The deliveries that one webhook refused for one reason. The last's sender is hearsay."""

    count: int
    by_forge: int
    """How many of them called themselves what the forge calls itself."""
    at: float
    """Unix time of the last."""
    client: str
    agent: str
    """What the last called itself, such as `GitHub-Hookshot/044aadd`."""
    delivery: str


_NONE = Refused(0, 0, 0.0, "", "", "")


@dataclass
class Tally:
    """Counts deliveries. No key is of a stranger's making, so nobody can make it grow."""

    answers: dict[tuple[str, str], int] = field(default_factory=dict)
    """By webhook and answer."""
    unknown: int = 0
    """Requests for a webhook that there is not."""
    ignored: dict[tuple[str, str], int] = field(default_factory=dict)
    """By webhook and reason."""
    verified: dict[str, float] = field(default_factory=dict)
    """When each webhook last got a verified delivery of any kind, in Unix time."""
    refused: dict[str, dict[Refusal, Refused]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Counters give 0 for what was not counted yet; over the wire they come as dictionaries.
        self.answers = Counter(self.answers)
        self.ignored = Counter(self.ignored)

    def answered(self, webhook: str, status: int, body: Mapping[str, object]) -> None:
        """A request for /webhook/`webhook` got this answer."""
        if status == 404:
            self.unknown += 1
            return
        word = str(body["status"]) if status < 300 else _WORDS[status]
        self.answers[webhook, word] += 1
        if word == "ignored":
            self.ignored[webhook, str(body["reason"])] += 1

    def refuse(
        self, webhook: str, why: Refusal, headers: Mapping[bytes, bytes], client: str, now: float
    ) -> None:
        """A delivery's signature was not right."""
        before = self.refused.setdefault(webhook, {}).get(why, _NONE)
        agent = _told(headers, b"user-agent")
        self.refused[webhook][why] = Refused(
            before.count + 1,
            before.by_forge + agent.startswith(_FORGE),
            now,
            client,
            agent,
            _told(headers, b"x-github-delivery"),
        )


def _told(headers: Mapping[bytes, bytes], name: bytes) -> str:
    """A header as a sender wrote it, cut short and without anything that steers a terminal."""
    text = headers.get(name, b"")[:64].decode("latin-1")
    return "".join(one for one in text if one.isprintable())
