"""The shipped hooks, each run as the agent would run it.

pip, Django, Alembic, SQLite, HTTP and the file system are real. systemd and Docker are not on every
test machine: programs of their name stand in, which keep a state and record what they are asked.
"""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

# One process runs them all, so that the first environment is made once.
pytestmark = pytest.mark.xdist_group("deploy-hooks")
HOOKS = Path(__file__).parents[2] / "deploy_hooks"
NAMES = sorted(path.name for path in HOOKS.iterdir() if path.name != "README.md")


class Host:
    """A deployed tree, the programs on the hook's PATH, and what they were asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.tree, self.bin = root / "home", root / "srv/shop", root / "bin"
        for folder in (self.home, self.tree, self.bin):
            folder.mkdir(parents=True)
        self.asked = root / "asked"

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)

    def commands(self) -> list[str]:
        return self.asked.read_text().splitlines() if self.asked.exists() else []

    def env(self, **more: str) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.root),
            "DEPLOY_TARGET": "shop",
            "DEPLOY_REASON": "push",
            "DEPLOY_TREE": str(self.tree),
            "DEPLOY_PATH": str(self.tree),
            **more,
        }

    def start(self, name: str, *arguments: object, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [HOOKS / name, *map(str, arguments)],
            cwd=self.tree,
            env=self.env(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )

    def run(self, name: str, *arguments: object, **env: str) -> tuple[int, str]:
        with self.start(name, *arguments, **env) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, output


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def explains(output: str) -> bool:
    """Whether a failure says what happened, what it means, and what to type."""
    lines = [line.strip() for line in output.splitlines()]
    return any(
        one.startswith("meaning:") and following.startswith("to do:")
        for one, following in pairwise(lines)
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_is_executable_explains_itself_and_is_in_the_readme(host: Host, name: str) -> None:
    assert (HOOKS / name).stat().st_mode & 0o777 == 0o755
    status, output = host.run(name, "--help")
    assert status == 0
    assert output.startswith(f"usage: {name}")
    assert "exit status:" in output
    readme = (HOOKS / "README.md").read_text()
    assert f"| `{name}`" in readme
    assert f'run = ["{name}"' in readme


def test_the_readme_s_own_hook_runs(host: Host) -> None:
    block = (HOOKS / "README.md").read_text().split("```sh\n")[1].split("```")[0]
    hook = host.write("hook", block, 0o755)
    host.write("bin/reindex", '#!/bin/sh\necho "indexed $1"\n', 0o755)
    changed = host.root / "changed"

    def run(paths: str, reachable: bool) -> tuple[int, str]:
        changed.write_text(paths)
        host.program("curl", f"import sys\nsys.exit({0 if reachable else 7})\n")
        env = host.env(DEPLOY_CHANGED_FILES=str(changed))
        ran = subprocess.run([hook], cwd=host.tree, env=env, stdout=subprocess.PIPE, text=True)
        return ran.returncode, ran.stdout

    assert run("README.md\n", reachable=False) == (0, "")
    assert run("articles/one.md\n", reachable=False) == (75, "")
    assert run("articles/one.md\n", reachable=True) == (0, "indexed articles/\n")


# ---- install-venv -----------------------------------------------------------------------------

PIP = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}


def wheel(folder: Path, version: str) -> Path:
    path = folder / f"greet-{version}-py3-none-any.whl"
    info = f"greet-{version}.dist-info"
    files = {
        "greet.py": f"def main(): print('hello {version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: greet\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ngreet = greet:main\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return path


def greeting(host: Host) -> str:
    greet = host.tree / ".venv/bin/greet"
    return subprocess.run([greet], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def builds(host: Host) -> list[str]:
    kept = (host.tree / ".venv.builds").iterdir()
    return sorted(path.name for path in kept if path.is_dir())


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, str]:
    """A tree whose environment the hook has made from nothing; once, since it takes seconds."""
    host = Host(tmp_path_factory.mktemp("first"))
    host.write("requirements.txt", "")
    status, output = host.run("install-venv", **PIP)
    assert status == 0, output
    return host, output


@pytest.fixture
def python(host: Host, first: tuple[Host, str]) -> str:
    """A Python whose `-m venv` copies the first one made; pip and all else in it is real."""
    real, (made, _) = sys.executable, first
    template = (made.tree / ".venv").resolve()
    host.program(
        "quick-python",
        "import os, subprocess, sys\n"
        "if sys.argv[1:3] == ['-m', 'venv']:\n"
        f"    subprocess.run(['cp', '-al', {str(template)!r}, sys.argv[3]], check=True)\n"
        "    sys.exit(os.remove(sys.argv[3] + '/complete.json'))\n"
        f"os.execv({real!r}, [{real!r}, *sys.argv[1:]])\n",
    )
    return "--python=quick-python"


def test_an_environment_is_made_where_there_was_none(first: tuple[Host, str]) -> None:
    host, output = first
    assert "newly built" in output
    code = "import sys; print(sys.prefix)"
    argv = [host.tree / ".venv/bin/python", "-c", code]
    prefix = subprocess.run(argv, stdout=subprocess.PIPE, text=True).stdout.strip()
    assert Path(prefix).resolve() == (host.tree / ".venv").resolve()


def test_it_follows_its_inputs_and_the_way_back_needs_no_index(host: Host, python: str) -> None:
    env = {**PIP, "PIP_FIND_LINKS": str(host.root)}
    wheels = [wheel(host.root, "1.0"), wheel(host.root, "2.0")]
    host.write("requirements.txt", "-r more.txt\n")
    host.write("more.txt", "greet==1.0\n")
    assert host.run("install-venv", python, **env)[0] == 0
    assert "is up to date" in host.run("install-venv", python, **env)[1]

    host.write("more.txt", "greet==2.0\n")  # only the included file changes
    status, output = host.run("install-venv", python, **env)
    assert (status, greeting(host)) == (0, "hello 2.0"), output

    for path in wheels:
        path.unlink()
    kept = builds(host)
    host.write("more.txt", "greet==1.0\n")
    status, output = host.run("install-venv", python, **env)
    assert (status, greeting(host)) == (0, "hello 1.0"), output
    assert "one built before" in output
    assert builds(host) == kept

    host.write("more.txt", "greet==3.0\n")
    status, output = host.run("install-venv", python, **env)
    assert (status, explains(output)) == (1, True)
    assert "pip could not install --requirement requirements.txt" in output
    assert (greeting(host), builds(host)) == ("hello 1.0", kept)


def test_a_local_wheel_that_changes_is_an_input(host: Host, python: str) -> None:
    first = wheel(host.root, "1.0")
    host.write("requirements.txt", f"{first}\n")
    assert host.run("install-venv", python, **PIP)[0] == 0
    with zipfile.ZipFile(first, "a") as zipped:
        zipped.writestr("more.py", "")
    assert "newly built" in host.run("install-venv", python, **PIP)[1]


def test_one_whose_python_is_gone_is_built_anew(host: Host, python: str) -> None:
    host.write("requirements.txt", "")
    assert host.run("install-venv", python, **PIP)[0] == 0
    broken = host.tree / ".venv/bin/python"
    broken.unlink()
    broken.symlink_to("/usr/bin/python2.6")
    assert "newly built" in host.run("install-venv", python, **PIP)[1]
    assert subprocess.run([broken, "-c", ""]).returncode == 0


def test_an_install_that_is_stopped_leaves_nothing_half_built(host: Host, python: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host.write("requirements.txt", "greet\n")
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        env = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index}
        with host.start("install-venv", python, **env) as process:
            asking, _ = silent.accept()  # pip is at work
            with asking:
                assert len(builds(host)) == 1
                os.killpg(process.pid, signal.SIGTERM)
                output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert explains(output)
    assert builds(host) == []
    assert not (host.tree / ".venv").is_symlink()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_an_index_out_of_reach_is_for_later(host: Host, python: str) -> None:
    host.write("requirements.txt", "no-such-package\n")
    index = f"http://127.0.0.1:{closed_port()}/simple"
    env = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index, "PIP_RETRIES": "0"}
    status, output = host.run("install-venv", python, **env)
    assert (status, explains(output)) == (75, True), output
    assert builds(host) == []


BACKEND = '''
import pathlib, zipfile
def _wheel(folder):
    with zipfile.ZipFile(pathlib.Path(folder, "shop-1-py3-none-any.whl"), "w") as zipped:
        zipped.writestr("shop.pth", str(pathlib.Path().resolve()))
        zipped.writestr("shop-1.dist-info/METADATA", """Metadata-Version: 2.1
