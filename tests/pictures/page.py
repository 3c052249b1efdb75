"""Takes docs/images/page*.png: `python -m tests.pictures.page [FOLDER]`. Needs Chromium."""

import sys
import tempfile
from pathlib import Path

from tests.browser import browser
from tests.pictures.scene import scene
from tests.tunnel import tunnel

SIZES = {"wide": (1280, 800), "phone": (390, 844)}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="acme-", dir="/tmp") as root,
        scene(Path(root)) as agent,
    ):
        with agent.client() as client:
            running = client.deployment("api")["id"]
            failed = client.deployment("shop")["id"]
        pages = {
            "targets": "/", "timeline": "/timeline", "target": "/targets/shop",
            "running": f"/deployments/{running}", "failed": f"/deployments/{failed}", "error": "/nowhere",
        }  # fmt: skip
        with tunnel(agent.state_dir / "control.sock") as url, browser() as chromium:
            for scheme in ("light", "dark"):
                for size, (width, height) in SIZES.items():
                    context = chromium.new_context(
                        viewport={"width": width, "height": height}, color_scheme=scheme
                    )
                    page = context.new_page()
                    page.on("console", lambda m: print("console:", m.text))
                    for name, path in pages.items():
                        page.goto(url + path)
                        page.wait_for_timeout(300)
                        page.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=True)
                    context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
