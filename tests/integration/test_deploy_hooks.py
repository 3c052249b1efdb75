"""The shipped hooks, each run as the agent would run it; here all of them, `check-http` and
`publish-static`. HTTP and the file system are real.
"""

import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.remotes import free_port
from tests.shipped import HOOKS, NAMES, Host, explains


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
    proxy = f"http://127.0.0.1:{free_port()}"
    status, output = host.run(
        "check-http", "--header", "Host: shop.example", site.url, http_proxy=proxy
    )
    assert status == 0, output
    assert site.hosts == ["shop.example"]


def test_nobody_there_and_one_that_never_answers(host: Host) -> None:
    status, output = host.run("check-http", "--within", "0s", f"http://127.0.0.1:{free_port()}/")
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