Name: shop
Version: 1
Provides-Extra: prod
Requires-Dist: greet; extra == "prod"
""")
        zipped.writestr("shop-1.dist-info/WHEEL", """Wheel-Version: 1.0
Generator: x
Root-Is-Purelib: true
Tag: py3-none-any
""")
        zipped.writestr("shop-1.dist-info/RECORD", "")
    return "shop-1-py3-none-any.whl"
def build_wheel(folder, config_settings=None, metadata_directory=None): return _wheel(folder)
def build_editable(folder, config_settings=None, metadata_directory=None): return _wheel(folder)
'''


def test_a_project_with_an_extra_reads_its_code_from_the_tree(host: Host, python: str) -> None:
    wheel(host.root, "1.0")
    host.write("backend.py", BACKEND)
    host.write(
        "pyproject.toml",
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    )
    host.write("shop.py", "print('one')\n")
    env = {**PIP, "PIP_FIND_LINKS": str(host.root)}
    status, output = host.run("install-venv", python, "--extra", "prod", **env)
    assert (status, greeting(host)) == (0, "hello 1.0"), output
    host.write("shop.py", "print('two')\n")
    ask = [host.tree / ".venv/bin/python", "-c", "import shop"]
    assert subprocess.run(ask, stdout=subprocess.PIPE, cwd="/").stdout == b"two\n"


def test_two_installs_at_once_and_an_environment_made_by_hand(host: Host, python: str) -> None:
    host.write("requirements.txt", "")
    host.write(".venv/pyvenv.cfg", "")
    host.write(".venv/mine", "kept")
    with socket.create_server(("127.0.0.1", 0)) as gate:
        # Builds only once it is let, so that it is surely still at work when the second comes.
        host.program(
            "slow-python",
            "import os, socket, sys\n"
            "if sys.argv[1:3] == ['-m', 'venv']:\n"
            f"    socket.create_connection(('127.0.0.1', {gate.getsockname()[1]})).recv(1)\n"
            "os.execvp('quick-python', ['quick-python', *sys.argv[1:]])\n",
        )
        with host.start("install-venv", "--python", "slow-python", **PIP) as slow:
            waiting, _ = gate.accept()
            status, output = host.run("install-venv", python, **PIP)
            waiting.close()
            said, _ = slow.communicate(timeout=60)
    assert (status, explains(output)) == (75, True)
    assert slow.returncode == 0, said
    (kept,) = (host.tree / ".venv.builds").glob("made-by-hand-*/.venv/mine")
    assert kept.read_text() == "kept"
    assert str(kept.parent) in said


def test_install_venv_says_what_is_missing(host: Host) -> None:
    status, output = host.run("install-venv")
    assert (status, explains(output)) == (1, True)
    assert "has no requirements.txt, pyproject.toml or setup.py" in output
    assert "there is no prod.txt" in host.run("install-venv", "-r", "prod.txt")[1]
    host.write("requirements.txt", "")
    assert "there is no program python9" in host.run("install-venv", "--python", "python9")[1]
    host.write(".venv/notes", "no environment at all")
    status, output = host.run("install-venv", **PIP)
    assert status == 1
    assert "is there and is no virtual environment" in output
    assert (host.tree / ".venv/notes").exists()


# ---- check-http -------------------------------------------------------------------------------


class Site:
    """Answers in turn with what it is given, then with the last for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = [(200, b"all is well")]
        self.hosts: list[str | None] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.hosts.append(self.headers["Host"])
                more = len(site.answers) > 1
                status, body = site.answers.pop(0) if more else site.answers[0]
                self.send_response(status)
                self.send_header("Location", "/login")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/health"


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    thread = threading.Thread(target=one.server.serve_forever, args=(0.01,))
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


