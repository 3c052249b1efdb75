"""The receiver's part of agent.toml: what it reads, and what it need not be able to."""

from pathlib import Path

import pytest

from agent import public
from agent.errors import ConfigError
from agent.model import Tracked, Webhook

SECRET = "a secret of the tests, long enough"
FILE = """
parallel = "no number"         # the core's fault to tell
[server]
bind = "127.0.0.1:9001"
trusted_proxies = ["127.0.0.1"]
[webhooks.github]
secret = { env = "HOOK" }
[targets.shop]
repo = "https://github.com/acme/shop.git"
path = "/not/to/be/looked/at"
unheard = "of"
[targets.shop.git]
token = { file = "/nobody/may/read/this" }
[[targets.shop.hooks]]
run = ["no-such-hook"]
[targets.docs]
repo = "git@github.com:acme/docs.git"
branch = "live"
path = "docs"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def test_it_knows_webhooks_and_which_push_is_for_whom_and_no_more(tmp_path: Path) -> None:
    path = write(tmp_path, FILE)
    settings = public.load(path, {"HOOK": SECRET, "STATE_DIRECTORY": "/var/lib/receiver"})
    assert settings == public.Public(
        path=path,
        inbox_dir=Path("/var/lib/receiver"),
        feed_socket=Path("/var/lib/receiver/feed.sock"),
        history=90 * 86400.0,
        bind="127.0.0.1:9001",
        trusted_proxies=("127.0.0.1",),
        url=None,
        webhooks={"github": Webhook("github", "github", (SECRET.encode(),))},
        targets={
            "shop": Tracked("shop", "https://github.com/acme/shop.git", "main"),
            "docs": Tracked("docs", "git@github.com:acme/docs.git", "live"),
        },
    )


def test_every_fault_of_its_part_is_told(tmp_path: Path) -> None:
    faulty = FILE.replace(":9001", ":0").replace("github.com/acme/shop", "github.com /").replace(
        '"live"', '"refs/heads/live"'
    )  # fmt: skip
    with pytest.raises(ConfigError) as error:
        public.load(write(tmp_path, faulty), {})
    assert [fault.split(":")[0] for fault in error.value.faults] == [
        "server.bind",
        "webhooks.github.secret",
        "targets.shop.repo",
        "targets.docs.branch",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[webhooks]\ngithub = 1", "webhooks.github: must be a table"),
        ("server = 1", "server: must be a table"),
        ("webhooks = 1", "webhooks: must be a table"),
    ],
)
def test_another_shape_is_a_fault(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        public.load(write(tmp_path, text), {})


@pytest.mark.parametrize("text", ["targets = 1", "[targets]\nshop = 1"])
def test_a_core_s_fault_leaves_it_without_targets(tmp_path: Path, text: str) -> None:
    assert public.load(write(tmp_path, text), {}).targets == {}
