"""Which submodules of a tree have stayed empty."""

import os
from pathlib import Path

from agent import submodules

LISTED = """\
[submodule "one"]
\tpath = lib/one
\turl = https://example.org/one.git
[submodule "two"]
\tpath = two words
\turl = ../two.git
"""


def test_those_with_nothing_in_them(tmp_path: Path) -> None:
    assert submodules.empty(tmp_path) == ()
    (tmp_path / ".gitmodules").write_text(LISTED)
    for path in ("lib/one", "two words"):
        (tmp_path / path).mkdir(parents=True)
    assert submodules.empty(tmp_path) == ("lib/one", "two words")
    (tmp_path / "lib/one/README").write_text("fetched by a hook")
    assert submodules.empty(tmp_path) == ("two words",)


def test_a_list_that_leads_elsewhere_says_nothing(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (tree / ".gitmodules").write_text('[submodule "x"]\n\tpath = ../outside\n')
    assert submodules.empty(tree) == ()
    (tree / ".gitmodules").unlink()
    (tree / ".gitmodules").symlink_to(tmp_path / "list")
    (tmp_path / "list").write_text(LISTED)
    assert submodules.empty(tree) == ()
    (tree / ".gitmodules").unlink()
    os.mkfifo(tree / ".gitmodules")
    assert submodules.empty(tree) == ()