def test_a_site_that_comes_up_is_waited_for(host: Host, site: Site) -> None:
    site.answers = [(503, b""), (200, b"")]
    status, output = host.run("check-http", site.url)
    assert status == 0, output
    assert "status 503" in output
    assert len(site.hosts) == 2


def test_one_that_falls_over_again_starts_anew(host: Host, site: Site) -> None:
    site.answers = [(200, b""), (500, b""), (200, b"")]
    status, output = host.run("check-http", "--stable-for", "0.4s", site.url)
    assert status == 0, output
    assert len(site.hosts) == 4


def test_one_that_falls_over_for_good_is_not_well(host: Host, site: Site) -> None:
    site.answers = [(200, b""), (500, b"out of memory")]
    status, output = host.run("check-http", "--within", "0.1s", "--stable-for", "1h", site.url)
    assert (status, explains(output)) == (1, True)
    assert "status 500" in output
    assert "it says: out of memory" in output


@pytest.mark.parametrize(
    ("arguments", "answer", "status"),
    [
        ((), (204, b""), 0),
        (("--contains", "well"), (200, b"all is well"), 0),
        (("--contains", "ill"), (200, b"all is we"), 1),
        (("--expect", "200"), (204, b""), 1),
        (("--expect", "3xx"), (302, b""), 0),
        ((), (302, b""), 1),
    ],
)
def test_what_a_good_answer_is(
    host: Host, site: Site, arguments: Sequence[str], answer: tuple[int, bytes], status: int
) -> None:
    site.answers = [answer]
    assert host.run("check-http", "--within", "0s", *arguments, site.url)[0] == status


