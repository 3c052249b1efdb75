"""What doctor makes of what the agent has seen: deliveries refused, ignored, missed; its targets.

Pure: the agent's own counts in, findings out.
"""

from collections.abc import Iterable, Iterator, Sequence

from agent.doctor import Finding, note, ok, wrong
from agent.figures import Missed
from agent.forges.signature import Refusal
from agent.model import Condition
from agent.remedies import after_look
from agent.reports import State, Status, TargetReport
from agent.tally import Refused
from agent.words import ago, many, printable, short, span

# Why a signature was not right, and what to do (GitHub: Settings > Webhooks > Edit).
_REFUSALS = {
    Refusal.UNSIGNED: (
        "without a signature: no secret is set at the forge, or a stranger sends",
        "enter the secret in the webhook's form at the forge",
    ),
    Refusal.SHA1_ONLY: (
        "with a SHA-1 signature only, or a proxy dropped X-Hub-Signature-256",
        "have the proxy pass X-Hub-Signature-256 on; GitHub Enterprise before 3.0 has no other",
    ),
    Refusal.MALFORMED: (
        "with a signature that is none",
        "see what is between the forge and here; a forge signs with sha256=<64 hex digits>",
    ),
    Refusal.ENCODED: (
        "compressed on the way, which breaks the signature",
        "switch compression of requests off in the proxy",
    ),
    Refusal.MISMATCH: (
        "signed with another secret, or a proxy changed the body",
        "enter the secret anew at the forge; `doctor --url https://HOST` tries the proxy",
    ),
}


def agent(status: Status, now: float) -> Iterator[Finding]:
    """Whether the agent itself is well."""
    said = f"{status.version}, pid {status.pid}, up {span(now - status.started_at)}"
    if status.healthy:
        yield ok("agent", said)
    else:
        yield wrong("agent", f"{said}, but the poll or the journal has stalled",
                    "see `space`; deliveries are answered with 503 until it is over")  # fmt: skip


def webhooks(status: Status, unknown: int, now: float) -> Iterator[Finding]:
    """What the webhooks have seen since the agent's start."""
    pushes = [one.last_webhook for one in status.targets if one.last_webhook]
    newest = max(pushes, default=None)
    for webhook in status.webhooks:
        about = f"webhook {webhook.name}"
        for why, refused in webhook.refusals.items():
            yield _refused(about, why, refused, newest, now)
        for reason, count in webhook.ignored.items():
            yield note(about, f"{many(count, 'delivery')} ignored: {reason}")
    if unknown:
        names = ", ".join(f"/webhook/{one.name}" for one in status.webhooks) or "none"
        yield note(
            "other webhooks", f"{many(unknown, 'request')} for a /webhook/NAME that there is not",
            f"the paths here are: {names}; a scanner asks for others too",
        )  # fmt: skip
    if newest is not None:
        yield ok("webhooks", f"a push last came {ago(newest, now)}")
    elif status.webhooks:
        todo = "`gitops-agent send-push TARGET` tries the way from the listener on"
        yield note("webhooks", "no push has come yet", todo)


def _refused(about: str, why: Refusal, one: Refused, newest: float | None, now: float) -> Finding:
    """`newest` is when a push last came; what was refused before that has been mended since."""
    says, todo = _REFUSALS[why]
    said = (
        f"{many(one.count, 'delivery')} {says}; the last {ago(one.at, now)}, from {one.client},"
        f" which called itself {printable(one.agent) or 'nothing'}"
    )
    if newest is not None and newest > one.at:
        return note(about, f"{said}; pushes have come since then")
    if not one.by_forge:
        return note(about, f"{said}, and so is hardly the forge", todo)
    return wrong(about, said, todo)


def missed(found: Sequence[Missed], days: float, now: float) -> Iterator[Finding]:
    """Pushes that only the poll saw."""
    if not found:
        yield ok("missed webhooks", f"none in {days:.0f} days")
        return
    newest = found[-1]
    yield wrong(
        "missed webhooks",
        f"{many(len(found), 'revision')} in {days:.0f} days found by a poll only, the last"
        f" {short(newest.revision)} of {newest.target} {ago(newest.at, now)}",
        "GitHub: Settings > Webhooks > Recent Deliveries; is there one for each push, and what was"
        " it answered? `doctor --github-token-file FILE` looks there for you",
    )  # fmt: skip


def targets(found: Iterable[TargetReport], now: float) -> Iterator[Finding]:
    """What keeps a push that has come from being deployed."""
    for one in found:
        about = f"target {one.name}"
        if one.syncing and one.last and one.last.ended_at is None:
            said = f"a deployment has been running for {span(now - one.last.started_at)}"
            yield note(about, said, f"`gitops-agent logs -f {one.name}` shows what it is at")
        if one.paused:
            reason = f": {printable(one.paused.reason)}" if one.paused.reason else ""
            said = f"paused by {printable(one.paused.by)}{reason}; nothing goes out by itself"
            yield note(about, said, f"`gitops-agent resume {one.name}`")
        if one.standing is State.BROKEN:
            yield wrong(about, "is broken: a deployment failed, and so did the way back",
                        f"see `gitops-agent logs {one.name}`, mend it, then"
                        f" `gitops-agent sync {one.name} --force`")  # fmt: skip
        elif one.standing is State.ERROR and one.look:
            yield wrong(about, printable(one.look.why), "see `remote` and `space`")
        elif one.condition is Condition.MOVING and not one.syncing and one.last:
            said = f"was left between two revisions: {printable(one.last.detail)}"
            yield wrong(about, said, "it is gone on with by itself, as soon as that can be")
        elif one.held:
            said = f"{short(one.held)} is held: {printable(one.held_because or '')}"
            again = f"`gitops-agent sync {one.name} --force`"
            yield wrong(about, said, f"push a newer revision, or {again} to try it again")
        elif one.standing is State.RETRYING:
            said = f"{short(one.retry)} is tried again: {printable(one.retry_because or '')}"
            yield note(about, said, after_look("waiting", said, one.name))
        elif one.look and one.look.result == "no-branch":
            todo = after_look(one.look.result, one.look.why, one.name)
            yield wrong(about, printable(one.look.why), todo)
        else:
            yield ok(about, f"{one.standing}, {short(one.live)}")


def configuration(
    changed: Sequence[str], needs_restart: Sequence[str], faults: Sequence[str]
) -> Iterator[Finding]:
    """Whether the file says what the agent has in mind."""
    if faults:
        yield wrong("configuration", f"the file has faults now: {'; '.join(faults)}",
                    "mend them, or the next start fails; `gitops-agent check`")  # fmt: skip
    elif not changed and not needs_restart:
        yield ok("configuration", "the agent has read what is in the file")
    if changed:
        said = f"{', '.join(changed)} changed after the agent read it"
        again = "systemctl reload gitops-agent gitops-agent-receiver"
        yield wrong("configuration", said, f"`gitops-agent reload`, or of a service `{again}`")
    if needs_restart:
        said = f"{', '.join(needs_restart)} changed, which a restart alone puts in force"
        yield wrong("configuration", said, "systemctl restart gitops-agent")
