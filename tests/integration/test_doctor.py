"""What doctor finds on a real host and at real remotes, each fault made for real."""

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from agent import config
from agent.config import Settings
from agent.doctor import Finding, Verdict, deliveries, host, remotes
from agent.figures import Missed
from agent.forges.signature import Refusal
from agent.model import (
    Condition,
    Deployment,
    GitAccess,
    Hook,
    Pause,
    Reason,
    Secret,
    Stage,
    Strategy,
    Target,
)
from agent.reports import LookReport, State, Status, TargetReport, WebhookReport
from agent.tally import Refused
from tests.remotes import HttpRemote, SshRemote, Upstream, free_port, git

A = "a" * 40


def one(findings: Iterable[Finding]) -> Finding:
    (found,) = findings
    return found


def bad(findings: Iterable[Finding]) -> Finding:
    return one(finding for finding in findings if finding.verdict is Verdict.WRONG)


def target(repo: str, path: Path = Path("/nowhere"), **more: object) -> Target:
    made = Target("shop", repo, "main", path, None, 60.0)
    return replace(made, **more)  # type: ignore[arg-type]


def settings(root: Path, *targets: Target) -> Settings:
    """A configuration as it is read, with these targets instead of its own."""
    file = root / "agent.toml"
    file.write_text(f'state_dir = "{root}/state"\n[targets.x]\nrepo = "/x"\npath = "x"\n')
    return replace(config.load(file, {}), targets={target.name: target for target in targets})


# ---- remotes ------------------------------------------------------------------------------------


def test_a_remote_that_answers(upstream: Upstream) -> None:
    upstream.commit({"a": "1"})
    found = one(remotes.reach([target(upstream.url)]))
    assert found.verdict is Verdict.OK
    other = target(upstream.url, branch="nope")
    said = f"{upstream.url} has no branch nope; it has: main"
    assert bad(remotes.reach([target(upstream.url), other])).says == said


def test_a_password_and_a_wrong_one(
    http_remote: HttpRemote, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.commit({"a": "1"})
    http_remote.token = "the right one"
    found = bad(remotes.reach([target(http_remote.url())]))
    assert "[targets.shop.git] token = { file = … }" in found.todo
    wrong = GitAccess(token=Secret("x", value=b"the wrong one"))
    found = bad(remotes.reach([target(http_remote.url(), access=wrong)]))
    assert "renew" in found.todo
    gone = GitAccess(token=Secret("file x", path=tmp_path / "gone"))
    assert "cannot be read" in bad(remotes.reach([target(http_remote.url(), access=gone)])).says


@pytest.mark.parametrize(
    ("fault", "todo"),
    [
        ({"redirect_to": "http://127.0.0.1:9"}, "its new URL"),
        ({"garbage": True}, "no branch main"),
    ],
)
def test_other_faults_of_a_web_server(
    http_remote: HttpRemote, upstream: Upstream, fault: dict[str, object], todo: str
) -> None:
    upstream.commit({"a": "1"})
    for name, value in fault.items():
        setattr(http_remote, name, value)
    found = bad(remotes.reach([target(http_remote.url())]))
    assert todo in found.todo or todo in found.says


def test_one_that_is_not_there(http_remote: HttpRemote, upstream: Upstream) -> None:
    assert "the name is wrong" in bad(remotes.reach([target(http_remote.url("nope.git"))])).todo
    closed = f"http://127.0.0.1:{free_port()}/shop.git"
    assert "nobody answers" in bad(remotes.reach([target(closed)])).todo
    assert "getent hosts" in bad(remotes.reach([target("https://nope.invalid/shop.git")])).todo


def test_one_that_hangs(
    http_remote: HttpRemote, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "_PATIENCE", 0.5)
    http_remote.hang = True
    found = bad(remotes.reach([target(http_remote.url())]))
    assert "no answer in 0.5 s" in found.says
    assert "firewall" in found.todo


@pytest.mark.ssh
def test_ssh(ssh_remote: SshRemote, upstream: Upstream, tmp_path: Path) -> None:
    upstream.commit({"a": "1"})
    url = ssh_remote.url(upstream.path)
    access = GitAccess(ssh_key=ssh_remote.key, known_hosts=ssh_remote.known_hosts)
    assert one(remotes.reach([target(url, access=access)])).verdict is Verdict.OK

    empty = tmp_path / "empty"
    empty.write_text("")
    found = bad(remotes.reach([target(url, access=replace(access, known_hosts=empty))]))
    assert "ssh-keyscan" in found.todo

    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True
    )
    found = bad(remotes.reach([target(url, access=replace(access, ssh_key=tmp_path / "other"))]))
    assert "deploy key" in found.todo

    ssh_remote.key.chmod(0o644)
    first, second = remotes.reach([target(url, access=access)])
    assert (first.verdict, first.todo) == (Verdict.WRONG, f"chmod 600 {ssh_remote.key}")
    assert second.verdict is Verdict.WRONG