def test_a_virtual_host_is_asked_by_its_name_and_no_proxy_is_used(host: Host, site: Site) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"
    status, output = host.run(
        "check-http", "--header", "Host: shop.example", site.url, http_proxy=proxy
    )
    assert status == 0, output
    assert site.hosts == ["shop.example"]


def test_nobody_there_and_one_that_never_answers(host: Host) -> None:
    status, output = host.run("check-http", "--within", "0s", f"http://127.0.0.1:{closed_port()}/")
    assert (status, explains(output)) == (1, True)
    assert "Connection refused" in output
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        status, output = host.run("check-http", "--within", "0s", "--timeout", "0.1s", url)
    assert status == 1
    assert "timed out" in output


@pytest.mark.parametrize("url", ["ftp://x/", "http:///", "http://me:secret@127.0.0.1/"])
def test_an_address_that_will_not_do_is_a_usage_error(host: Host, url: str) -> None:
    assert host.run("check-http", url)[0] == 2


# ---- publish-static ---------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "www/shop"


def published(root: Path) -> list[str]:
    files = (path for path in root.rglob("*") if path.is_file())
    names = (str(path.relative_to(root)) for path in files)
    return sorted(name for name in names if name != ".published-by-gitops-agent")


def test_a_folder_is_published_and_what_is_removed_goes(host: Host, root: Path) -> None:
    for name in (
        "index.html",
        "css/a.css",
        "old/deep/x.html",
        ".well-known/y",
        ".env",
        ".git/config",
    ):
        host.write(f"public/{name}", "one", 0o600)
    status, output = host.run("publish-static", "public", root)
    assert status == 0, output
    assert published(root) == [".well-known/y", "css/a.css", "index.html", "old/deep/x.html"]
    assert (root / "index.html").stat().st_mode & 0o777 == 0o644
    kept = (root / "css/a.css").stat().st_ino

    host.write("public/index.html", "two")
    (host.tree / "public/old/deep/x.html").unlink()
    (root / "robots.txt").write_text("put there by somebody else")
    status, output = host.run("publish-static", "public", root)
    assert "1 of 3 files changed, 1 removed" in output
    assert published(root) == [".well-known/y", "css/a.css", "index.html", "robots.txt"]
    assert (root / "index.html").read_text() == "two"
    assert (root / "css/a.css").stat().st_ino == kept
    assert not (root / "old").exists()


def test_a_folder_becomes_a_file_and_a_file_a_folder(host: Host, root: Path) -> None:
    host.write("public/a/x", "1")
    host.write("public/b", "1")
    assert host.run("publish-static", "public", root)[0] == 0
    (host.tree / "public/a/x").unlink()
    (host.tree / "public/a").rmdir()
    (host.tree / "public/b").unlink()
    host.write("public/a", "2")
    host.write("public/b/x", "2")
    status, output = host.run("publish-static", "public", root)
    assert status == 0, output
    assert published(root) == ["a", "b/x"]


