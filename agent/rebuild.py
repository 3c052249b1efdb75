"""A damaged .git, made anew beside the old one and swapped in. `worktree` calls it.

What our mirror has comes from there; what only the old one had (commits, branches, tags and the
stash of whoever works in the tree; configuration, git hooks) is taken over as far as it can be
read. No file of the tree is touched, and the old .git is kept inside the new one. One thread at a
time works on a tree: the path is locked by this agent, and a target has one deployment at a time.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.acl import keep_to_owner
from agent.errors import AgentError, GitFailed
from agent.model import REVISION, Revision
from agent.repository import check, discard_damaged, git

log = structlog.get_logger()

_BESIDE, _ASIDE = ".git.rebuilt", ".git.damaged"
_NOTHING = "nothing-is-checked-out"
_TAKEN_OVER = (
    *("config", "description", "hooks", "lfs", "modules"),
    *("info/attributes", "info/exclude", "info/sparse-checkout"),
)
_PACKED_REF = re.compile(r"([0-9a-f]{40,64}) (refs/\S+)")
_MOVED_TO = re.compile(r"^[0-9a-f]+ ([0-9a-f]+) ", re.MULTILINE)
_OF_A_PERSON = re.compile(r"refs/(heads/.+|tags/.+|stash)")


@dataclass(frozen=True, slots=True)
class Supplies:
    """What a .git is made anew from."""

    url: str
    mirror: Path
    revision: Revision
    """Must be in the new one, whatever else is."""


def rebuild(tree: Path, supplies: Supplies, because: GitFailed) -> Path:
    """Make `tree`'s .git anew; where the old one is kept. GitFailed where that is not possible."""
    old, new = tree / ".git", tree / _BESIDE
    shutil.rmtree(new, ignore_errors=True)
    _create(new, supplies, old)
    try:
        _take(new, supplies.mirror, [supplies.revision])
    except GitFailed as error:
        discard_damaged(supplies.mirror, error)
        raise
    both = _lend(new / "both.git", supplies, old)
    lost = list(_take_refs(new, both, _refs_of_a_person(old)))
    _set_head(new, both, _once_checked_out(old))
    shutil.rmtree(both)
    old.rename(tree / _ASIDE)
    kept = finish_swap(tree)
    log.warning(
        "tree.rebuilt", path=str(tree), because=str(because), kept=str(kept), only_there=lost
    )
    return kept


def finish_swap(tree: Path) -> Path:
    """Put the new .git in place and the old one into it; also what a crash left of that to do."""
    git_dir, new, aside = tree / ".git", tree / _BESIDE, tree / _ASIDE
    if is_ours(new) and not git_dir.exists():
        new.rename(git_dir)
    kept = git_dir / time.strftime("damaged-%Y%m%d-%H%M%S", time.gmtime())
    if aside.exists() and git_dir.exists():
        aside.rename(kept)
    return kept


def is_ours(git_dir: Path) -> bool:
    """Whether it is there; AgentError where somebody else made it, for git would do as it says."""
    try:
        owner = git_dir.lstat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return False
    if owner != os.geteuid():
        raise AgentError(
            f"{git_dir} belongs to somebody else than the agent, and may tell git to run anything;"
            f" look at it, then `chown -R {os.geteuid()} {git_dir}` or move it away"
        )
    return True


# ---- what the new one is made of -----------------------------------------------------------


def _create(new: Path, supplies: Supplies, old: Path) -> None:
    """An empty repository with the settings of the old one, where they can be read."""
    _init(new, supplies.revision)
    _set_format(new, supplies.revision)
    fresh = (new / "config").read_bytes()
    for name in _TAKEN_OVER:
        _take_over(old / name, new / name)
    try:
        # A configuration that was cut off may have lost how objects are named, or stop every git.
        _set_format(new, supplies.revision)
        check(new)
    except GitFailed:
        (new / "config").write_bytes(fresh)
    with suppress(GitFailed):
        # Fails where there is an origin already.
        _in(new, "remote", "add", "--", "origin", supplies.url)


