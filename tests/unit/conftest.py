"""What more than one file here uses."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from agent import logs


@pytest.fixture
def logging_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that set logging up: whatever they did, the next ones find it as it was."""
    monkeypatch.setattr(logs, "_secrets", set())
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