def test_readers_never_miss_a_file_nor_see_half_of_one(host: Host, root: Path) -> None:
    texts = ["a" * 300_000, "b" * 300_000]
    host.write("public/index.html", texts[0])
    assert host.run("publish-static", "public", root)[0] == 0
    done, seen = threading.Event(), set[str]()

    def read() -> None:
        while not done.is_set():
            try:
                seen.add((root / "index.html").read_text())
            except OSError as error:
                seen.add(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(6):
        host.write("public/index.html", texts[(n + 1) % 2])
        assert host.run("publish-static", "public", root)[0] == 0
    done.set()
    reader.join()
    assert seen <= set(texts)
    assert texts[1] in seen


def test_somebody_else_s_folder_is_taken_over_only_when_told_to(host: Host, root: Path) -> None:
    host.write("public/index.html", "new")
    root.mkdir(parents=True)
    (root / "upload.jpg").write_text("a visitor's")
    status, output = host.run("publish-static", "public", root)
    assert (status, explains(output)) == (1, True)
    assert published(root) == ["upload.jpg"]
    assert host.run("publish-static", "--adopt", "public", root)[0] == 0
    assert published(root) == ["index.html", "upload.jpg"]


def test_what_is_somebody_else_s_is_not_written_through_or_over(host: Host, root: Path) -> None:
    outside = host.root / "outside"
    outside.mkdir()
    host.write("public/index.html", "x")
    assert host.run("publish-static", "public", root)[0] == 0
    (root / "files").symlink_to(outside)
    host.write("public/files/x", "x")
    status, output = host.run("publish-static", "public", root)
    assert (status, explains(output)) == (1, True)
    assert list(outside.iterdir()) == []


def test_a_link_is_followed_in_the_tree_and_refused_out_of_it(host: Host, root: Path) -> None:
    host.write("docs/guide.html", "a guide")
    host.write("public/index.html", "x")
    (host.tree / "public/docs").symlink_to("../docs")
    assert host.run("publish-static", "public", root)[0] == 0
    assert (root / "docs/guide.html").read_text() == "a guide"
    (host.tree / "public/passwd").symlink_to("/etc/passwd")
    host.write("public/index.html", "y")
    status, output = host.run("publish-static", "public", root)
    assert (status, explains(output)) == (1, True)
    assert "leads to /etc/passwd" in output
    assert (root / "index.html").read_text() == "x"


@pytest.mark.parametrize(
    "where",
    ["/", "/srv", "/etc/x", "/usr/bin/x", "www", "{home}", "{tree}", "{tree}/public/x", "{root}"],
)
def test_a_dangerous_place_is_refused(host: Host, where: str) -> None:
    host.write("public/index.html", "x")
    place = where.format(home=host.home, tree=host.tree, root=host.root)
    status, output = host.run("publish-static", "--adopt", "public", place)
    assert (status, explains(output)) == (1, True)
    assert "it is not a web root of its own" in output


def test_an_empty_folder_does_not_empty_the_site(host: Host, root: Path) -> None:
    host.write("public/index.html", "x")
    assert host.run("publish-static", "public", root)[0] == 0
    (host.tree / "public/index.html").unlink()
    status, output = host.run("publish-static", "public", root)
    assert (status, explains(output)) == (1, True)
    assert published(root) == ["index.html"]
    assert "there is no folder dist" in host.run("publish-static", "dist", root)[1]
    assert "outside the tree" in host.run("publish-static", "..", root)[1]


# ---- restart-service --------------------------------------------------------------------------

SYSTEMCTL = """
import json, os, pathlib, sys
root = pathlib.Path({root!r})
words = sys.argv[1:]
with (root / "asked").open("a") as asked:
    print("systemctl", *words, file=asked)
if "XDG_RUNTIME_DIR" not in os.environ and "--user" in words:
    sys.exit("Failed to connect to bus: No medium found")
script = json.loads((root / "systemd.json").read_text())
verb = next(word for word in words if not word.startswith("-"))
if verb == "show":
    script["shown"] = script.get("shown", 0) + 1
    unit = words[-1]
    looks = script["units"].get(unit, [dict(LoadState="not-found", ActiveState="inactive")])
    # The first look is from before the restart; the last one stays.
    n = 0 if not script.get("restarted") else min(script.setdefault("n", {{}}).get(unit, 0) + 1, len(looks) - 1)
    script.setdefault("n", {{}})[unit] = n
    state = dict(LoadState="loaded", SubState="running", Result="success", Type="notify",
                 MainPID="1", NRestarts="0", ExecMainStatus="0", NeedDaemonReload="no")
    for item in {{**state, **looks[n]}}.items():
        print("=".join(item))
elif verb in ("restart", "reload-or-restart"):
    script["restarted"] = True
(root / "systemd.json").write_text(json.dumps(script))
if verb in ("restart", "reload-or-restart") and "refuse" in script:
    sys.exit(script["refuse"])
"""
UP = {"ActiveState": "active"}
DEAD = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "3"}
STARTING = {"ActiveState": "activating", "SubState": "start"}

