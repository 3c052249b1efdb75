"""Makes a message of what the journal, the mirror and the hooks' logs know, and has it sent.

It blocks, and so has threads of its own; `news` and `alerts` say when and what. No secret leaves
here but to the sink that needs it.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from agent import logs, messages, notifiers
from agent.cancel import Cancel
from agent.config import Settings
from agent.errors import AgentError, GitFailed
from agent.journal import Journal
from agent.kinds import reveal
from agent.messages import Facts, Message, Tail
from agent.mirror import Mirror
from agent.model import Commit, Deployment, Outcome, Revision, Secret, Target
from agent.notices import FAILURES, Setting, Sink
from agent.notifiers import Order, Undelivered
from agent.transcript import printed

_AT_ONCE = 4
_TOKEN = 16
"""Characters from which on a piece of a URL is taken for a secret."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a message is for."""

    deployment: str
    key: str
    """Tells it from every other message of the deployment."""
    at: float
    outcome: Outcome | None
    live: Revision | None
    recovered: bool = False


class Notifier:
    """One for an agent; `host` is the name by which messages call the machine."""

    def __init__(self, journal: Journal, settings: Settings, cancel: Cancel, host: str) -> None:
        self.settings = settings
        self._journal = journal
        self._cancel = cancel
        self._host = host
        self._threads = ThreadPoolExecutor(_AT_ONCE, "notifier")

    def close(self) -> None:
        self._threads.shutdown()

    async def tell(self, sink: Sink, told: Callable[[], list[Message]]) -> None:
        """Have `sink` told what `told` gives. AgentError where that did not go well."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._send, sink, told)

    def _send(self, sink: Sink, told: Callable[[], list[Message]]) -> None:
        hide(self.settings.secrets())
        notifiers.send(order(sink, map(_redacted, told())), self._cancel)

    def message(self, sink: Sink, name: str, occasion: Occasion) -> Message:
        """What `sink` is to be told of the target `name`; blocks.

        Undelivered where the target is no more, or the journal has forgotten the deployment.
        """
        target = self.settings.targets.get(name)
        one = self._journal.deployment(occasion.deployment).result()
        if target is None or one is None:
            raise Undelivered(f"{name} has no deployment {occasion.deployment} now", again=False)
        commits, files = self._changes(target, one)
        facts = Facts(
            deployment=one,
            target=target,
            state=self._journal.state(name),
            outcome=occasion.outcome,
            live=occasion.live,
            recovered=occasion.recovered,
            at=occasion.at,
            host=self._host,
            commits=commits,
            files=files,
            tails=self._tails(one) if occasion.outcome in FAILURES else (),
        )
        link = sink.link and sink.link.format(deployment=one.id, target=name)
        return messages.compose(facts, occasion.key, link)

    def _changes(self, target: Target, one: Deployment) -> tuple[tuple[Commit, ...], int]:
        """The commits that are new with a deployment, and the number of files they change."""
        if one.previous is None:
            return (), 0
        mirror = Mirror(target.source, self.settings.state_dir / "mirrors")
        with suppress(GitFailed, OSError):
            commits = mirror.commits(one.previous, one.revision)
            return commits, len(mirror.changes(one.previous, one.revision))
        return (), 0

    def _tails(self, one: Deployment) -> tuple[Tail, ...]:
        folder: Path = self.settings.state_dir / "logs"
        return tuple(
            messages.tail(step, printed(folder, one.id, step))
            for step in messages.failing_hooks(one.steps)
        )


def _redacted(message: Message) -> Message:
    return msgspec.convert(logs.redact(msgspec.to_builtins(message)), Message)


# ---- secrets ------------------------------------------------------------------------------------


def order(sink: Sink, told: Iterable[Message]) -> Order:
    """All that the sink's process needs. AgentError where a secret cannot be read."""
    settings = {key: _revealed(setting) for key, setting in sink.settings.items()}
    return Order(sink.kind, settings, tuple(told))


def _revealed(setting: Setting) -> object:
    if isinstance(setting, Secret):
        return reveal(setting).decode(errors="replace")
    if isinstance(setting, tuple):
        return tuple(_revealed(one) for one in setting)
    return setting


def hide(secrets: Iterable[Secret]) -> None:
    """Let none of these, as they are at this moment, into a message or a log line."""
    for secret in secrets:
        with suppress(AgentError):
            content = reveal(secret)
            logs.hide((content, *_pieces(content.decode(errors="replace"))))


def _pieces(text: str) -> Iterable[bytes]:
    """The parts of a URL that could be its secret, as libraries write them in their complaints."""
    if "://" in text:
        with suppress(ValueError):
            yield (urlsplit(text).password or "").encode()
        for piece in re.split(r"[/:@?&=#]", text):
            if len(piece) >= _TOKEN:
                yield from (piece.encode(), unquote(piece).encode())
