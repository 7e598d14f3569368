"""How the tests look at a report's page: its links and ids, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Resources(HTMLParser):
    """Gathers what a page refers to, and checks that tags are closed."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[name] for name in ("href", "src", "srcset", "xlink:href") if values.get(name)]
        self.ids += [values["id"]] if values.get("id") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def browser(profile: Path, *arguments: str) -> str:
    """Run Chromium headless; its output."""
    quiet = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--virtual-time-budget=20000",
    )
    command = [str(CHROMIUM), *quiet, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def told(page: Path, folder: Path, script: str, size: str = "1280,900", address: str = "") -> Any:
    """What a script says (by `tell(value)`) that runs in the page after its own, in a browser."""
    text = page.read_text()
    cut = text.rindex("</body>")
    probe = f"const tell = (value) => {{ document.title = JSON.stringify(value); }};\n{script}"
    probed = folder / "probed.html"
    probed.write_text(f'{text[:cut]}<script type="module">{probe}</script>{text[cut:]}')
    dom = browser(folder / "profile", f"--window-size={size}", "--dump-dom", probed.as_uri() + address)
    title = re.search("<title>(.*?) *</title>", dom, re.DOTALL)
    assert title is not None
    return json.loads(html.unescape(title[1]))
