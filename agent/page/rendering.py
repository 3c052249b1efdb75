"""Templates, which escape whatever is put into them. The only room that knows Jinja."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agent.page.outputs import Html


def environment(**everywhere: Any) -> Environment:
    """The templates; `everywhere` is known in each of them."""
    made = Environment(
        loader=PackageLoader("agent.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(everywhere)
    made.filters["html"] = _escaped_already
    return made


def _escaped_already(text: Html) -> Markup:
    """For a hook's output, which `ansi` has escaped; nothing else goes through here."""
    return Markup(text)  # noqa: S704 - Html is made by ansi.Painter alone
