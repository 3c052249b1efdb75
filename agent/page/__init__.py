"""The page: what the control application shows to a person with a browser.

In here `routes`, `steer` and `live` answer requests; `views`, `timeline`, `outputs` and `ansi` make
of reports what the templates put into place, purely. Jinja and all of it are imported at the first
request, so that an agent whose page nobody opens carries none of it.
"""

from collections.abc import Callable
from typing import Any

from agent.control import Sources

App = Callable[[Any, Any, Any], Any]
"""An ASGI application."""

_API = ("/v1/", "/schema", "/metrics")


def with_page(api: App, sources: Sources, pid: int) -> App:
    """The control application: `api` at its own paths, the page at every other."""
    page: App | None = None

    async def control(scope: Any, receive: Any, send: Any) -> None:
        nonlocal page
        if scope["path"].startswith(_API):
            await api(scope, receive, send)
            return
        if page is None:
            from agent.page.routes import page_app

            page = page_app(sources, pid)
        await page(scope, receive, send)

    return control