Systemd = Callable[..., None]


@pytest.fixture
def systemd(host: Host) -> Systemd:
    """Has units go through the states given, one a look, the first of them before the restart."""

    def prepare(refuse: str = "", **units: Sequence[dict[str, str]]) -> None:
        script: dict[str, object] = {"units": {f"{name}.service": s for name, s in units.items()}}
        if refuse:
            script["refuse"] = refuse
        (host.root / "systemd.json").write_text(json.dumps(script))
        host.program("systemctl", SYSTEMCTL.format(root=str(host.root)))
        host.program("journalctl", "import sys\nprint('journal of', *sys.argv[1:])\n")

    return prepare


def told(host: Host) -> list[str]:
    return [line for line in host.commands() if " show " not in line]


def test_services_are_restarted_and_waited_for(host: Host, systemd: Systemd) -> None:
    systemd(web=[UP, STARTING, UP], jobs=[DEAD, UP])
    status, output = host.run(
        "restart-service", "--stable-for", "0s", "web.service", "jobs.service"
    )
    assert status == 0, output
    assert "web.service: active (running)" in output
    assert told(host) == [
        "systemctl --no-ask-password reset-failed -- web.service jobs.service",
        "systemctl --no-ask-password restart -- web.service jobs.service",
    ]


def test_a_reload_of_a_user_s_service_whose_file_changed(host: Host, systemd: Systemd) -> None:
    systemd(web=[{**UP, "NeedDaemonReload": "yes"}, {"ActiveState": "reloading"}, UP])
    status, output = host.run(
        "restart-service", "--user", "--reload", "--stable-for", "0s", "web.service"
    )
    assert status == 0, output
    assert told(host) == [
        "systemctl --user --no-ask-password daemon-reload",
        "systemctl --user --no-ask-password reset-failed -- web.service",
        "systemctl --user --no-ask-password reload-or-restart -- web.service",
    ]


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ([UP, DEAD], "failed (failed), exit-code, exit status 3"),
        ([UP, UP, {"ActiveState": "activating", "SubState": "auto-restart"}], "auto-restart"),
        ([UP, STARTING], "not up, and steadily so"),
        ([UP, {"ActiveState": "inactive", "SubState": "dead"}], "not up, and steadily so"),
    ],
)
def test_one_that_does_not_stay_up_fails_with_its_journal(
    host: Host, systemd: Systemd, states: list[dict[str, str]], says: str
) -> None:
    systemd(web=states)
    status, output = host.run(
        "restart-service", "--within", "3s", "--stable-for", "0.5s", "web.service"
    )
    assert (status, explains(output)) == (1, True)
    assert says in output
    assert (
        "journal of --no-pager --quiet --output=short-iso --lines 30 --unit web.service" in output
    )


def test_one_that_was_started_anew_must_be_stable_from_then(host: Host, systemd: Systemd) -> None:
    systemd(web=[UP, UP, {**UP, "MainPID": "2"}, {**UP, "MainPID": "3"}, {**UP, "MainPID": "4"}])
    status, output = host.run("restart-service", "--stable-for", "0.3s", "web.service")
    assert status == 0, output
    # One look before; then every 0.2 s, of which the last two are of the process that stayed.
    assert sum(" show " in line for line in host.commands()) >= 6


def test_a_oneshot_that_has_done_its_work_is_well(host: Host, systemd: Systemd) -> None:
    done = {"ActiveState": "inactive", "SubState": "dead", "Type": "oneshot"}
    systemd(job=[done, done])
    assert host.run("restart-service", "--stable-for", "0s", "job.service")[0] == 0


@pytest.mark.parametrize(
    ("refuse", "status", "says"),
    [
        ("Failed to restart web.service: Interactive authentication required.", 1, "polkit rule"),
        ("Failed to restart web.service: Access denied", 1, "polkit rule"),
        ("Failed to connect to bus: No such file or directory", 1, "systemd does not run here"),
        ("Job for web.service canceled.", 75, "systemctl list-jobs"),
        (
            "Failed to restart web.service: Transaction for web.service/restart is destructive.",
            75,
            "systemctl list-jobs",
        ),
        ("Unit web.service is masked.", 1, "try it by hand"),
    ],
)
def test_what_systemd_says_against_it_is_sorted(
    host: Host, systemd: Systemd, refuse: str, status: int, says: str
) -> None:
    systemd(refuse, web=[UP])
    got, output = host.run("restart-service", "web.service")
    assert (got, explains(output)) == (status, True)
    assert refuse in output
    assert says in output


