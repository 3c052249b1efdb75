"""Our own bare copies of remotes: fetched by git, asked by whoever decides and stages."""

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from agent import repository
from agent.cancel import Cancel
from agent.errors import GitFailed, RemoteFailed
from agent.model import MOST_COMMITS, REVISION, Commit, Revision, Source
from agent.repository import (
    check_revision,
    clear_leftovers,
    clear_locks,
    discard_damaged,
    is_damaged,
    list_branches,
    reaching,
    unread,
)
from agent.words import kept, legible

log = structlog.get_logger()

Tips = Mapping[str, Revision | None]
"""What branches, by their full names, are at; None for one that is not there."""

_MOST_HISTORY = 5000
_MISSING_REF = re.compile(r"couldn't find remote ref (\S+)")
# What a remote answers that does not serve a revision by its id, or not any more.
_NOT_SERVED = re.compile(r"not our ref|unadvertised object|couldn't find remote ref")
# As many as git itself makes a pack of; of fewer it keeps each (git-config(1), fetch.unpackLimit).
_UNPACKED = 100
_INDEX_PACK = ["index-pack", "--stdin", "--fix-thin"]


def _objects(pack: bytes) -> int:
    """How many there are in a pack, by its head (gitformat-pack(5))."""
    return int.from_bytes(pack[8:12])


def _kept_as(ref: str) -> str:
    """Where the mirror keeps a remote's ref: never one name inside another, as a and a/b are."""
    return f"refs/tracked/{hashlib.sha256(ref.encode()).hexdigest()[:16]}"


class _OtherNames(GitFailed):
    """The remote's objects are named by another algorithm than the mirror's."""


