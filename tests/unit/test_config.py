"""agent.toml: what is accepted, and every fault with its key path."""

import os
from pathlib import Path

import pytest

from agent import config, kinds, places
from agent.config import Settings
from agent.errors import AgentError, ConfigError
from agent.model import GitAccess, Hook, Rights, Secret, Stage, Target, Webhook

SECRET = "a recognisable secret, long enough"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hooks = tmp_path / "deploy_hooks"
    hooks.mkdir()
    for name in ("announce", "build"):
        (hooks / name).write_text("#!/bin/sh\n")
        (hooks / name).chmod(0o755)
    for name in ("webhook-secret", "token", "key", "known_hosts"):
        (tmp_path / name).write_text(SECRET + "\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def load(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "agent.toml"
    file.write_text(text)
    return config.load(file, {"HOME": str(folder), "XDG_STATE_HOME": "/xdg", **environ})


def faults(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    assert caught.value.exit == 78
    assert SECRET not in str(caught.value)
    return list(caught.value.faults)


SHOP = '[targets.shop]\nrepo = "https://github.com/acme/shop.git"\npath = "/srv/shop"\n'
WEBHOOK = '[webhooks.github]\nsecret = { file = "webhook-secret" }\n'
RELEASES = SHOP + 'strategy = "releases"\n'


def test_the_least(folder: Path) -> None:
    settings = load(folder, SHOP)
    assert settings == Settings(
        path=folder / "agent.toml",
        state_dir=Path("/xdg/gitops-agent"),
        hooks_dir=folder / "deploy_hooks",
        control_socket=Path("/xdg/gitops-agent/control.sock"),
        feed_socket=Path("/xdg/gitops-agent/feed.sock"),
        hooks_socket=None,
        parallel=4,
        history=90 * 86400.0,
        drain=80.0,
        bind="127.0.0.1:9000",
        url=None,
        trusted_proxies=(),
        entrance=None,
        metrics_bind=None,
        poll_jitter=10.0,
        webhooks={},
        sinks={},
        targets={
            "shop": Target(
                "shop", "https://github.com/acme/shop.git", "main", Path("/srv/shop"), 180.0, 1800.0
            )
        },
    )


def test_everything(folder: Path) -> None:
    settings = load(
        folder,
        """
        state_dir = "state"
        hooks_dir = "deploy_hooks"
        parallel = 2
        history = "30d"
        drain = "1m30s"
        [server]
        bind = "unix:/run/x.sock"
        [poll]
        interval = "off"
        jitter = "0s"
        [webhooks.main]
        provider = "github"
        secret = [{ env = "HOOK" }, { file = "webhook-secret" }, { credential = "webhook-secret" }]
        [targets.shop]
        repo = "git@github.com:acme/shop.git"
        branch = "release/1.x"
        path = "tree"
        strategy = "in-place"
        timeout = "1h"
        poll = "500s"
        git.token = { file = "token" }
        git.username = "bot"
        git.ssh_key = { file = "key" }
        git.known_hosts = "known_hosts"
        [[targets.shop.hooks]]
        stage = "build"
        run = ["build", "--x"]
        timeout = "10m"
        env = { A = "1" }
        [[targets.shop.hooks]]
        name = "own"
        run = ["./bin/x"]
        [[targets.shop.hooks]]
        run = ["/bin/true"]
        """,
        HOOK="from the environment, long",
        CREDENTIALS_DIRECTORY=str(folder),
    )
    assert settings.webhooks == {
        "main": Webhook(
            "main", "github", (b"from the environment, long", SECRET.encode(), SECRET.encode())
        )
    }
    target = settings.targets["shop"]
    assert (settings.drain, settings.history, settings.parallel) == (90.0, 30 * 86400.0, 2)
    assert settings.control_socket == folder / "state" / "control.sock"
    assert (target.path, target.poll, target.timeout) == (folder / "tree", 500.0, 3600.0)
    assert target.access == GitAccess(
        Secret(f"file {folder}/token", path=folder / "token"),
        "bot",
        folder / "key",
        folder / "known_hosts",
    )
    assert target.hooks == (
        Hook("build", Stage.BUILD, (f"{folder}/deploy_hooks/build", "--x"), 600.0, {"A": "1"}),
        Hook("own", Stage.ACTIVATE, ("./bin/x",), 300.0),
        Hook("true", Stage.ACTIVATE, ("/bin/true",), 300.0),
    )
    assert SECRET not in repr(settings)
    assert "from the environment" not in repr(settings)


def test_the_example_is_accepted(folder: Path) -> None:
    example = Path(__file__).parents[2] / "agent.toml.example"
    settings = load(folder, example.read_text())
    assert settings.targets["shop"].hooks[0].name == "announce"


def test_all_faults_come_at_once(folder: Path) -> None:
    found = faults(
        folder,
        """
        paralel = 3
        parallel = 0
        [server]
        bind = 9000
        [webhooks.github]
        secret = "bare"
        [targets.shop]
        repo = "https://github.com/acme/shop.git"
        path = "/srv/shop"
        timeout = "soon"
        [[targets.shop.hooks]]
        run = ["anounce"]
        [targets.b]
        path = "/srv/shop"
        """,
    )
    assert {fault.split(":")[0] for fault in found} == {
        "paralel", "parallel", "server.bind", "webhooks.github.secret", "targets.shop.timeout",
        "targets.shop.hooks[0].run", "targets.b.repo", "targets.b.path",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("", "targets", "add a [targets.NAME]"),
        ("targets = 3", "targets", "must be a table"),
        (SHOP + "hooks = 3", "targets.shop.hooks", "list of tables"),
        (SHOP + '[control]\nbind = "127.0.0.1:9001"', "control.token_hash", "is missing"),
        (SHOP + '[control]\nbind = "127.0.0.1:9001"\ntoken_hash = "hunter2"', "control.token_hash", "`gitops-agent token`"),
        (SHOP + "[polll]\n", "polll", "did you mean poll?"),
        (SHOP + "zzz = 1", "targets.shop.zzz", "there are: repo, path"),
        (SHOP + "[poll]\ninterval = 180", "poll.interval", '"3m", or "off"'),
        (SHOP + '[poll]\ninterval = "10ms"', "poll.interval", '"1s" or longer'),
        (SHOP + 'poll = "often"', "targets.shop.poll.interval", '"off"'),
        (SHOP + "poll = 3", "targets.shop.poll", "must be a table"),
        (SHOP + 'timeout = "1h 30m"', "targets.shop.timeout", "1h30m"),
        (SHOP + 'timeout = "5"', "targets.shop.timeout", "must be a duration"),
        (SHOP + "branch = 3", "targets.shop.branch", "text in quotes"),
        (SHOP + 'strategy = "x"', "targets.shop.strategy", "in-place, releases"),
        (SHOP + 'shared = [".env"]', "targets.shop.shared", 'needs strategy = "releases"'),
        (SHOP + 'keep = 3', "targets.shop.keep", 'needs strategy = "releases"'),
        (SHOP + 'reuse = [".venv"]', "targets.shop.reuse", 'needs strategy = "releases"'),
        (RELEASES + "keep = 0", "targets.shop.keep", "at least 1"),
        (RELEASES + 'shared = ["../up"]', "targets.shop.shared", "inside the deployed tree"),
        (RELEASES + 'shared = ["a/../../up"]', "targets.shop.shared", "inside the deployed tree"),
        (RELEASES + 'shared = ["/etc"]', "targets.shop.shared", "inside the deployed tree"),
        (RELEASES + 'shared = ["."]', "targets.shop.shared", "inside the deployed tree"),
        (RELEASES + 'shared = [""]', "targets.shop.shared", "inside the deployed tree"),
        (RELEASES + 'shared = [".git/hooks"]', "targets.shop.shared", "inside the deployed tree"),
        (RELEASES + 'shared = ["a", "a/b"]', "targets.shop.shared", "must not be in each other"),
        (RELEASES + 'shared = ["a/b", "a"]', "targets.shop.shared", "must not be in each other"),
        (RELEASES + 'shared = ["a", "./a"]', "targets.shop.shared", "'a' is named twice"),
        (RELEASES + 'shared = "a"', "targets.shop.shared", "must be a list"),
        (RELEASES + 'reuse = ["../x"]', "targets.shop.reuse", "inside the deployed tree"),
        ('[server]\ntrusted_proxies = "127.0.0.1"\n' + SHOP, "server.trusted_proxies", "must be a list"),
        ('[server]\ntrusted_proxies = ["localhost"]\n' + SHOP, "server.trusted_proxies", "'localhost'"),
        (SHOP + 'verify = { url = "ftp://x" }', "targets.shop.verify.url", "http://127.0.0.1:8000"),
        (SHOP + 'verify = { url = "http://a b" }', "targets.shop.verify.url", "must be a URL"),
        (SHOP + 'verify = { url = "http://u:p@h/" }', "targets.shop.verify.url", "must be a URL"),
        (SHOP + 'verify = { url = "http://h/ü" }', "targets.shop.verify.url", "must be a URL"),
        (SHOP + 'verify = { url = "http://a..b/" }', "targets.shop.verify.url", "must be a URL"),
        (SHOP + 'verify = { url = "http://h:x/" }', "targets.shop.verify.url", "must be a URL"),
        (SHOP + "verify = { expect = 200 }", "targets.shop.verify.url", "is missing"),
        (SHOP + 'verify = { url = "http://h", expect = 20 }', "targets.shop.verify.expect", "such as 200"),
        (SHOP + 'verify = { url = "http://h", within = 3 }', "targets.shop.verify.within", "duration"),
        ("parallel = true\n" + SHOP, "parallel", "whole number"),
        ('[targets."a b"]\nrepo = "/r"\npath = "/p"', "targets.a b", "cannot be a name"),
        (SHOP + "[webhooks.gitlab]\nsecret = { file = \"key\" }", "webhooks.gitlab.provider", "one of github"),
        (SHOP + "[webhooks.x]\nprovider = \"x\"\nsecret = { file = \"key\" }", "webhooks.x.provider", "one of github"),
        (SHOP + "[webhooks.github]", "webhooks.github.secret", "is missing"),
        (SHOP + "[webhooks.github]\nsecret = []", "webhooks.github.secret", "must name where"),
        (SHOP + "[webhooks.github]\nsecret = { }", "webhooks.github.secret", "must name where"),
        (SHOP + '[webhooks.github]\nsecret = { env = "A", file = "b" }', "webhooks.github.secret", "must name where"),
        (SHOP + '[webhooks.github]\nsecret = { vault = "A" }', "webhooks.github.secret", "no source"),
        (SHOP + '[webhooks.github]\nsecret = { env = "NONE" }', "webhooks.github.secret", "NONE is not set"),
        (SHOP + '[webhooks.github]\nsecret = { env = "EMPTY" }', "webhooks.github.secret", "is empty"),
        (SHOP + '[webhooks.github]\nsecret = { env = "SHORT" }', "webhooks.github.secret", "shorter than 16"),
        (SHOP + '[webhooks.github]\nsecret = { file = "none" }', "webhooks.github.secret", "cannot be read"),
        (SHOP + '[webhooks.github]\nsecret = { file = "open" }', "webhooks.github.secret", "chmod 600"),
        (SHOP + '[webhooks.github]\nsecret = { credential = "x" }', "webhooks.github.secret", "LoadCredential=x:"),
        (SHOP + '[webhooks.github]\nsecret = { credential = "../x" }', "webhooks.github.secret", "cannot be a credential"),
        (SHOP + 'git.token = "bare"', "targets.shop.git.token", "must name where"),
        (SHOP + 'git.ssh_key = { env = "HOME" }', "targets.shop.git.ssh_key", "ssh reads a file"),
        (SHOP + 'git.known_hosts = "nope"', "targets.shop.git.known_hosts", "there is no file"),
        (SHOP + "[[targets.shop.hooks]]", "targets.shop.hooks[0].run", "is missing"),
        (SHOP + "hooks = [{ run = [] }]", "targets.shop.hooks[0].run", "must be a list"),
        (SHOP + 'hooks = [{ run = "announce" }]', "targets.shop.hooks[0].run", "must be a list"),
        (SHOP + 'hooks = [{ run = ["announce", 1] }]', "targets.shop.hooks[0].run", "text in quotes"),
        (SHOP + 'hooks = [{ run = ["a/b"] }]', "targets.shop.hooks[0].run", "nor an absolute path"),
        (SHOP + 'hooks = [{ run = ["./../x"] }]', "targets.shop.hooks[0].run", "out of the deployed tree"),
        (SHOP + 'hooks = [{ run = ["anounce"] }]', "targets.shop.hooks[0].run", "did you mean announce?"),
        (SHOP + 'hooks = [{ run = ["check-http"] }]', "targets.shop.hooks[0].run",
         f"it comes with gitops-agent: `install -D {places.packaged('deploy_hooks')}/check-http "),
        (SHOP + 'hooks = [{ run = ["/no/such/x"] }]', "targets.shop.hooks[0].run", "put it there"),
        (SHOP + 'hooks = [{ run = ["plain"] }]', "targets.shop.hooks[0].run", "chmod 755"),
        (SHOP + 'hooks = [{ run = ["writable"] }]', "targets.shop.hooks[0].run", "chmod o-w"),
        (SHOP + 'hooks = [{ run = ["announce"], stage = "deploy" }]', "targets.shop.hooks[0].stage", "one of build, activate"),
        (SHOP + 'hooks = [{ run = ["announce"], env = { DEPLOY_ID = "1" } }]', "targets.shop.hooks[0].env", "cannot be set"),
        (SHOP + 'hooks = [{ run = ["announce"], env = { "a b" = "1" } }]', "targets.shop.hooks[0].env", "cannot be set"),
        (SHOP + 'hooks = [{ run = ["announce"], env = { A = 1 } }]', "targets.shop.hooks[0].env", "text in quotes"),
        (SHOP + 'hooks = [{ run = ["announce"], timeout = "0s" }]', "targets.shop.hooks[0].timeout", "longer than"),
        (SHOP + 'timeout = "0s"', "targets.shop.timeout", "longer than"),
        (SHOP + 'timeout = "25d"', "targets.shop.timeout", "20 days"),
        (f'drain = "{"9" * 400}d"\n' + SHOP, "drain", "a hundred years"),
        ('hooks_dir = "~nobody-of-that-name/x"\n' + SHOP, "~nobody-of-that-name/x", "no such user"),
        (SHOP.replace("/srv/shop", "loop"), "targets.shop.path", "not a folder"),
        (WEBHOOK.replace("webhook-secret", "fifo") + SHOP, "webhooks.github.secret", "no plain file"),
        (WEBHOOK.replace("webhook-secret", "huge") + SHOP, "webhooks.github.secret", "no plain file"),
        (SHOP + 'hooks = [{ run = ["announce"], env = "A" }]', "targets.shop.hooks[0].env", "must be a table"),
        ('state_dir = "' + "x" * 120 + '"\n' + SHOP, "state_dir", "too long"),
        ('state_dir = "/srv/shop/state"\n' + SHOP, "targets.shop.path", "must not be in each other"),
        ('state_dir = "/srv"\n' + SHOP, "targets.shop.path", "must not be in each other"),
        (SHOP + '[targets.b]\nrepo = "/r"\npath = "/srv/shop/inner"', "targets.b.path", "target shop too"),
        (SHOP + '[targets.b]\nrepo = "/r"\npath = "/srv/x/../shop"', "targets.b.path", "target shop too"),
    ],
)  # fmt: skip
def test_a_fault_has_its_key_and_says_what_to_type(
    folder: Path, text: str, key: str, says: str
) -> None:
    (folder / "open").write_text(SECRET)
    (folder / "open").chmod(0o644)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo", 0o600)
    (folder / "huge").touch(0o600)
    os.truncate(folder / "huge", 1 << 30)
    (folder / "deploy_hooks" / "plain").write_text("#!/bin/sh\n")
    (folder / "deploy_hooks" / "plain").chmod(0o644)
    (folder / "deploy_hooks" / "writable").write_text("#!/bin/sh\n")
    (folder / "deploy_hooks" / "writable").chmod(0o777)
    (fault,) = faults(folder, text, EMPTY="", SHORT="fifteen bytes..")
    assert fault.startswith(f"{key}: ")
    assert says in fault


def repo_and(value: str, path: str = "/srv/x") -> str:
    return f'[targets.x]\nrepo = "{value}"\npath = "{path}"\n'


@pytest.mark.parametrize(
    "repo",
    [
        "https://github.com/acme/shop.git", "ssh://git@github.com:22/acme/shop", "git@github.com:acme/shop.git",
        "github.com:acme/shop", "file:///srv/git/shop.git", "/srv/git/shop.git", "http://127.0.0.1:8080/shop.git",
        "http://localhost/shop.git", "http://[::1]:80/shop.git",
    ],
)  # fmt: skip
def test_repositories_that_are_accepted(folder: Path, repo: str) -> None:
    assert load(folder, repo_and(repo)).targets["x"].repo == repo


@pytest.mark.parametrize(
    ("repo", "says"),
    [
        ("", "URL or path"), ("-oProxyCommand=x", "URL or path"), ("https://x.example/a b", "URL or path"),
        ("http://github.com/acme/shop", "use https://"), ("git://github.com/acme/shop", "not allowed"),
        ("ext::sh -c id", "URL or path"), ("ext::sh", "remote helpers"), ("fd::17", "remote helpers"),
        ("https://ada:hunter2@github.com/x", "credentials"), ("https://ghp_x@github.com/x", "credentials"),
        ("ssh://-oProxyCommand=x/y", "no host"), ("https:///x", "no host"), ("https://[x/y", "not a URL"),
        ("shop", "must be such as"), ("acme/shop", "must be such as"), ("-x@host:y", "URL or path"),
        ("git@-x:y", "must be such as"),
    ],
)  # fmt: skip
def test_repositories_that_are_not(folder: Path, repo: str, says: str) -> None:
    (fault,) = faults(folder, repo_and(repo))
    assert fault.startswith("targets.x.repo: ")
    assert says in fault
    assert "hunter2" not in fault
    assert "ghp_x" not in fault


def test_a_relative_repository_is_from_the_file_s_folder(folder: Path) -> None:
    assert load(folder, repo_and("./shop.git")).targets["x"].repo == f"{folder}/shop.git"


@pytest.mark.parametrize("branch", ["main", "release/1.x", "feature_2", "@x", "a@b", "ü"])
def test_branches_that_are_accepted(folder: Path, branch: str) -> None:
    assert load(folder, repo_and("/r") + f'branch = "{branch}"').targets["x"].branch == branch


@pytest.mark.parametrize(
    "branch",
    ["", "-x", "refs/heads/main", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", ".a", "a/.b",
     "a.lock", "a.lock/b", "a/", "/a", "a//b", "@", "a@{b", "a.", "a\\\\b", "a\\u0001"],
)  # fmt: skip
def test_branches_that_are_not(folder: Path, branch: str) -> None:
    (fault,) = faults(folder, repo_and("/r") + f'branch = "{branch}"')
    assert fault.startswith("targets.x.branch: ")


def test_paths_that_are_one_by_a_link(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "shop").mkdir()
    for name, to in (("inner", "state/trees"), ("same", "shop")):
        (folder / name).symlink_to(to)
    top = 'state_dir = "state"\n'
    (fault,) = faults(folder, top + repo_and("/r", "inner/x"))
    assert "must not be in each other" in fault
    (fault,) = faults(folder, repo_and("/r", "shop/x") + repo_and("/r", "same").replace("x]", "y]"))
    assert "the path of target y too, or one is inside the other" in fault


def test_health_urls_with_credentials_are_not_repeated(folder: Path) -> None:
    for url in ("http://u:hunter2@h/", "http://u:hun/ter2@h/", "http://hunter2@h/"):
        (fault,) = faults(folder, SHOP + f'verify = {{ url = "{url}" }}')
        assert fault.startswith("targets.shop.verify.url: must be a URL such as")
        assert "ter2" not in fault


def test_paths_that_are_not(folder: Path) -> None:
    (folder / "file").write_text("")
    for name, to in (("nowhere", "gone"), ("ring", "ring"), ("root", "/"), ("above", ".")):
        (folder / name).symlink_to(to)
    links = ("nowhere", "nowhere/in", "ring", "root", "above")
    for path in ("/", "file", "file/in", "", str(folder), *links):
        (fault,) = faults(folder, repo_and("/r", path))
        assert fault.startswith("targets.x.path: ")


@pytest.mark.parametrize(
    "bind",
    ["127.0.0.1:9000", "0.0.0.0:80", "[::1]:9000", "unix:/run/x.sock"],
)
def test_binds_that_are_accepted(folder: Path, bind: str) -> None:
    assert load(folder, SHOP + f'[server]\nbind = "{bind}"').bind == bind


@pytest.mark.parametrize(
    "bind",
    ["", "9000", ":9000", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:70000", "::1:9000",
     "[127.0.0.1]:9000", "[::1:9000", "unix:x", "host.example:80", "unix:/" + "x" * 120],
)  # fmt: skip
def test_binds_that_are_not(folder: Path, bind: str) -> None:
    (fault,) = faults(folder, SHOP + f'[server]\nbind = "{bind}"')
    assert fault.startswith("server.bind: ")


def test_localhost_is_the_loopback(folder: Path) -> None:
    assert load(folder, SHOP + '[server]\nbind = "localhost:80"').bind == "127.0.0.1:80"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff", "not UTF-8"),
        (b"a = ", "not TOML"),
        (b"[targets.shop\nx", "line 1"),
        (b"a = 1\na = 2", "not TOML"),
        (b"a = " + b"[" * 20_000, "not TOML"),
        (b"a = " + b"9" * 5_000, "not TOML"),
    ],
)
def test_a_file_that_is_no_toml(folder: Path, content: bytes, says: str) -> None:
    (folder / "agent.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        config.load(folder / "agent.toml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(folder / "none.toml", {})


# ---- finding ----------------------------------------------------------------------------------


def test_where_the_file_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(places, "SYSTEM_CONFIG", folder / "etc" / "agent.toml")
    with pytest.raises(ConfigError, match="gitops-agent init"):
        places.find(None, {})
    (folder / "etc").mkdir()
    (folder / "etc" / "agent.toml").touch()
    assert places.find(None, {}) == folder / "etc" / "agent.toml"
    (folder / "agent.toml").touch()
    assert places.find(None, {}) == folder / "agent.toml"
    assert places.find(None, {"GITOPS_AGENT_CONFIG": "/x"}) == Path("/x")
    assert places.find("/y", {"GITOPS_AGENT_CONFIG": "/x"}) == Path("/y")


def test_a_service_s_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(folder, SHOP, STATE_DIRECTORY="/var/lib/x:/y").state_dir == Path("/var/lib/x")
    monkeypatch.setattr(places, "SYSTEM_CONFIG", folder / "agent.toml")
    settings = load(folder, SHOP)
    assert settings.state_dir == Path("/var/lib/gitops-agent")
    assert settings.control_socket == Path("/run/gitops-agent/control.sock")


def test_the_control_socket_is_known_despite_faults(folder: Path) -> None:
    file = folder / "agent.toml"
    file.write_text('state_dir = "/s"\nbroken = 1\n')
    assert config.control_socket(file, {}) == Path("/s/control.sock")


def test_a_secret_is_read_anew_and_a_lost_one_said(folder: Path) -> None:
    secret = Secret("file x", path=folder / "token")
    assert kinds.reveal(secret) == SECRET.encode()
    (folder / "token").write_text("another\n")
    assert kinds.reveal(secret) == b"another"
    (folder / "token").unlink()
    with pytest.raises(AgentError, match="file x cannot be read"):
        kinds.reveal(secret)


def test_a_folder_that_all_can_write_is_no_place_for_hooks(folder: Path) -> None:
    (folder / "deploy_hooks").chmod(0o777)
    (fault,) = faults(folder, SHOP + 'hooks = [{ run = ["announce"] }]')
    assert "chmod o-w" in fault
    (folder / "deploy_hooks").chmod(0o1777)
    load(folder, SHOP + 'hooks = [{ run = ["announce"] }]')


def test_no_right_to_run_a_hook_is_one_for_root_too(folder: Path) -> None:
    (folder / "deploy_hooks" / "announce").chmod(0o600)
    (fault,) = faults(folder, SHOP + 'hooks = [{ run = ["announce"] }]')
    assert "not executable" in fault
    assert os.access(folder, os.W_OK)


# ---- whom hooks run as ------------------------------------------------------------------------

RIGHTS = """
[targets.shop]
repo = "https://github.com/acme/shop.git"
path = "/srv/shop"
user = "nobody"
memory_max = "512MB"

[[targets.shop.hooks]]
run = ["build"]
tasks_max = 100

[[targets.shop.hooks]]
run = ["announce"]
user = "root"
memory_max = "64KiB"
"""


@pytest.fixture
def hook_runner(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook runner, for the file that is this test's."""
    (folder / "hooks.sock").touch()
    monkeypatch.setattr(places, "SYSTEM_CONFIG", folder / "agent.toml")
    monkeypatch.setattr(places, "SYSTEM_HOOKS", folder / "hooks.sock")


@pytest.mark.usefixtures("hook_runner")
def test_a_hook_s_own_rights_go_before_its_target_s(folder: Path) -> None:
    settings = load(folder, 'state_dir = "state"\n' + RIGHTS)
    assert settings.hooks_socket == folder / "hooks.sock"
    assert [hook.rights for hook in settings.targets["shop"].hooks] == [
        Rights("nobody", 512_000_000, 100),
        Rights("root", 64 * 1024, None),
    ]


def test_without_a_hook_runner_they_are_refused_and_not_passed_over(folder: Path) -> None:
    found = faults(folder, RIGHTS)
    assert [fault.split(":")[0] for fault in found] == [
        "targets.shop.user",
        "targets.shop.memory_max",
        "targets.shop.hooks[0].tasks_max",
        "targets.shop.hooks[1].user",
        "targets.shop.hooks[1].memory_max",
    ]
    assert all("systemctl start gitops-agent-hooks.socket" in fault for fault in found)


@pytest.mark.usefixtures("hook_runner")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('user = "no-such-user"', "useradd --system no-such-user"),
        ("user = 0", "must be a text"),
        ('memory_max = "512"', "must be a size"),
        ('memory_max = "0MB"', "must be a size"),
        ("memory_max = 512", "must be a size"),
        ("tasks_max = 0", "whole number of at least 1"),
    ],
)
def test_faulty_rights_say_what_to_type(folder: Path, line: str, says: str) -> None:
    (fault,) = faults(folder, f'state_dir = "state"\n{SHOP}{line}\n')
    assert fault.startswith(f"targets.shop.{line.split()[0]}: ")
    assert says in fault


