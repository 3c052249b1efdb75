"""No secret leaves but to the sink that needs it."""

from pathlib import Path

import pytest

from agent import logs
from agent.errors import AgentError
from agent.model import Secret
from agent.notices import Manner, Sink
from agent.notifier import hide, order

TOKEN = "xoxb-a-token-of-the-tests"


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", set())


def secret(text: str) -> Secret:
    return Secret("x", value=text.encode())


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (f"slack://T1/B1/{TOKEN}", f"POST https://hooks.slack.com/services/T1/B1/{TOKEN} failed"),
        (f"tgram://123456:{TOKEN}/42", f"https://api.telegram.org/bot123456:{TOKEN}/send: 404"),
        ("mailto://ada:pa%2Fssword@mail.example", "login ada pa%2Fssword refused"),
        (f"json://x.example/?key={TOKEN}&a=b", f"key={TOKEN} is wrong"),
        ("gitlab://a%40token%2Fof-the-tests/x", "the token a@token/of-the-tests is wrong"),
        (TOKEN, f"Authorization: Bearer {TOKEN}"),
    ],
)
def test_a_secret_and_its_pieces_are_hidden(url: str, complaint: str) -> None:
    hide([secret(url)])
    said = logs.redact(complaint)
    assert logs.HIDDEN in said
    assert TOKEN not in said
    assert "ssword" not in said
    assert "of-the-tests" not in said


def test_ordinary_words_of_a_url_stay_as_they_are() -> None:
    hide([secret("https://ops.example.org/webhooks/deploy/shop")])
    assert logs.redact("deploy of shop to webhooks done") == "deploy of shop to webhooks done"


def test_the_sink_s_process_gets_its_secrets_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("one\n")
    place = Secret("file key", path=tmp_path / "key")
    settings = {"url": "https://x", "secret": (place, secret("two")), "token": place, "app": None}
    sink = Sink("ops", "webhook", Manner.NEWS, frozenset(), frozenset(), None, settings)
    made = order(sink, [])
    assert made.settings == {
        "url": "https://x",
        "secret": ("one", "two"),
        "token": "one",
        "app": None,
    }
    (tmp_path / "key").write_text("rotated")
    assert order(sink, []).settings["token"] == "rotated"
    (tmp_path / "key").unlink()
    with pytest.raises(AgentError, match="file key cannot be read"):
        order(sink, [])
    hide([place])
