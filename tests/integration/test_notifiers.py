"""Each kind of sink against a real receiver, by the process that really tells it."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from standardwebhooks import WebhookVerificationError

from agent import notifiers
from agent.cancel import Cancel
from agent.messages import Message
from agent.model import Commit
from agent.notifiers import Order, Undelivered
from tests.receivers import (
    PATIENCE,
    GitHub,
    Mailbox,
    Receiver,
    alertmanager,
    github,
    slack,
    verified,
)

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g="
OTHER = "whsec_" + "YW5vdGhlciBzZWNyZXQgb2YgdGhlIHRlc3RzLCBsb25n"
TOKEN = "ghs_a-token-of-the-tests"
MESSAGE = Message(
    id="20260101-000000-abcdef-1", event="rolled-back",
    title="shop on web1: 2222222222 FAILED, 1111111111 is live again",
    text="What: 2222222222 Add the <basket> & more, by Ada\nLast lines of build hook test:\n    no",
    host="web1", target="shop", at=1_800_000_000.0, repo="https://x/acme/shop", branch="main",
    path="/srv/shop", deployment="20260101-000000-abcdef", revision="2" * 40, previous="1" * 40,
    live="1" * 40, reason="push", why="push, delivery d", subject="Add the <basket> & more", author="Ada",
    started_at=1_799_999_990.0, detail="build hook test: exit 1",
    commits=(Commit("2" * 40, "Add the <basket> & more", "Ada", 1_799_999_000.0),), files=2,
)  # fmt: skip


def tell(kind: str, *messages: Message, **settings: Any) -> None:
    """As the sink's own process does it, but in this one, which is quicker."""
    sink = import_module(f"agent.notifiers.{kind}")
    sink.send(msgspec.convert(settings, sink.Settings), messages or (MESSAGE,))


def refused(kind: str, *messages: Message, **settings: Any) -> Undelivered:
    with pytest.raises(Undelivered) as caught:
        tell(kind, *messages, **settings)
    return caught.value


def have_told(
    kind: str, deadline: float = 30.0, cancel: Cancel | None = None, **settings: Any
) -> None:
    """As the agent does it: in a process of its own."""
    notifiers.send(Order(kind, settings, (MESSAGE,)), cancel or Cancel(), deadline)


# ---- Apprise --------------------------------------------------------------------------------


def test_a_mail_by_apprise() -> None:
    with Mailbox() as box:
        address = f"127.0.0.1:{box.port}?from=agent@example.org&to=ops@example.org&mode=insecure"
        have_told("apprise", url=f"mailto://{address}")
        mail = box.next()
    assert mail["Subject"] == MESSAGE.title
    assert mail["To"] == "ops@example.org"
    body = mail.get_body(("plain",)) or mail
    assert "Add the <basket> & more, by Ada" in body.get_content()