class Mirror:
    """Our own bare copy of a remote's tracked branches. One thread at a time uses it."""

    def __init__(
        self, source: Source, folder: Path, deadline: float = repository.FETCH_DEADLINE
    ) -> None:
        """`deadline` is for a fetch, in seconds."""
        self.source = source
        self._deadline = deadline
        slug = re.sub(r"[^A-Za-z0-9]+", "-", source.url.rstrip("/").removesuffix(".git"))[-40:]
        key = hashlib.sha256(repr(source).encode()).hexdigest()[:12]
        self.path = folder / f"{slug.strip('-')}-{key}.git"

    def exists(self) -> bool:
        return (self.path / "HEAD").exists()

    def kept(self, refs: Iterable[str]) -> Tips:
        """What the last fetch brought of `refs`, read without a git (gitrepository-layout(5)).

        None for one that it did not bring, or that is kept in another way than in a file.
        """
        packed: dict[str, Revision] = {}
        with suppress(OSError):
            for line in (self.path / "packed-refs").read_text().splitlines():
                revision, _, name = line.partition(" ")
                packed[name] = revision
        found = {ref: self._loose(_kept_as(ref)) or packed.get(_kept_as(ref)) for ref in refs}
        return {ref: one if one and REVISION.fullmatch(one) else None for ref, one in found.items()}

    def _loose(self, name: str) -> str | None:
        with suppress(OSError):
            return (self.path / name).read_text().strip()
        return None

    def fetch(
        self, refs: Iterable[str], told: Tips | None = None, cancel: Cancel | None = None
    ) -> Tips:
        """Bring the mirror up to date; what each of `refs` (full names) is at now.

        `told` is what the remote has just said that they are at, if it was asked: then git asks
        for just that, which is a request less. A ref that the remote does not have has no
        revision. RemoteFailed if it cannot be read.
        """
        wanted = sorted(refs)
        if not self.exists():
            self._create("sha1")
        clear_locks(self.path)
        clear_leftovers(self.path, 2 * self._deadline)
        try:
            return self._fetch_told(told, cancel) or self._fetch_named(wanted, cancel)
        except _OtherNames:
            # At the first fetch, or where the repository was made anew.
            self._create("sha1" if self._is_sha256() else "sha256")
            return self._fetch_named(wanted, cancel)
        except GitFailed as error:
            if not (self._answers(error, cancel) and is_damaged(self.path, error)):
                raise
            log.warning("mirror.rebuilt", mirror=self.path.name, because=str(error))
        # It is only a copy: what is damaged is made anew.
        self._create("sha1")
        return self._fetch_named(wanted, cancel)

    def take(self, pack: bytes, told: Tips, cancel: Cancel | None = None) -> bool:
        """Bring the mirror to what the remote has `told`, by a pack that it gave for that.

        git checks each object of it, and that nothing in it leads to one that is not there. False
        where that fails, and nothing has changed; then `fetch` has the word.
        """
        clear_locks(self.path)
        unpack = ["unpack-objects", "-q"] if _objects(pack) < _UNPACKED else _INDEX_PACK
        moved = {_kept_as(ref): check_revision(revision or "") for ref, revision in told.items()}
        lines = "".join(f"update {ref} {revision}\n" for ref, revision in moved.items())
        try:
            repository.git([*unpack, repository.STRICT], cwd=self.path, stdin=pack, cancel=cancel)
            repository.git(["update-ref", "--stdin"], cwd=self.path, stdin=lines.encode())
        except GitFailed as error:
            log.warning("mirror.pack_refused", mirror=self.path.name, because=str(error))
            return False
        return True

    def _answers(self, error: GitFailed, cancel: Cancel | None) -> bool:
        """Whether the remote shows its branches, so that `error` may well be our side's doing."""
        if not isinstance(error, RemoteFailed):
            return True
        with suppress(RemoteFailed):
            return not error.killed and bool(list_branches(self.source, cancel))
        return False

    def _fetch_told(self, told: Tips | None, cancel: Cancel | None) -> Tips | None:
        """Fetch by revision; None where that cannot be, as when the branch has just moved on."""
        if told is None:
            return None
        self._drop(ref for ref, revision in told.items() if revision is None)
        present = {ref: check_revision(revision) for ref, revision in told.items() if revision}
        try:
            self._fetch(present, cancel)
        except RemoteFailed as error:
            if _NOT_SERVED.search(error.detail):
                return None
            raise
        return told

    def _fetch_named(self, wanted: list[str], cancel: Cancel | None) -> Tips:
        present = self._fetch_present(wanted, cancel)
        self._drop(set(wanted) - set(present))
        return {**dict.fromkeys(wanted), **self._tips(present)}

    def _drop(self, refs: Iterable[str]) -> None:
        for ref in refs:
            repository.git(["update-ref", "-d", _kept_as(ref)], cwd=self.path)

    def _fetch_present(self, wanted: list[str], cancel: Cancel | None) -> list[str]:
        """Fetch those of `wanted` that the remote has; gives them."""
        try:
            self._fetch({ref: ref for ref in wanted}, cancel)
        except RemoteFailed as error:
            if not _MISSING_REF.search(error.detail):
                raise
            found = list_branches(self.source, cancel)
            wanted = [ref for ref in wanted if ref in found]
            self._fetch({ref: ref for ref in wanted}, cancel)
        return wanted

    def _fetch(self, wanted: Mapping[str, str], cancel: Cancel | None) -> None:
        """Fetch, for each ref of ours, what it is called at the remote: a name or a revision."""
        if not wanted:
            return
        arguments = ["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head", "--"]
        mapped = [f"+{there}:{_kept_as(ref)}" for ref, there in wanted.items()]
        with reaching(self.source) as (options, environment, fds):
            try:
                repository.git(
                    [*arguments, self.source.url, *mapped],
                    cwd=self.path,
                    options=options,
                    environment=environment,
                    fds=fds,
                    deadline=self._deadline,
                    cancel=cancel,
                )
            except GitFailed as error:
                if "mismatched algorithms" in error.detail:
                    raise _OtherNames("git fetch failed", error.detail) from None
                raise unread(self.source, "the remote could not be fetched", error) from None

    def _create(self, algorithm: str) -> None:
        """Made beside and moved into place, so that a crash leaves no half repository."""
        beside = self.path.with_suffix(".new")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)
        beside.mkdir(parents=True)
        template = "--template="
        repository.git(
            ["init", "--quiet", "--bare", template, f"--object-format={algorithm}"], cwd=beside
        )
        beside.rename(self.path)

    def _is_sha256(self) -> bool:
        return "sha256" in (self.path / "config").read_text()

    def _tips(self, refs: list[str]) -> Tips:
        if not refs:
            return {}
        kept = {_kept_as(ref): ref for ref in refs}
        lines = repository.git(
            ["for-each-ref", "--format=%(refname) %(objectname)", "--", *kept], cwd=self.path
        )
        rows = (line.split(" ") for line in lines.splitlines())
        return {kept[name]: revision for name, revision in rows}

    def describe(self, revision: Revision) -> tuple[str, str]:
        """The first line of a commit's message, and its author."""
        form = ["--no-patch", "--format=%s%x00%an", check_revision(revision), "--"]
        try:
            told = repository.git(["show", *form], cwd=self.path)
        except GitFailed as error:
            discard_damaged(self.path, error)
            raise
        subject, _, author = told.removesuffix("\n").partition("\0")
        return kept(subject), kept(author)

    def commits(self, old: Revision | None, new: Revision | None) -> tuple[Commit, ...]:
        """What `new` has and `old` has not, the newest first, a hundred at most.

        Nothing where the mirror, made anew since, does not know `new`.
        """
        if new is None or not self.has(new):
            return ()
        form = "--format=%H%x00%s%x00%an%x00%ct"
        without = [f"^{check_revision(old)}"] if old and self.has(old) else []
        most = f"--max-count={MOST_COMMITS}"
        lines = repository.git(
            ["log", most, form, check_revision(new), *without, "--"], cwd=self.path
        )
        rows = (line.split("\0") for line in lines.split("\n") if line)
        return tuple(
            Commit(one, kept(subject), kept(author), float(at)) for one, subject, author, at in rows
        )

    def changes(self, old: Revision | None, new: Revision | None) -> tuple[str, ...]:
        """The paths in which two revisions differ, each as `M index.html` (git-diff-tree(1))."""
        if new is None:
            return ()
        if old is None or not self.has(old):
            listed = repository.git(
                ["ls-tree", "-r", "--name-only", "--full-tree", new], cwd=self.path
            )
            return tuple(f"A {legible(path)}" for path in listed.splitlines())
        form = ["-r", "--name-status", "--no-renames"]
        listed = repository.git(
            ["diff-tree", *form, check_revision(old), check_revision(new)], cwd=self.path
        )
        return tuple(legible(line).replace("\t", " ", 1) for line in listed.splitlines())

    def has(self, revision: Revision) -> bool:
        with suppress(GitFailed):
            repository.git(
                ["cat-file", "-e", f"{check_revision(revision)}^{{commit}}"], cwd=self.path
            )
            return True
        return False

    def tidy(self) -> None:
        """Pack what many fetches have left, when git finds that there is enough of it."""
        if self.path.exists():
            repository.git(["gc", "--auto", "--quiet"], cwd=self.path, options=repository.TIDY)

    def history(self, revision: Revision) -> set[Revision]:
        """The revisions from which `revision` comes, the latest few thousand of them."""
        most = f"--max-count={_MOST_HISTORY}"
        lines = repository.git(["rev-list", most, check_revision(revision), "--"], cwd=self.path)
        return set(lines.split())
