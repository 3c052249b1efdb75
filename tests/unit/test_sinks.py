"""The [notify.NAME] tables: what they become, and what is wrong with them."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from agent import config, sinks
from agent.config import Settings
from agent.errors import ConfigError
from agent.model import Outcome, Secret
from agent.notices import FAILURES, Manner, Sink

KEY = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g="
TARGETS = """
[targets.shop]
repo = "https://github.com/acme/shop.git"
path = "/srv/shop"
[targets.blog]
repo = "git@github.example.org:acme/blog"
path = "/srv/blog"
"""
WEBHOOK = (
    TARGETS
    + '[notify.ops]\nkind = "webhook"\nurl = "https://x.example"\nsecret = { env = "KEY" }\n'
)
TEAM = TARGETS + '[notify.team]\nkind = "apprise"\nurl = { env = "TEAM" }\n'
ALERTS = TARGETS + '[notify.alertmanager]\nurl = "http://10.0.0.1:9093"\n'
GITHUB = TARGETS + '[notify.github]\ntoken = { env = "TOKEN" }\n'
ENVIRON = {
    "KEY": KEY,
    "TEAM": "slack://a/b/c",
    "TOKEN": "ghs_x",
    "SHORT": "whsec_YQ==",
    "BARE": "x" * 40,
}


def load(folder: Path, text: str) -> Settings:
    (folder / "agent.toml").write_text(f'state_dir = "{folder}/state"\n{text}')
    return config.load(folder / "agent.toml", ENVIRON)


def only(folder: Path, text: str) -> Sink:
    (sink,) = load(folder, text).sinks.values()
    return sink


def test_no_sink_is_needed(tmp_path: Path) -> None:
    assert load(tmp_path, TARGETS).sinks == {}


def test_the_example_has_every_key(tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / "agent.toml.example").read_text()
    tables = re.sub(r"^# ?", "", example[example.index("# [notify.team]") :], flags=re.MULTILINE)
    for name in re.findall(r'file = "(.*?)"', tables):
        (tmp_path / name).write_text(KEY)
        (tmp_path / name).chmod(0o600)
    written = tomllib.loads(tables)["notify"]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, TARGETS + tables)
    # It shows what excludes each other, and that is all that is wrong with it.
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "notify.alertmanager", "notify.github",
    ]  # fmt: skip
    for name, table in written.items():
        shape = sinks.SHAPES[table.get("kind", name)]
        own = {one.name for one in fields(shape)} - {"targets", "outcomes", "link"}
        assert own <= table.keys()


def test_by_default_a_person_hears_of_failures_of_every_target(tmp_path: Path) -> None:
    sink = only(tmp_path, TEAM)
    assert (sink.name, sink.kind, sink.manner) == ("team", "apprise", Manner.NEWS)
    assert sink.targets == {"shop", "blog"}
    assert sink.outcomes == FAILURES
    url = sink.settings["url"]
    assert isinstance(url, Secret)
    assert (url.name, url.value) == ("environment variable TEAM", b"slack://a/b/c")
    assert "slack" not in repr(sink)


def test_a_program_hears_of_every_outcome(tmp_path: Path) -> None:
    sink = only(tmp_path, WEBHOOK)
    assert sink.outcomes == set(Outcome)
    assert sink.settings["url"] == "https://x.example"


def test_targets_and_outcomes_are_chosen(tmp_path: Path) -> None:
    sink = only(tmp_path, WEBHOOK + 'targets = ["shop"]\noutcomes = ["broken", "canceled"]')
    assert sink.targets == {"shop"}
    assert sink.outcomes == {Outcome.BROKEN, Outcome.CANCELED}


def test_an_alertmanager_by_its_name(tmp_path: Path) -> None:
    sink = only(tmp_path, ALERTS + 'labels = { team = "shop" }')
    assert (sink.kind, sink.manner) == ("alertmanager", Manner.STANDING)
    assert sink.settings["labels"] == {"team": "shop"}


def test_a_github_has_the_targets_whose_repositories_it_has(tmp_path: Path) -> None:
    sink = only(tmp_path, GITHUB)
    assert (sink.manner, sink.targets) == (Manner.EVERYTHING, {"shop"})
    assert sink.settings["repositories"] == {"shop": "acme/shop"}
    assert sink.settings["environment"] == "{target}"
    own = only(tmp_path, GITHUB + 'url = "https://github.example.org/api/v3"')
    assert own.settings["repositories"] == {"blog": "acme/blog"}


def test_every_secret_is_known_by_its_place(tmp_path: Path) -> None:
    found = load(tmp_path, WEBHOOK + TEAM.removeprefix(TARGETS) + GITHUB.removeprefix(TARGETS))
    assert {one.name for one in found.secrets()} == {
        f"environment variable {name}" for name in ("KEY", "TEAM", "TOKEN")
    }


@pytest.mark.parametrize(
    ("repo", "api", "full"),
    [
        ("https://github.com/acme/shop.git", "https://api.github.com", "acme/shop"),
        ("https://github.com/acme/shop/", "https://api.github.com", "acme/shop"),
        ("git@github.com:acme/shop.git", "https://api.github.com", "acme/shop"),
        ("ssh://git@GitHub.com:22/acme/shop", "https://api.github.com", "acme/shop"),
        ("https://git.acme.example/a/b", "https://git.acme.example/api/v3", "a/b"),
        ("https://acme.ghe.com/a/b", "https://api.acme.ghe.com", "a/b"),
        ("https://gitlab.com/acme/shop.git", "https://api.github.com", None),
        ("https://github.com/acme/shop/wiki", "https://api.github.com", None),
        ("https://github.com/acme", "https://api.github.com", None),
        ("/srv/git/shop.git", "https://api.github.com", None),
        ("file:///acme/shop", "https://api.github.com", None),
    ],
)
def test_which_repositories_a_github_has(repo: str, api: str, full: str | None) -> None:
    assert sinks.full_name(repo, api) == full


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (TARGETS + "[notify.team]", "notify.team.kind", "must be one of apprise, webhook, alertmanager, github"),
        (TARGETS + "[notify]\nteam = 1", "notify.team", "must be a table"),
        (TEAM + 'secret = "x"', "notify.team.secret", "unknown key"),
        (TEAM + 'target = ["shop"]', "notify.team.target", "did you mean targets?"),
        (TEAM.replace("{ env", "{ envy"), "notify.team.url", "no source of a secret"),
        (TEAM.replace('{ env = "TEAM" }', '"slack://a/b/c"'), "notify.team.url", "must name where"),
        (TEAM + 'targets = ["shopp"]', "notify.team.targets", "did you mean shop?"),
        (TEAM + 'targets = "shop"', "notify.team.targets", "must be a list"),
        (TEAM + 'outcomes = ["failed", "good"]', "notify.team.outcomes", "some of deployed, failed"),
        (TEAM + 'outcomes = "failed"', "notify.team.outcomes", "must be a list"),
        (TEAM + 'link = "https://x/{id}"', "notify.team.link", "{deployment} and {target}"),
        (TEAM + 'link = "https://x/{deployment"', "notify.team.link", "brace too many or too few"),
        (TEAM + 'link = "x"', "notify.team.link", "must be a URL"),
        (WEBHOOK.replace("https://x.example", "http://x.example"), "notify.ops.url", "use https://"),
        (WEBHOOK.replace("https://x.example", "https://ada:pw@x.example"), "notify.ops.url", "credentials"),
        (WEBHOOK.replace("https://x.example", "ftp://x.example"), "notify.ops.url", "must be a URL"),
        (WEBHOOK.replace("https://x.example", "https://[x"), "notify.ops.url", "is not a URL"),
        (WEBHOOK.replace('"KEY"', '"SHORT"'), "notify.ops.secret", "openssl rand -base64 32"),
        (WEBHOOK.replace('"KEY"', '"BARE"'), "notify.ops.secret", "openssl rand -base64 32"),
        (WEBHOOK.replace('{ env = "KEY" }', "[]"), "notify.ops.secret", "at least one"),
        (TARGETS + '[notify.ops]\nkind = "webhook"\nurl = "https://x.example"', "notify.ops.secret", "is missing"),
        (ALERTS + 'labels = { "a-b" = "x" }', "notify.alertmanager.labels", "cannot be a label's name"),
        (ALERTS + "labels = { a = 1 }", "notify.alertmanager.labels", "must be a table such as"),
        (ALERTS + 'username = "ada"', "notify.alertmanager", "go together"),
        (ALERTS + 'token = { env = "TOKEN" }', "notify.alertmanager.url", "use https://"),
        (GITHUB.replace('token = { env = "TOKEN" }', ""), "notify.github", "needs token"),
        (GITHUB + 'app = "1"', "notify.github", "needs token"),
        (GITHUB + 'outcomes = ["failed"]', "notify.github.outcomes", "unknown key"),
        (GITHUB + 'targets = ["blog"]', "notify.github.targets", "repository of blog is not on the GitHub"),
        (GITHUB + 'url = "https://other.example"', "notify.github", "no target's repository is on the GitHub"),
        (GITHUB + 'environment = "{deployment}"', "notify.github.environment", "{target} and {host}"),
        (GITHUB + 'environment = " "', "notify.github.environment", "must not be empty"),
        (TARGETS + '[notify."a b"]\nkind = "apprise"\nurl = { env = "TEAM" }', "notify.a b", "cannot be a name"),
    ],
)  # fmt: skip
def test_a_fault_has_its_key_and_says_what_to_type(
    tmp_path: Path, text: str, key: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{key}: ")
    assert says in fault
    assert KEY not in fault


def test_all_the_faults_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            tmp_path,
            TEAM
            + 'targets = ["none"]\noutcomes = ["no"]\n'
            + ALERTS.removeprefix(TARGETS)
            + "x = 1",
        )
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(("text", "extra"), [(TEAM, "notify"), (GITHUB, "github")])
def test_a_library_that_is_not_installed_is_named(
    tmp_path: Path, text: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"pip install 'gitops-agent\[{extra}\]'"):
        load(tmp_path, text)