def test_slack_by_apprise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with slack(tmp_path) as (receiver, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        have_told("apprise", url="slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/")
        received = receiver.next()
    assert received.path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    (attachment,) = received.json["attachments"]
    assert attachment["title"] == MESSAGE.title
    assert "Add the &lt;basket&gt; &amp; more" in attachment["text"]
    assert "http" not in received.body.decode()


def test_what_a_service_says_is_told_and_its_token_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slack(tmp_path) as (receiver, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        receiver.status = 403
        with pytest.raises(Undelivered, match="Slack did not take it: .*403") as refusal:
            have_told("apprise", url="slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/")
    assert refusal.value.again
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in str(refusal.value)


def test_a_url_that_apprise_does_not_know() -> None:
    with pytest.raises(Undelivered, match="does not understand"):
        have_told("apprise", url="nonsense://x")


# ---- a signed webhook -------------------------------------------------------------------------


def test_a_webhook_is_signed_by_every_secret() -> None:
    with Receiver() as receiver:
        have_told("webhook", url=f"{receiver.url}/hook", secret=[SECRET, OTHER])
        received = receiver.next()
    for secret in (SECRET, OTHER):
        payload = verified(received, secret)
        assert payload["type"] == "deployment.rolled_back"
        assert payload["timestamp"] == "2027-01-15T08:00:00Z"
        assert payload["data"]["revision"] == "2" * 40
        assert payload["data"]["files"] == 2
    with pytest.raises(WebhookVerificationError):
        verified(received, "whsec_" + "b" * 40)
    with pytest.raises(WebhookVerificationError):
        verified(replace(received, body=received.body + b" "), SECRET)
    assert received.headers["webhook-id"] == "msg_20260101-000000-abcdef-1"


@pytest.mark.parametrize(("status", "again"), [(500, True), (404, True), (302, True), (410, False)])
def test_what_an_answer_means(status: int, again: bool) -> None:
    with Receiver() as receiver:
        receiver.status = status
        error = refused("webhook", url=receiver.url, secret=[SECRET])
    assert error.again is again
    assert f"answered {status}" in str(error)


def test_nobody_there() -> None:
    with Receiver() as receiver:
        url = receiver.url
    error = refused("webhook", url=url, secret=[SECRET])
    assert error.again
    assert "could not be reached" in str(error)


# ---- the process ------------------------------------------------------------------------------


def test_one_that_hangs_is_ended_at_the_deadline() -> None:
    with Receiver() as receiver:
        receiver.hangs = True
        with pytest.raises(Undelivered, match="did not answer within 2 s"):
            have_told("webhook", 2.0, url=receiver.url, secret=[SECRET])
        assert receiver.asked.is_set()


def test_one_that_hangs_is_ended_when_the_agent_stops() -> None:
    cancel = Cancel()
    with Receiver() as receiver:
        receiver.hangs = True
        stops = threading.Thread(target=lambda: receiver.asked.wait(PATIENCE) and cancel.set())
        stops.start()
        with pytest.raises(Undelivered, match="it was ended"):
            have_told("webhook", cancel=cancel, url=receiver.url, secret=[SECRET])
        stops.join()
    cancel.close()


def test_what_the_process_says_at_its_end_is_what_the_agent_hears() -> None:
    with Receiver() as receiver:
        receiver.status = 410
        with pytest.raises(Undelivered, match="answered 410") as refusal:
            have_told("webhook", url=receiver.url, secret=[SECRET])
    assert not refusal.value.again


def test_a_fault_of_ours_is_tried_again() -> None:
    with pytest.raises(Undelivered, match="ValidationError") as fault:
        have_told("webhook", url=5)
    assert fault.value.again


def test_the_process_gets_nothing_of_the_environment_but_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "x")
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.setenv("SSL_CERT_FILE", "/c")
    found = notifiers._environment(os.environ)
    assert not found.keys() & {"GITHUB_TOKEN", "PYTHONPATH"}
    assert found["REQUESTS_CA_BUNDLE"] == "/c"


def test_the_agent_s_own_process_needs_none_of_the_libraries() -> None:
    heavy = "{'apprise', 'gidgethub', 'requests', 'jwt'} & set(sys.modules)"
    code = f"import sys, agent.service; print({heavy} or 'none')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "none\n"


# ---- Alertmanager -----------------------------------------------------------------------------


def test_an_alert_fires_and_resolves(tmp_path: Path) -> None:
    now = time.time()
    with alertmanager(tmp_path / "alertmanager") as real:
        standing = replace(MESSAGE, at=now, since=now - 60, until=now + 300, link="https://x/1")
        tell("alertmanager", standing, url=real.url, labels={"team": "shop"})
        fired = real.next("firing")
        (active,) = real.alerts()
        tell(
            "alertmanager",
            replace(standing, until=time.time()),
            url=real.url,
            labels={"team": "shop"},
        )
        resolved = real.next("resolved")
        assert real.alerts() == []
    assert fired["labels"] == {
        "alertname": "GitopsAgentDeploymentFailed", "target": "shop", "host": "web1",
        "severity": "warning", "team": "shop",
    }  # fmt: skip
    assert active["annotations"]["summary"] == MESSAGE.title
    assert active["generatorURL"] == "https://x/1"
    assert resolved["labels"] == fired["labels"]


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"token": "t0ken"}, "Bearer t0ken"),
        ({"username": "ada", "password": "p"}, "Basic YWRhOnA="),
    ],
)
def test_an_alertmanager_with_a_password(settings: dict[str, str], header: str) -> None:
    with Receiver() as receiver:
        tell("alertmanager", url=f"{receiver.url}/am/", **settings)
        received = receiver.next()
    assert received.path == "/am/api/v2/alerts"
    assert received.headers["authorization"] == header