# ---- the host -----------------------------------------------------------------------------------


@contextmanager
def clock_that_is_off(seconds: float) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", formatdate(time.time() + seconds, usegmt=True))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/acme/shop.git"
        finally:
            server.shutdown()
            thread.join()


def test_the_clock_is_compared_with_a_remote_s(tmp_path: Path) -> None:
    with clock_that_is_off(0.0) as url:
        assert one(host.clock(settings(tmp_path, target(url)))).verdict is Verdict.OK
    with clock_that_is_off(-3600.0) as url:
        found = bad(host.clock(settings(tmp_path, target(url))))
        assert "ahead of" in found.says
        assert "timedatectl" in found.todo
    local = target("/srv/git/shop.git")
    assert one(host.clock(settings(tmp_path, local))).verdict is Verdict.NOTE


def test_git_is_there_or_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert one(host.git()).verdict is Verdict.OK
    old = tmp_path / "git"
    old.write_text("#!/bin/sh\necho git version 2.17.1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert one(host.git()).verdict is Verdict.NOTE
    old.unlink()
    assert "apt-get install git" in bad(host.git()).todo


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0, "is not there"),
        (b"#!/bin/sh\n", 0o644, "is not executable"),
        (b"#!/bin/sh\r\necho\r\n", 0o755, "Windows line ends"),
        (b"#!/bin/nosuch -e\n", 0o755, "/bin/nosuch, which is not there"),
        (b"echo hello\n", 0o755, "no #! line"),
        (b"#!/bin/sh -e\n", 0o755, None),
        (b"#! /bin/sh\n", 0o755, None),
    ],
)
def test_hooks_that_cannot_be_started(
    tmp_path: Path, content: bytes | None, mode: int, says: str | None
) -> None:
    program = tmp_path / "restart"
    if content is not None:
        program.write_bytes(content)
        program.chmod(mode)
    hook = Hook("restart", Stage.ACTIVATE, (str(program),), 1.0)
    found = one(host.hooks(target("/x", hooks=(hook,))))
    assert (found.verdict, found.about) == (
        Verdict.WRONG if says else Verdict.OK,
        "hook shop/restart",
    )
    assert says is None or says in found.says
    # And so it is: the kernel starts exactly those that are well.
    started = None
    with suppress(OSError):
        started = subprocess.run([program], check=False).returncode
    assert (started == 0) is (says is None)


def test_a_hook_in_the_tree_may_be_of_another_revision(tmp_path: Path) -> None:
    hook = Hook("build", Stage.BUILD, ("./build",), 1.0)
    assert one(host.hooks(target("/x", tmp_path, hooks=(hook,)))).verdict is Verdict.NOTE
    (tmp_path / "build").write_text("#!/bin/sh\n")
    (tmp_path / "build").chmod(0o755)
    assert one(host.hooks(target("/x", tmp_path, hooks=(hook,)))).verdict is Verdict.OK


def test_what_is_in_a_path_before_the_agent(tmp_path: Path, upstream: Upstream) -> None:
    def said(strategy: Strategy = Strategy.IN_PLACE) -> list[str]:
        shop = replace(target(upstream.url, tmp_path / "srv"), strategy=strategy)
        found = host.check(settings(tmp_path, shop))
        return [one.says for one in found if one.about == "path shop" and one.verdict == "note"]

    upstream.commit({"a": "1"})
    (tmp_path / "srv").mkdir()
    assert said() == []
    (tmp_path / "srv" / "a").write_text("mine")
    (files,) = said()
    assert (
        f"has files already: those that differ from the repository's are saved to {tmp_path}"
        in files
    )
    assert said(Strategy.RELEASES) == []
    (tmp_path / "srv" / "a").unlink()
    git("clone", "--quiet", upstream.url, str(tmp_path / "srv"), cwd=tmp_path)
    assert said() == []
    git(
        "remote",
        "set-url",
        "origin",
        "https://u:secret@example.org/other.git",
        cwd=tmp_path / "srv",
    )
    (clone,) = said()
    assert "is a clone of https://example.org/other.git" in clone
    git("checkout", "--quiet", "--detach", cwd=tmp_path / "srv")
    assert said() == [], "the agent has it already"


def test_room_is_told_of_each_file_system_once(tmp_path: Path) -> None:
    found = list(host.space(settings(tmp_path, target("/x", tmp_path / "a"))))
    assert len(found) == 1
    assert "GiB free" in found[0].says


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which needs root")
def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    given = settings(tmp_path, target("/x", tmp_path / "new" / "shop"))
    assert {found.verdict for found in host.folders(given)} == {Verdict.OK}
    os.seteuid(65534)
    try:
        found = list(host.folders(given))
    finally:
        os.seteuid(0)
    assert [one.about for one in found if one.verdict is Verdict.WRONG] == [
        "state_dir",
        "path shop",
    ]
    assert "cannot be written by uid 65534" in found[0].says
    assert "ReadWritePaths=" in found[0].todo


