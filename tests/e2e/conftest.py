"""Every agent of these tests has canaries in it; none may have escaped when a test ends."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import agents
from tests.canaries import Aviary, check


@pytest.fixture(autouse=True)
def aviaries() -> Iterator[list[Aviary]]:
    """The canaries of this test's agents. A test that lets one out on purpose empties the list."""
    agents.aviaries = kept = []
    yield kept
    agents.aviaries = None
    check(kept)


@pytest.fixture
def root(aviaries: list[Aviary]) -> Iterator[Path]:
    """A folder for agents. A socket's path must be short, and pytest's folders are not."""
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)
        check(aviaries)