# ---- GitHub -----------------------------------------------------------------------------------


def event(name: str, **changes: Any) -> Message:
    return replace(MESSAGE, event=name, **changes)


def test_a_deployment_at_github() -> None:
    with github(GitHub(TOKEN)) as forge:
        told = {"url": forge.url, "token": TOKEN, "repositories": {"shop": "acme/shop"},
                "environment": "{target}@{host}"}  # fmt: skip
        tell("github", event("started", link="https://agent.example/1"), **told)
        tell("github", event("rolled-back"), **told)
        tell("github", event("started", deployment="another"), **told)
        tell("github", event("deployed", deployment="another"), **told)
    assert [one["environment"] for one in forge.deployments] == ["shop@web1"] * 2
    assert forge.deployments[0]["ref"] == "2" * 40
    assert forge.deployments[0]["auto_merge"] is False
    assert forge.deployments[0]["required_contexts"] == []
    assert [(number, one["state"]) for number, one in forge.progress] == [
        (1, "in_progress"), (1, "failure"), (2, "in_progress"), (2, "success"),
    ]  # fmt: skip
    assert forge.progress[0][1]["log_url"] == "https://agent.example/1"
    assert [one["state"] for _, one in forge.statuses] == [
        "pending",
        "failure",
        "pending",
        "success",
    ]
    assert forge.statuses[0][1]["context"] == "gitops-agent/shop@web1"
    assert {revision for revision, _ in forge.statuses} == {"2" * 40}


def test_the_same_message_again_makes_no_second_deployment() -> None:
    with github(GitHub(TOKEN)) as forge:
        for _ in range(2):
            tell("github", event("started"), url=forge.url, token=TOKEN, environment="x",
                 repositories={"shop": "acme/shop"})  # fmt: skip
    assert len(forge.deployments) == 1


@pytest.mark.parametrize(
    ("name", "live", "progress", "status"),
    [
        ("failed", "1" * 40, "failure", "failure"),
        ("broken", "1" * 40, "failure", "failure"),
        ("interrupted", "1" * 40, "error", "error"),
        ("canceled", "1" * 40, "inactive", "error"),
        ("rolled-back", "1" * 40, "failure", "failure"),
        ("rolled-back", "2" * 40, "success", "success"),
    ],
)
def test_what_an_outcome_is_called_at_github(
    name: str, live: str, progress: str, status: str
) -> None:
    with github(GitHub(TOKEN)) as forge:
        tell("github", event(name, live=live, title="x" * 300), url=forge.url, token=TOKEN,
             environment="x", repositories={"shop": "acme/shop"})  # fmt: skip
    assert forge.progress[0][1]["state"] == progress
    assert forge.statuses[0][1]["state"] == status
    assert len(forge.statuses[0][1]["description"]) == 140


def test_a_github_app() -> None:
    key = generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with github(GitHub(TOKEN, app="12345", public_key=public)) as forge:
        tell("github", event("deployed"), url=forge.url, app="12345", private_key=private,
             environment="x", repositories={"shop": "acme/shop"})  # fmt: skip
    assert [one["state"] for _, one in forge.statuses] == ["success"]


def test_a_github_that_is_down_or_says_no() -> None:
    told = {"environment": "x", "repositories": {"shop": "acme/shop"}}
    with github(GitHub(TOKEN)) as forge:
        forge.down = True
        error = refused("github", event("deployed"), url=forge.url, token=TOKEN, **told)
        assert error.again
        assert "could not be asked" in str(error)
    error = refused("github", event("deployed"), url=forge.url, token=TOKEN, **told)
    assert error.again
    assert TOKEN not in str(error)
