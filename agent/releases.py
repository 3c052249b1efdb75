"""The releases strategy: a tree a revision, and one link that says which of them is live.

Under the target's path: `current`, a link that is switched by one rename; `releases/`, each named
after its revision; `shared/`, what every release has in common. What git and the agent need to know
of a release (git's index, whether its build went well) is under the state folder, so that nothing
of it is ever served.

A tree that nobody needs any more becomes the *spare*: cleaned after a deployment, when nobody
waits, it is the next revision after a few writes. Its place is a rename away from a release's.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import structlog

from agent.acl import make_folder
from agent.cancel import Cancel
from agent.difference import NotWorthIt, Spoilt
from agent.disk import write_out, write_out_folder
from agent.errors import AgentError, RevisionFault
from agent.inside import Inside
from agent.model import REVISION, Revision, Target
from agent.plaintree import PlainTree, list_changed

log = structlog.get_logger()

_SPARE = ".spare"
_GONE = ".gone-"
_PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class _Clean:
    """That the spare is exactly a revision."""

    revision: Revision
    filtered: bool
    """Whether the revision has attributes, by which git writes content in another way."""


class Releases:
    """The releases of one target, for one deployment at a time.

    Nobody touches the releases of the revisions in `protected`: what is live, the last good one.
    """

    atomic = True
    """What is live changes in one step, `switch`."""

    def __init__(
        self, target: Target, state: Path, mirror: Path, protected: Iterable[Revision] = ()
    ) -> None:
        self.moved = False
        self._target = target
        self._mirror = mirror
        self._protected = frozenset(protected)
        self._link = target.path / "current"
        self._releases = target.path / "releases"
        self._shared = target.path / "shared"
        self._state = state / target.name
        self._name = ""
        self._fresh = False

    @property
    def tree(self) -> Path:
        return self._releases / self._name

    def head(self) -> Revision | None:
        """The revision of the release that is live."""
        name = self._live_name()
        return _revision(name) if name else None

    def _live_name(self) -> str | None:
        try:
            to = self._link.readlink()
        except OSError:
            return None
        return to.name if _revision(to.name) and self.path_of(to.name).is_dir() else None

    def path_of(self, name: str) -> Path:
        return self._releases / name

    # ---- a tree for a revision --------------------------------------------------------------

    def find_built(self, revision: Revision) -> bool:
        """Take the release that was built for `revision` before, if it is still there."""
        names = [name for name in self._names() if _revision(name) == revision]
        built = [name for name in names if self._is_built(name)]
        if not built:
            return False
        live = self._live_name()
        self._name = live if live in built else max(built, key=self._built_at)
        self._fresh = False
        return True

    def prepare(self, revision: Revision, _deployment: str, cancel: Cancel) -> str:
        """A tree of exactly `revision` that is not live yet; gives how it was made."""
        self._name = self._free_name(revision)
        self._fresh = True
        _own(self._releases)
        self._folder().mkdir(mode=0o750, parents=True, exist_ok=True)
        self._forget_built()
        how = self._make(revision, cancel)
        self._link_shared()
        return how

    def _forget_built(self) -> None:
        """From here on, whatever happens, nobody goes back to it before it is built again."""
        with suppress(FileNotFoundError):
            self._folder(self._name, "built").unlink()
            write_out_folder(self._folder())

    def take_up(self, revision: Revision, switched: bool, /) -> None:
        """As after `prepare`, and `switch` too where it is `switched`, by an agent that died."""
        self._name = (switched and self._live_name()) or self._free_name(revision)
        self._fresh = True
        self.moved = switched

    def _make(self, revision: Revision, cancel: Cancel) -> str:
        tree = PlainTree(self._mirror, self.tree, self._folder() / "index")
        clean = None if self.tree.exists() else self._take_spare()
        cleared = clean is not None
        if clean and not clean.filtered:
            try:
                tree.bring_forward(clean.revision, revision, cancel)
                return f"brought forward from {clean.revision[:12]}"
            except NotWorthIt as reason:
                log.info("tree.checked_out", target=self._target.name, because=str(reason))
                cleared = not isinstance(reason, Spoilt)
        self.tree.mkdir(exist_ok=True)
        try:
            tree.check_out(revision, self._reuse(self.tree), cancel, cleared=cleared)
        except PermissionError as error:
            # What a hook has made, as another user, and kept to itself: another tree then.
            log.warning("tree.not_cleaned", target=self._target.name, why=str(error))
            self._put_aside(self._name)
            self.tree.mkdir()
            tree.check_out(revision, (), cancel)
        return "checked out"

    def _free_name(self, revision: Revision) -> str:
        """The revision, with a number behind it while that name is a release nobody may touch."""
        live, number, name = self._live_name(), 1, revision
        while name == live or (_revision(name) in self._protected and self._is_built(name)):
            number += 1
            name = f"{revision}-{number}"
        return name

    def _take_spare(self) -> "_Clean | None":
        """Move the spare to where the tree belongs; what it is, if it is known to be clean."""
        spare = self.path_of(_SPARE)
        if not spare.is_dir():
            return None
        mark, text, seal = self._folder(_SPARE, "clean"), "", _seal(spare)
        with suppress(FileNotFoundError):
            text = mark.read_text()
            # From here on, whatever happens, nobody takes it for clean.
            mark.unlink()
        with suppress(FileNotFoundError):
            self._folder(_SPARE, "index").rename(self._folder() / "index")
        spare.rename(self.tree)
        revision, sealed, filters = (*text.split(), "", "", "")[:3]
        return _Clean(revision, filters != _PLAIN) if sealed == seal else None

    def _put_aside(self, name: str) -> None:
        """A tree is to go, with what is known of it; its name is free from now on."""
        self.path_of(name).rename(self.path_of(f"{_GONE}{name}-{secrets.token_hex(4)}"))
        self._folder(name, "index").unlink(missing_ok=True)

    def _reuse(self, tree: Path) -> list[str]:
        """What may stay of what hooks left: real files and folders, and no links."""
        with Inside(tree) as inside:
            kept = []
            for entry in self._target.reuse:
                mode = inside.mode(os.fsencode(entry.rstrip("/")))
                if mode is not None and not stat.S_ISLNK(mode):
                    kept.append(entry.rstrip("/"))
        return kept

    # ---- what is shared ---------------------------------------------------------------------

    def _link_shared(self) -> None:
        """Links to what all releases share, in the place of what the revision has there."""
        if not self._target.shared:
            return
        _own(self._shared)
        with Inside(self.tree) as inside, Inside(self._shared) as shared:
            for entry in self._target.shared:
                try:
                    self._link_one(inside, shared, entry)
                except OSError as error:
                    raise self._not_shared(entry, error) from None

    def _not_shared(self, entry: str, error: OSError) -> Exception:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            return RevisionFault(
                f"shared {entry}: the repository has a link or a file on the way to it,"
                f" or {self._shared} has"
            )
        if error.errno == errno.EXDEV:
            return AgentError(
                f"{self._shared / entry} would begin with what the repository has there, and is on"
                " another disk: make it by hand"
            )
        return error

    def _link_one(self, inside: Inside, shared: Inside, entry: str) -> None:
        inner = os.fsencode(entry.rstrip("/"))
        if not os.path.lexists(self._shared / os.fsdecode(inner)):
            self._begin_shared(inside, shared, entry, inner)
        inside.remove(inner)
        up = "../" * (inner.count(b"/") + 2)
        inside.link(inner, os.fsencode(f"{up}shared/") + inner)

    def _begin_shared(self, inside: Inside, shared: Inside, entry: str, inner: bytes) -> None:
        """The first time: what the revision has there, or else something empty."""
        mode = inside.mode(inner)
        if mode is not None and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            inside.move(inner, shared)
        elif entry.endswith("/") or b"." not in inner.rpartition(b"/")[2]:
            shared.folder(inner)
        else:
            shared.write(inner, 0o640, 0, BytesIO())

    # ---- live -------------------------------------------------------------------------------

    def switch(self) -> None:
        """Make the tree live, in one rename that a reader sees whole or not at all."""
        if not self.tree.is_dir():
            raise AgentError(f"{self.tree} is gone; did a hook remove it?")
        if self._link.exists() and not self._link.is_symlink():
            raise AgentError(f"{self._link} is there and is no link; move it away")
        write_out(self.tree)
        self._folder().mkdir(mode=0o750, parents=True, exist_ok=True)
        self._folder(self._name, "built").touch()
        beside = self._link.with_name(".current-new")
        beside.unlink(missing_ok=True)
        beside.symlink_to(f"releases/{self._name}")
        self.moved = True
        beside.rename(self._link)
        write_out_folder(self._target.path)

    def write_out(self) -> None:
        """Nothing: it was on the disk before it was live."""

    def give_up(self) -> None:
        """The tree did not do, whatever was built for it: nobody goes back to it."""
        if self._fresh:
            self._folder(self._name, "built").unlink(missing_ok=True)

    def take_down(self) -> None:
        """Have nothing live, as it was before the first release, which did not do."""
        self._link.unlink(missing_ok=True)

    def list_changed(self, old: Revision | None, new: Revision, to: Path) -> None:
        """Write the paths in which `old` and `new` differ to the file `to`, one a line."""
        list_changed(self._mirror, old, new, to)

    # ---- afterwards -------------------------------------------------------------------------

    def repair(self) -> None:
        """After a deployment that was killed: nothing to do, its tree is made anew."""

    def tidy(self) -> None:
        """Nothing: the mirror is all that git packs."""

    def prune(self, cancel: Cancel) -> None:
        """Keep the newest releases, what is live and the last good one; make a spare of another.

        Interrupted at any point, the next call goes on.
        """
        _own(self._releases)
        leaving = self._leaving()
        if leaving and not self.path_of(_SPARE).exists():
            self._retire(leaving.pop(0))
        for name in leaving:
            self._put_aside(name)
        for gone in self._releases.glob(f"{_GONE}*"):
            shutil.rmtree(gone, ignore_errors=True)
            if gone.exists():
                log.warning("tree.not_removed", target=self._target.name, tree=str(gone))
        for folder in self._state.glob("*"):
            if folder.name != _SPARE and not self.path_of(folder.name).exists():
                shutil.rmtree(folder, ignore_errors=True)
        self._clean_spare(cancel)

    def _leaving(self) -> list[str]:
        """The releases that nobody needs any more: first those that never were live."""
        live, names = self._live_name(), self._names()
        built = sorted(filter(self._is_built, names), key=self._built_at, reverse=True)
        staying = {_revision(name): name for name in reversed(built)}
        kept = {live, *(staying.get(revision) for revision in self._protected)}
        others = [name for name in built if name not in kept]
        room = max(0, self._target.keep - len(kept - {None}))
        unbuilt = [name for name in names if name not in built and name != live]
        return unbuilt + others[room:]

    def _retire(self, name: str) -> None:
        """Make a release the spare. Its mark goes first, so that it is never taken for built."""
        self._folder(name, "built").unlink(missing_ok=True)
        spare = self._folder(_SPARE)
        spare.mkdir(mode=0o750, parents=True, exist_ok=True)
        (spare / "clean").unlink(missing_ok=True)
        (spare / "revision").write_text(_revision(name) or "")
        with suppress(FileNotFoundError):
            self._folder(name, "index").rename(spare / "index")
        self.path_of(name).rename(self.path_of(_SPARE))

    def _clean_spare(self, cancel: Cancel) -> None:
        """Have the spare exactly a revision again, so that the next begins with a difference."""
        spare, folder = self.path_of(_SPARE), self._folder(_SPARE)
        if not spare.is_dir() or (folder / "clean").exists():
            return
        with Inside(spare) as inside:
            for entry in self._target.shared:
                with suppress(OSError):
                    inside.remove(os.fsencode(entry.rstrip("/")))
        revision = (folder / "revision").read_text()
        tree = PlainTree(self._mirror, spare, folder / "index")
        try:
            tree.check_out(revision, self._reuse(spare), cancel)
        except PermissionError as error:
            log.warning("tree.not_cleaned", target=self._target.name, why=str(error))
            self._put_aside(_SPARE)
            return
        # What is marked as clean is never gone through again.
        write_out(spare)
        filters = "filters" if tree.has_filters() else _PLAIN
        (folder / "clean").write_text(f"{revision} {_seal(spare)} {filters}")

    # ---- names ------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        try:
            return [one.name for one in os.scandir(self._releases) if _revision(one.name)]
        except FileNotFoundError:
            return []

    def _folder(self, *inner: str) -> Path:
        """Where the agent keeps what it knows of a release, by default of the one in hand."""
        return self._state.joinpath(*(inner or (self._name,)))

    def _is_built(self, name: str) -> bool:
        return self._folder(name, "built").exists()

    def _built_at(self, name: str) -> float:
        return self._folder(name, "built").stat().st_mtime


def _seal(spare: Path) -> str:
    """What tells this folder from another in its place, as from a backup or of another path."""
    found = spare.stat()
    return f"{found.st_dev}:{found.st_ino}:{found.st_ctime_ns}"


def _own(folder: Path) -> None:
    """Have the folder, and no link in its place, which may be a repository's that was here."""
    make_folder(folder)
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise AgentError(f"{folder} is there and is no folder; move it away")


def _revision(name: str) -> Revision | None:
    """The revision that a release's name says."""
    revision = name.partition("-")[0]
    return revision if REVISION.fullmatch(revision) else None