@pytest.mark.usefixtures("hook_runner")
@pytest.mark.parametrize(
    ("lines", "path", "says"),
    [
        ('user = "gitops-agent"', "targets.shop.user", "is the agent itself"),
        ('user = "root"\nhooks = [{ run = ["./build"] }]', "targets.shop.hooks[0].run",
         "never runs as root"),
        ('hooks = [{ run = ["./build"], user = "root" }]', "targets.shop.hooks[0].run",
         "never runs as root"),
    ],
)  # fmt: skip
def test_whom_no_hook_may_be(folder: Path, lines: str, path: str, says: str) -> None:
    found = faults(folder, f'state_dir = "state"\n{SHOP}{lines}\n')
    assert any(fault.startswith(f"{path}: ") and says in fault for fault in found), found


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("64KiB", 65536), ("25MB", 25_000_000), ("2GiB", 2 << 30), ("1kB", 1000)],
)
def test_sizes(text: str, size: int) -> None:
    assert kinds.size(text) == size


def test_a_hook_is_called_as_its_program_so_far_as_a_log_can_be(folder: Path) -> None:
    program = folder / "deploy_hooks" / ("ü" * 127)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    settings = load(folder, SHOP + f'hooks = [{{ run = ["{program.name}"] }}]')
    (hook,) = settings.targets["shop"].hooks
    assert hook.name == "ü" * 50
    assert len(os.fsencode(f"01-activate-{hook.name}.log")) < 255