def test_a_unit_that_is_not_there_and_a_host_without_systemd(host: Host, systemd: Systemd) -> None:
    systemd(web=[UP])
    status, output = host.run("restart-service", "wbe.service")
    assert (status, explains(output)) == (1, True)
    assert "systemd knows no unit wbe.service" in output
    assert told(host) == []
    python = Path(sys.executable)
    (host.bin / "python3").symlink_to(python)
    (host.bin / "systemctl").unlink()
    status, output = host.run("restart-service", "web.service", PATH=str(host.bin))
    assert (status, explains(output)) == (1, True)


# ---- compose-up -------------------------------------------------------------------------------

DOCKER = """
import json, os, pathlib, sys
root = pathlib.Path({root!r})
words = sys.argv[1:]
with (root / "asked").open("a") as asked:
    print("docker", *words, file=asked)
for verb, said in json.loads((root / "docker.json").read_text()).items():
    if verb in words:
        sys.exit(said)
"""


@pytest.fixture
def docker(host: Host) -> Callable[..., None]:
    """Has `docker compose VERB` fail with the words given."""

    def prepare(**fails: str) -> None:
        (host.root / "docker.json").write_text(json.dumps(fails))
        host.program("docker", DOCKER.format(root=str(host.root)))

    return prepare


def test_a_project_is_pulled_built_and_brought_up(host: Host, docker: Callable[..., None]) -> None:
    docker()
    status, output = host.run(
        "compose-up", "-f", "x.yaml", "--profile", "prod", "--within", "3m", "web"
    )
    assert status == 0, output
    compose = "docker compose --file x.yaml --profile prod"
    assert host.commands() == [
        f"{compose} version --short",
        f"{compose} config --quiet",
        f"{compose} pull --ignore-buildable web",
        f"{compose} build --pull web",
        f"{compose} up --detach --wait --wait-timeout 180 --remove-orphans --no-build web",
    ]


def test_preparing_changes_nothing_that_runs(host: Host, docker: Callable[..., None]) -> None:
    docker()
    assert host.run("compose-up", "--prepare")[0] == 0
    assert not any(" up " in line for line in host.commands())
    host.asked.unlink()
    assert host.run("compose-up", "--no-pull")[0] == 0
    assert [line for line in host.commands() if "pull" in line] == []


@pytest.mark.parametrize(
    ("fails", "arguments", "status", "says"),
    [
        ({"version": "unknown command: docker compose"}, (), 1, "docker-compose-plugin"),
        ({"config": "no configuration file provided: not found"}, (), 1, "cannot be used"),
        ({"pull": "Cannot connect to the Docker daemon at unix:///x."}, (), 75, "daemon"),
        ({"pull": "dial tcp: lookup ghcr.io: no such host"}, (), 75, "registry"),
        ({"pull": "Error: toomanyrequests: rate limit"}, (), 75, "registry"),
        ({"pull": "manifest unknown"}, (), 1, "--image-to-come"),
        ({"pull": "manifest unknown"}, ("--image-to-come",), 75, "not have the image yet"),
        (
            {"pull": "permission denied while trying to connect to the Docker daemon socket"},
            (),
            1,
            "group docker",
        ),
        ({"build": "process '/bin/sh -c make' did not complete"}, (), 1, "try it by hand"),
        ({"up": "container shop-web-1 is unhealthy"}, (), 1, "not everything is up"),
    ],
)
def test_where_compose_fails_it_is_sorted(
    host: Host,
    docker: Callable[..., None],
    fails: dict[str, str],
    arguments: Sequence[str],
    status: int,
    says: str,
) -> None:
    docker(**fails)
    got, output = host.run("compose-up", *arguments)
    assert (got, explains(output)) == (status, True), output
    assert says in output
    asked_for_logs = any(" logs " in line for line in host.commands())
    assert asked_for_logs is ("up" in fails)


def test_a_tree_that_moves_needs_a_project_s_name(host: Host, docker: Callable[..., None]) -> None:
    docker()
    status, output = host.run("compose-up", DEPLOY_PATH="/srv/live")
    assert (status, explains(output)) == (1, True)
    assert host.commands() == []
    assert host.run("compose-up", "-p", "shop", DEPLOY_PATH="/srv/live")[0] == 0
    assert all(line.startswith("docker compose --project-name shop ") for line in host.commands())


