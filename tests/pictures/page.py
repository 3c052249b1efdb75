"""Takes docs/images/page.png, of a real agent in a real browser.

    python -m tests.pictures.page             the picture in README.md
    python -m tests.pictures.page FOLDER      every page, at two widths, in light and in dark

Needs Debian's chromium, and /tmp/acme to be free.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.agents import Agent
from tests.browser import browser
from tests.pictures.scene import scene
from tests.tunnel import tunnel

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "page.png"
ROOT = Path("/tmp/acme")
WIDE, PHONE = (1280, 800), (390, 844)


def main(folder: Path | None) -> None:
    with _stage() as (agent, url), browser() as chromium:
        if folder is None:
            PICTURE.parent.mkdir(exist_ok=True)
            _take_picture(chromium, url)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _take_all(chromium, url, agent, folder)


@contextmanager
def _stage() -> Iterator[tuple[Agent, str]]:
    ROOT.mkdir()
    try:
        with scene(ROOT) as agent, tunnel(agent.state_dir / "control.sock") as url:
            yield agent, url
    finally:
        shutil.rmtree(ROOT)


def _take_picture(chromium: Browser, url: str) -> None:
    page = chromium.new_page(viewport={"width": WIDE[0], "height": WIDE[1]})
    page.goto(url)
    # Between two tries of the hook that could not now.
    expect(page.locator("#target-docs")).to_contain_text("retrying", timeout=60_000)
    page.screenshot(path=PICTURE)


def _take_all(chromium: Browser, url: str, agent: Agent, folder: Path) -> None:
    with agent.client() as client:
        running, failed = (client.deployment(name)["id"] for name in ("api", "shop"))
    paths = {
        "targets": "/", "timeline": "/timeline", "target": "/targets/shop", "error": "/nowhere",
        "running": f"/deployments/{running}", "failed": f"/deployments/{failed}",
    }  # fmt: skip
    for scheme in ("light", "dark"):
        for name, (width, height) in {"wide": WIDE, "phone": PHONE}.items():
            page = chromium.new_page(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            for what, path in paths.items():
                page.goto(url + path)
                page.screenshot(path=folder / f"{what}-{name}-{scheme}.png", full_page=True)
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
