"""The page of a daemon, open in a real Chromium."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from etl.monitoring.server import Serving
from tests.browser.scenes import Scene
from tests.support.waiting import eventually

AXE: Final = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
_CARD: Final = (
    "const [name, part] = arguments; const card = [...document.querySelectorAll('.collection')]"
    ".find(one => one.querySelector('.name').innerText === name); return "
)
_LOADED: Final = (
    "return !!document.querySelector('.collection')"
    " && performance.getEntriesByType('resource').some(one => one.name.endsWith('/history'))"
)


class Visit:
    """The page, open in a browser, and its daemon."""

    def __init__(self, scene: Scene, serving: Serving, browser: webdriver.Chrome) -> None:
        self.scene = scene
        self.serving = serving
        self.browser = browser

    def load(self) -> None:
        """Load the page, and wait until it shows the status and the history."""
        self.browser.get("about:blank")
        self.console_errors(), self.requests()  # of the page before
        self.browser.get(f"{self.serving.url}/")
        assert eventually(lambda: bool(self.script(_LOADED)))

    def script(self, code: str, *arguments: Any) -> Any:
        """Run a script in the browser, and return its result."""
        return self.browser.execute_script(code, *arguments)

    def text(self, selector: str) -> str:
        """The text of the first matching element."""
        return str(self.script("return document.querySelector(arguments[0]).innerText", selector))

    def find(self, selector: str) -> list[WebElement]:
        """All matching elements."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def card(self, name: str = "promptContent") -> WebElement:
        """The element of a collection."""
        found: WebElement = self.script(f"{_CARD} card", name)
        return found

    def read(self, name: str = "promptContent", part: str = ".body") -> str:
        """The text of a collection."""
        return str(self.script(f"{_CARD} card.querySelector(part).innerText", name, part))

    def sentence(self, name: str = "promptContent") -> str:
        """The sentence on the state of a collection."""
        return self.read(name, ".sentence")

    def level(self, name: str = "promptContent") -> str:
        """The colour of a collection."""
        return str(self.card(name).get_dom_attribute("class")).split()[-1]

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        self.browser.switch_to.active_element.send_keys(getattr(Keys, key))

    def console_errors(self) -> list[str]:
        """Errors and warnings in the console since the last call."""
        log = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] in {"SEVERE", "WARNING"}]

    def requests(self) -> list[str]:
        """The requested URLs since the last call."""
        log = self.browser.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in log]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def violations(self) -> list[str]:
        """The serious and critical violations that axe-core finds."""
        self.script(AXE)
        found: dict[str, Any] = self.browser.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then(arguments[0])"
        )
        grave = [one for one in found["violations"] if one["impact"] in {"serious", "critical"}]
        return [f"{one['id']}: {json.dumps([node['html'] for node in one['nodes']])}" for one in grave]

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(
            self.script("const page = document.documentElement; return page.scrollWidth - page.clientWidth")
        )


OpenPage = Callable[..., Visit]
"""Opens the page; see the fixture `open_page`."""