# ---- migrations -------------------------------------------------------------------------------


def with_this_python(host: Host) -> None:
    """An environment of the tree's own: the tests' Python, which has Django and Alembic."""
    host.write(".venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n', 0o755)


MANAGE = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": {"timeout": 0}}
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["app"], USE_TZ=True)
execute_from_command_line(sys.argv)
"""
MIGRATION = """
from django.db import migrations
class Migration(migrations.Migration):
    dependencies = []
    operations = [migrations.RunSQL({sql!r})]
"""
ALEMBIC_INI = "[alembic]\nscript_location = %(here)s/alembic\npath_separator = os\n"
ALEMBIC_ENV = """
from alembic import context
from sqlalchemy import create_engine
with create_engine("sqlite:///db.sqlite3", connect_args={"timeout": 0}).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
revision = "one"
down_revision = None
from alembic import op
def upgrade():
    op.execute({sql!r})
"""


def django(host: Host, sql: str) -> None:
    with_this_python(host)
    host.write("manage.py", MANAGE)
    host.write("app/migrations/__init__.py", "")
    host.write("app/__init__.py", "")
    host.write("app/migrations/0001_one.py", MIGRATION.format(sql=sql))


def alembic(host: Host, sql: str) -> None:
    with_this_python(host)
    host.write("alembic.ini", ALEMBIC_INI)
    host.write("alembic/env.py", ALEMBIC_ENV)
    host.write("alembic/versions/one.py", REVISION.format(sql=sql))


TOOLS = pytest.mark.parametrize(
    ("hook", "project"), [("migrate-django", django), ("migrate-alembic", alembic)]
)
Project = Callable[[Host, str], None]


def has_table(host: Host) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'one'"
    with closing(sqlite3.connect(host.tree / "db.sqlite3")) as database:
        return bool(database.execute(query).fetchone()[0])


@TOOLS
def test_a_pending_migration_is_seen_and_applied(host: Host, hook: str, project: Project) -> None:
    project(host, "CREATE TABLE one (id INTEGER)")
    status, output = host.run(hook, "--check")
    assert (status, explains(output)) == (1, True)
    assert "pending" in output
    assert not has_table(host)
    status, output = host.run(hook)
    assert status == 0, output
    assert has_table(host)
    status, output = host.run(hook, "--check")
    assert status == 0, output


@TOOLS
def test_a_migration_that_fails_and_a_locked_database(
    host: Host, hook: str, project: Project
) -> None:
    project(host, "CREATE NONSENSE")
    status, output = host.run(hook)
    assert (status, explains(output)) == (1, True)
    assert "would not migrate" in output
    with closing(sqlite3.connect(host.tree / "db.sqlite3")) as database:
        database.execute("BEGIN EXCLUSIVE")
        status, output = host.run(hook)
    assert (status, explains(output)) == (75, True), output
    assert "database is locked" in output


@TOOLS
def test_on_the_way_back_the_database_stays_as_it_is(
    host: Host, hook: str, project: Project
) -> None:
    project(host, "CREATE TABLE one (id INTEGER)")
    assert host.run(hook, DEPLOY_REASON="rollback")[0] == 0
    assert not (host.tree / "db.sqlite3").exists()


def test_a_revision_that_the_tree_no_longer_has_is_explained(host: Host) -> None:
    alembic(host, "CREATE TABLE one (id INTEGER)")
    assert host.run("migrate-alembic")[0] == 0
    (host.tree / "alembic/versions/one.py").unlink()
    status, output = host.run("migrate-alembic")
    assert (status, explains(output)) == (1, True)
    assert "a migration that this tree does not have" in output


@pytest.mark.parametrize("hook", ["migrate-django", "migrate-alembic"])
def test_a_wait_for_a_lock_is_bounded_and_what_is_missing_is_named(host: Host, hook: str) -> None:
    status, output = host.run(hook)
    assert (status, explains(output)) == (1, True)
    assert "there is no " in output
    for name in ("manage.py", "alembic.ini"):
        host.write(name, "")
    show = '#!/bin/sh\necho "PGOPTIONS=$PGOPTIONS"\n'
    host.write(".venv/bin/python", show, 0o755)
    output = host.run(hook, "--lock-timeout", "2s", PGOPTIONS="-c search_path=shop")[1]
    assert "PGOPTIONS=-c lock_timeout=2000 -c search_path=shop\n" in output
