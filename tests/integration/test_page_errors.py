"""What the page says when the agent itself is in trouble."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from agent.doors import SocketDoor
from agent.journal import Journal
from agent.page.routes import page_app


def get(sources: object, path: str) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(SocketDoor(page_app(sources, 1)))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.get(path)

    return asyncio.run(main())


@pytest.fixture
def sources(tmp_path: Path) -> SimpleNamespace:
    """An agent whose journal cannot be used any more."""
    journal = Journal(tmp_path)
    journal.close()
    settings = SimpleNamespace(state_dir=tmp_path, targets={"shop": None}, webhooks={})
    return SimpleNamespace(
        settings=settings, journal=journal, reload=None, trouble=lambda: "the journal <fails>"
    )


def test_a_journal_that_cannot_be_read_is_said_in_words(sources: SimpleNamespace) -> None:
    answer = get(sources, "/timeline")
    assert answer.status_code == 503
    assert "the journal &lt;fails&gt;" in answer.text
    assert "Service unavailable" in answer.text


def test_a_fault_of_ours_tells_a_visitor_nothing_but_where_to_look(
    sources: SimpleNamespace,
) -> None:
    sources.journal = None
    answer = get(sources, "/timeline")
    assert answer.status_code == 500
    assert "its log says how" in answer.text
    assert "NoneType" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/timeline?before=soon",
        "/deployments/x/output/1?before=-1",
        "/static/../routes.py",
        "/static/..%2froutes.py",
        "/static/%2e%2e/routes.py",
        "/targets/%00",
    ],
)
def test_odd_addresses_are_refused_and_lead_nowhere(sources: SimpleNamespace, path: str) -> None:
    answer = get(sources, path)
    assert answer.status_code in (400, 404, 503)
    assert "def page_app" not in answer.text
