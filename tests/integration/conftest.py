"""What more than one file here uses."""

from pathlib import Path

import pytest

from tests.shipped import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)