def _init(folder: Path, like: Revision) -> None:
    folder.mkdir()
    keep_to_owner(folder)
    names = "--object-format=" + ("sha1" if len(like) == 40 else "sha256")
    git(
        ["init", "--quiet", "--bare", "--template=", f"--initial-branch={_NOTHING}", names],
        cwd=folder,
    )
    (folder / "info").mkdir()


def _set_format(new: Path, like: Revision) -> None:
    if len(like) == 64:
        _in(new, "config", "core.repositoryFormatVersion", "1")
        _in(new, "config", "extensions.objectFormat", "sha256")
    else:
        with suppress(GitFailed):
            # Fails where there is none.
            _in(new, "config", "--unset", "extensions.objectFormat")
    _in(new, "config", "core.bare", "false")


def _take_over(source: Path, to: Path) -> None:
    """By links, for it may be much: the files themselves are in both."""
    with suppress(OSError, shutil.Error):
        if source.is_dir():
            shutil.copytree(source, to, symlinks=True, copy_function=os.link)
        elif source.is_file():
            shutil.copy2(source, to)


def _lend(folder: Path, supplies: Supplies, old: Path) -> Path:
    """A repository of no objects of its own, through which those of the mirror and the old show.

    git tries each place in turn for an object, so that one which is broken in the old .git is
    found in the mirror. What git keeps to find objects faster is not asked.
    """
    _init(folder, supplies.revision)
    _in(folder, "config", "core.multiPackIndex", "false")
    _in(folder, "config", "core.commitGraph", "false")
    lent = f"{supplies.mirror}/objects\n{old}/objects\n"
    (folder / "objects" / "info" / "alternates").write_text(lent)
    return folder


def _take(new: Path, source: Path, what: Iterable[str]) -> None:
    """Fetch revisions, or refs as `+revision:ref`, with their history; GitFailed if broken."""
    arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", str(source), *what]
    _in(new, *arguments, options=["protocol.file.allow=always"])


def _take_refs(new: Path, both: Path, refs: dict[str, Revision]) -> Iterator[str]:
    """Take over what can be read of `refs`; gives the names of the others."""
    wanted = {name: f"+{revision}:{name}" for name, revision in sorted(refs.items())}
    with suppress(GitFailed):
        if wanted:
            _take(new, both, wanted.values())
        return
    for name, one in wanted.items():
        try:
            _take(new, both, [one])
        except GitFailed:
            yield name


def _set_head(new: Path, both: Path, candidates: Iterable[Revision]) -> None:
    """Have the first of `candidates` that can be read checked out, as far as git knows."""
    for revision in candidates:
        with suppress(GitFailed):
            _take(new, both, [revision])
            _in(new, "update-ref", "--no-deref", "HEAD", revision)
            _in(new, "read-tree", "HEAD")
            return


def _in(new: Path, *arguments: str, options: Iterable[str] = ()) -> None:
    git([f"--git-dir={new}", *arguments], cwd=new.parent, options=list(options))


# ---- what can be read of the old one, without git -------------------------------------------


def _once_checked_out(old: Path) -> Iterator[Revision]:
    """What HEAD says, and then what it said before, as the reflog has it; newest first."""
    head = _text(old / "HEAD").strip()
    said = [_refs(old).get(head.removeprefix("ref: "), head)]
    said += reversed(_MOVED_TO.findall(_text(old / "logs/HEAD")))
    yield from (one for one in dict.fromkeys(said) if REVISION.fullmatch(one))


def _refs_of_a_person(old: Path) -> dict[str, Revision]:
    return {name: at for name, at in _refs(old).items() if _OF_A_PERSON.fullmatch(name)}


def _refs(old: Path) -> dict[str, Revision]:
    """Every ref that can be read, by its full name."""
    packed = filter(None, map(_PACKED_REF.fullmatch, _text(old / "packed-refs").splitlines()))
    found = {match[2]: match[1] for match in packed}
    for path in (old / "refs").rglob("*"):
        if path.is_file():
            found[str(path.relative_to(old))] = _text(path).strip()
    return {name: at for name, at in found.items() if REVISION.fullmatch(at)}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
