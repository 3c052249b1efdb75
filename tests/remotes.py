"""Real remotes for tests: bare repositories, smart HTTP by git's own backend, ssh by sshd."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

Content = str | bytes | None

GIT_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def git(*arguments: str, cwd: Path, env: Mapping[str, str] = GIT_ENV) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=dict(env), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


# ---- a repository -----------------------------------------------------------------------------


class Upstream:
    """A bare repository, and a clone of it in which commits are made."""

    def __init__(self, root: Path) -> None:
        self.path = root / "shop.git"
        self._work = root / "work"
        self._work.mkdir(parents=True)
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.path))
        git("config", "receive.denyDeleteCurrent", "ignore", cwd=self.path)
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("remote", "add", "origin", str(self.path))

    @property
    def url(self) -> str:
        return str(self.path)

    def commit(
        self,
        files: Mapping[str, Content],
        message: str = "change",
        executable: Iterable[str] = (),
        symlinks: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Commit and push to main; a content of None deletes. Gives the revision."""
        self._write(files, executable, symlinks)
        self._git("add", "--all", "--force")
        self._git("commit", "--quiet", "--allow-empty", "--message", message)
        self.push()
        return self._git("rev-parse", "HEAD")

    def force_push(self, files: Mapping[str, Content], message: str = "rewritten") -> str:
        """Replace main's history by one commit of its own."""
        self._git("checkout", "--quiet", "--orphan", f"new-{uuid.uuid4().hex}")
        self._write(files, (), {})
        self._git("add", "--all", "--force")
        self._git("commit", "--quiet", "--message", message)
        self._git("branch", "--move", "--force", "main")
        self.push(force=True)
        return self._git("rev-parse", "HEAD")

    def push(self, branch: str = "main", *, force: bool = False) -> None:
        forced = ["--force"] if force else []
        self._git("push", "--quiet", *forced, "origin", f"HEAD:refs/heads/{branch}")

    def move_main(self, revision: str) -> None:
        """Have main at a revision that was pushed before."""
        git("update-ref", "refs/heads/main", revision, cwd=self.path)

    def reset(self, revision: str) -> None:
        """Have main, and what is committed next, begin from a revision that was pushed before."""
        self._git("reset", "--quiet", "--hard", revision)
        self._git("clean", "-ffdxq")
        self.push(force=True)

    def tip(self) -> str:
        return git("rev-parse", "main", cwd=self.path)

    def point_submodule(self, name: str, commit: str) -> str:
        """Commit a submodule's pointer, to a repository that nobody can reach."""
        self._clear_way(self._work / name)
        (self._work / name).unlink(missing_ok=True)
        # Else the next commit would take it for removed.
        (self._work / name).mkdir()
        self._git("update-index", "--add", "--replace", "--cacheinfo", f"160000,{commit},{name}")
        self._git("commit", "--quiet", "--message", "submodule")
        self.push()
        return self.tip()

    def take_away(self, name: str) -> str:
        """Commit without what was there, be it a file or a submodule's pointer."""
        self._git("rm", "--quiet", "--force", name)
        self._git("commit", "--quiet", "--message", "away")
        self.push()
        return self.tip()

    def delete_branch(self, branch: str) -> None:
        self._git("push", "--quiet", "origin", f":refs/heads/{branch}")

    def _git(self, *arguments: str) -> str:
        return git(*arguments, cwd=self._work)

    def _write(
        self, files: Mapping[str, Content], executable: Iterable[str], symlinks: Mapping[str, str]
    ) -> None:
        for name, content in files.items():
            path = self._work / name
            if content is None:
                path.unlink()
                continue
            self._clear_way(path)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        for name in executable:
            (self._work / name).chmod(0o755)
        for name, to in symlinks.items():
            self._clear_way(self._work / name)
            (self._work / name).unlink(missing_ok=True)
            (self._work / name).symlink_to(to)

    def _clear_way(self, path: Path) -> None:
        for parent in path.parents:
            if parent.is_symlink() or parent.is_file():
                parent.unlink()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)


# ---- smart HTTP -------------------------------------------------------------------------------


@dataclass
class HttpRemote:
    """A folder of bare repositories over smart HTTP, and the faults it can have."""

    root: Path
    port: int = 0
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    token: str | None = None
    """Ask for this token as a password, of any user."""
    redirect_to: str | None = None
    garbage: bool = False
    hang: bool = False
    spoilt: Callable[[bytes], Iterable[bytes]] | None = None
    """What is sent of a pack instead, piece by piece; it may take its time."""
    released: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    """Set when a request has come."""
    alias: Callable[[str], str] = lambda path: path
    """Which path is meant by one that is asked for."""
    spoil: Callable[[int, bytes], bytes] = lambda _, content: content
    """What becomes of the content of the so manieth answer."""

    def url(self, name: str = "shop.git") -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


