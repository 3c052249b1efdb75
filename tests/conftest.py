import pytest
from tests.remotes import Upstream


@pytest.fixture
def upstream(tmp_path):
    return Upstream(tmp_path / "upstream")