# ---- what the agent has seen --------------------------------------------------------------------

SHOP = TargetReport(
    name="shop", state=State.UP_TO_DATE, standing=State.UP_TO_DATE, repo="/x", branch="main",
    path="/srv", strategy=Strategy.IN_PLACE, live=A, live_subject="", live_since=1.0, condition=Condition.SETTLED,
    held=None, held_because=None, retry=None, retry_at=None, retry_because=None, paused=None, syncing=False, waiting=False,
    last=None, look=None, good_at=1.0, next_poll=None, last_webhook=None,
)  # fmt: skip


def status(*refusals: tuple[Refusal, Refused], pushed: float | None = None) -> Status:
    webhook = WebhookReport("github", None, 1, dict(refusals), {})
    shop = replace(SHOP, last_webhook=pushed)
    return Status(
        "1", 1, healthy=True, trouble=None, started_at=1.0, config="x", control="y", targets=[shop],
        webhooks=[webhook], sinks=[], reload=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("why", "todo"),
    [
        (Refusal.UNSIGNED, "enter the secret"),
        (Refusal.SHA1_ONLY, "X-Hub-Signature-256"),
        (Refusal.MALFORMED, "between"),
        (Refusal.ENCODED, "compression"),
        (Refusal.MISMATCH, "enter the secret anew"),
    ],
)
def test_why_signatures_failed(why: Refusal, todo: str) -> None:
    forge = Refused(3, 2, 90.0, "140.82.115.1", "GitHub-Hookshot/044aadd", "d")
    found = bad(deliveries.webhooks(status((why, forge)), 0, 100.0))
    assert found.says.startswith(("3 deliveries with", "3 deliveries signed", "3 deliveries compr"))
    assert todo in found.todo


def test_strangers_and_what_is_over_are_only_noted() -> None:
    stranger = Refused(1, 0, 90.0, "203.0.113.9", "masscan", "d")
    over = Refused(1, 1, 90.0, "140.82.115.1", "GitHub-Hookshot/1", "d")
    for given in (
        status((Refusal.UNSIGNED, stranger)),
        status((Refusal.UNSIGNED, over), pushed=95.0),
    ):
        found = list(deliveries.webhooks(given, 0, 100.0))
        assert {one.verdict for one in found} <= {Verdict.NOTE, Verdict.OK}
        assert found[0].verdict is Verdict.NOTE


def test_missed_pushes() -> None:
    assert one(deliveries.missed([], 7.0, 100.0)).verdict is Verdict.OK
    found = bad(
        deliveries.missed([Missed("shop", A, "d", 40.0), Missed("shop", A, "d", 40.0)], 7.0, 100.0)
    )
    assert (
        found.says
        == "2 revisions in 7 days found by a poll only, the last aaaaaaaaaa of shop 60 s ago"
    )


@pytest.mark.parametrize(
    ("report", "verdict", "words"),
    [
        (SHOP, Verdict.OK, "up-to-date"),
        (replace(SHOP, standing=State.BROKEN), Verdict.WRONG, "sync shop --force"),
        (
            replace(SHOP, standing=State.HELD, held=A, held_because="activate hook x: exit 1"),
            Verdict.WRONG,
            "activate hook x: exit 1",
        ),
        (
            replace(SHOP, standing=State.ERROR, look=LookReport("error", "down \x1b[31m", 1.0)),
            Verdict.WRONG,
            "down �[31m",
        ),
        (
            replace(SHOP, paused=Pause(10.0, "ann", None, "sale")),
            Verdict.NOTE,
            "paused by ann: sale",
        ),
        (
            replace(
                SHOP, standing=State.RETRYING, retry="b" * 40, retry_because="check out: no room"
            ),
            Verdict.NOTE,
            "bbbbbbbbbb is tried again: check out: no room",
        ),
        (
            replace(
                SHOP,
                standing=State.RETRYING,
                condition=Condition.MOVING,
                last=Deployment("d", "shop", A, None, Reason.POLL, "w", 1, 1.0, detail="no room"),
            ),
            Verdict.WRONG,
            "was left between two revisions: no room",
        ),
        (replace(SHOP, look=LookReport("no-branch", "no branch main", 1.0)), Verdict.WRONG, "push"),
        (
            replace(
                SHOP, syncing=True, last=Deployment("d", "shop", A, None, Reason.POLL, "w", 1, 10.0)
            ),
            Verdict.NOTE,
            "running for 90 s",
        ),
    ],
)
def test_what_keeps_a_push_from_being_deployed(
    report: TargetReport, verdict: Verdict, words: str
) -> None:
    found = next(iter(deliveries.targets([report], 100.0)))
    assert found.verdict is verdict
    assert words in f"{found.says} {found.todo}"