@contextmanager
def serve_http(
    root: Path, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[HttpRemote]:
    remote = HttpRemote(root)
    handler = type("Handler", (_Backend,), {"remote": remote})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    if tls:
        # The handshake then is the handler's thread's, at its first read.
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.daemon_threads = True
    remote.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield remote
    finally:
        remote.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Backend(BaseHTTPRequestHandler):
    """CGI around `git http-backend` (git-http-backend(1))."""

    remote: HttpRemote
    protocol_version = "HTTP/1.1"
    # On a connection that is kept, the second packet of an answer would wait for the first's ACK.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bytes) -> None:
        remote = self.remote
        remote.requests.append(f"{self.command} {self.path}")
        remote.authorizations.append(self.headers.get("Authorization"))
        remote.asked.set()
        if remote.hang:
            remote.released.wait()
            self.close_connection = True
        elif remote.garbage:
            self._send(200, {"Content-Type": "text/html"}, b"<html>not git</html>")
        elif remote.redirect_to:
            self._send(302, {"Location": remote.redirect_to + self.path}, b"")
        elif not self._may():
            self._send(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        else:
            self._run_backend(body)

    def _may(self) -> bool:
        if self.remote.token is None:
            return True
        given = (self.headers.get("Authorization") or "").removeprefix("Basic ")
        return base64.b64decode(given).decode().partition(":")[2] == self.remote.token

    def _run_backend(self, body: bytes) -> None:
        path, _, query = self.remote.alias(self.path).partition("?")
        env = {
            **GIT_ENV,
            "GIT_PROJECT_ROOT": str(self.remote.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            ["git", "http-backend"], env=env, input=body, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        content = self.remote.spoil(len(self.remote.requests), content)
        if self.remote.spoilt and b"PACK" in content:
            self._send_pieces(headers, content, self.remote.spoilt(content))
            return
        self._send(int(headers.pop("Status", "200").split()[0]), headers, content)

    def _send_pieces(
        self, headers: Mapping[str, str], content: bytes, pieces: Iterable[bytes]
    ) -> None:
        self.close_connection = True
        self._send(200, headers, b"", len(content))
        with suppress(OSError):
            for piece in pieces:
                self.wfile.write(piece)

    def _send(
        self, status: int, headers: Mapping[str, str], content: bytes, size: int | None = None
    ) -> None:
        self.send_response(status)
        length = str(len(content) if size is None else size)
        for name, value in {**headers, "Content-Length": length}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate with its key for 127.0.0.1, and the host's authorities together with it."""
    both, authorities = folder / "certificate.pem", folder / "authorities.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key"), "-out", str(folder / "cert")],
        check=True, capture_output=True,
    )  # fmt: skip
    cert = (folder / "cert").read_text()
    both.write_text((folder / "key").read_text() + cert)
    usual = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    known = usual.read_text() if usual.exists() else ""
    authorities.write_text(known + cert)
    return both, authorities


# ---- ssh --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SshRemote:
    """An sshd of our own, for whoever runs the tests."""

    port: int
    key: Path
    known_hosts: Path
    user: str

    def url(self, repository: Path) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{repository}"


@contextmanager
def serve_ssh(root: Path, sshd: str) -> Iterator[SshRemote]:
    root.mkdir(parents=True)
    for name in ("host", "key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)]
        subprocess.run(command, check=True)
    port = free_port()
    (root / "authorized_keys").write_bytes((root / "key.pub").read_bytes())
    host_key = " ".join((root / "host.pub").read_text().split()[:2])
    (root / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (root / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/host\n"
        f"AuthorizedKeysFile {root}/authorized_keys\nStrictModes no\nPidFile none\n"
        "UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(root / "config")], stderr=subprocess.PIPE
    ) as server:
        assert server.stderr
        for line in server.stderr:
            if b"listening" in line:
                break
        drain = threading.Thread(target=server.stderr.read)
        drain.start()
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True)
        try:
            yield SshRemote(port, root / "key", root / "known_hosts", user.stdout.strip())
        finally:
            server.terminate()
            server.wait()
            drain.join()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# ---- GitHub -----------------------------------------------------------------------------------


def sign(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def delivery(
    event: str,
    payload: Mapping[str, object] | bytes,
    secret: str,
    *,
    number: str | None = None,
    form: bool = False,
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a delivery as GitHub sends it."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    if form:
        from urllib.parse import urlencode

        body = urlencode({"payload": body.decode()}).encode()
    headers = {
        "Content-Type": "application/x-www-form-urlencoded" if form else "application/json",
        "User-Agent": "GitHub-Hookshot/044aadd",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": number or str(uuid.uuid4()),
        "X-GitHub-Hook-ID": "292430182",
        "X-Hub-Signature": "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest(),
        "X-Hub-Signature-256": sign(secret, body),
    }
    return headers, body


def push_payload(url: str, after: str, ref: str = "refs/heads/main") -> dict[str, object]:
    """The payload of a push, in the shape of GitHub's documentation."""
    name = url.rstrip("/").removesuffix(".git").rsplit("/", 1)[-1]
    return {
        "ref": ref,
        "before": "0" * 40,
        "after": after,
        "created": False,
        "deleted": not after.strip("0"),
        "forced": False,
        "base_ref": None,
        "compare": f"{url}/compare/x...y",
        "commits": [{"id": after, "message": "ünïcode ✓", "added": ["a"], "removed": []}],
        "repository": {
            "id": 186853002,
            "name": name,
            "full_name": f"acme/{name}",
            "private": False,
            "html_url": url.removesuffix(".git"),
            "clone_url": url,
            "git_url": url,
            "ssh_url": url,
            "default_branch": "main",
        },
        "pusher": {"name": "ada", "email": "ada@example.org"},
        "sender": {"login": "ada", "id": 21031067},
    }
