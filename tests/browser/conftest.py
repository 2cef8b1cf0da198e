"""The page in a real Chromium, on a daemon's own HTTP server with a made-up status."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.resources import files
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from etl.demo.process import HOST
from etl.monitoring.history import QueueLengths
from etl.monitoring.server import Serving
from etl.settings import Settings
from tests.browser.scenes import Scene
from tests.support.statuses import endpoints
from tests.support.tools import program
from tests.support.waiting import eventually

OpenPage = Callable[..., "Visit"]

AXE: Final = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")

_ARGUMENTS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
_CARD: Final = (
    "const [name, part] = arguments; const card = [...document.querySelectorAll('.collection')]"
    ".find(one => one.querySelector('.name').innerText === name); return "
)
_LOADED: Final = (
    "return !!document.querySelector('.collection')"
    " && performance.getEntriesByType('resource').some(one => one.name.endsWith('/history'))"
)


class Visit:
    """The page, open in a browser, and the daemon that it looks at."""

    def __init__(self, scene: Scene, serving: Serving, browser: webdriver.Chrome) -> None:
        self.scene = scene
        self.serving = serving
        self.browser = browser

    def load(self) -> None:
        """Load it, and wait until it has shown the status and the history."""
        self.browser.get("about:blank")
        self.complaints(), self.requests()  # of the page before
        self.browser.get(f"{self.serving.url}/")
        assert eventually(lambda: bool(self.script(_LOADED)))

    def script(self, code: str, *arguments: Any) -> Any:
        """What the browser answers."""
        return self.browser.execute_script(code, *arguments)

    def text(self, selector: str) -> str:
        """What a person reads in the first element that fits."""
        return str(self.script("return document.querySelector(arguments[0]).innerText", selector))

    def find(self, selector: str) -> list[WebElement]:
        """All elements that fit."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def card(self, name: str = "promptContent") -> WebElement:
        """What is shown of a collection."""
        found: WebElement = self.script(f"{_CARD} card", name)
        return found

    def read(self, name: str = "promptContent", part: str = ".body") -> str:
        """What a person reads of a collection."""
        return str(self.script(f"{_CARD} card.querySelector(part).innerText", name, part))

    def sentence(self, name: str = "promptContent") -> str:
        """How it says that a collection fares."""
        return self.read(name, ".sentence")

    def level(self, name: str = "promptContent") -> str:
        """The colour of a collection."""
        return str(self.card(name).get_dom_attribute("class")).split()[-1]

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        self.browser.switch_to.active_element.send_keys(getattr(Keys, key))

    def complaints(self) -> list[str]:
        """Errors and warnings in the console since this was last asked."""
        log = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] in {"SEVERE", "WARNING"}]

    def requests(self) -> list[str]:
        """The addresses that were asked since this was last asked."""
        log = self.browser.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in log]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def violations(self) -> list[str]:
        """What axe-core finds that keeps somebody from using the page."""
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


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A Chromium with a profile of its own, which a test has for itself while it runs."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for argument in (*_ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    quiet = webdriver.ChromeService(program("chromedriver"), log_output=os.devnull)
    browser = webdriver.Chrome(options, quiet)
    yield browser
    browser.quit()


@pytest.fixture
def open_page(chromium: webdriver.Chrome) -> Iterator[OpenPage]:
    """Open the page on a scene, in a browser of this language, colour scheme and width."""
    with ExitStack() as stack:

        def opened(
            scene: Scene | None = None,
            *,
            locale: str = "en-US",
            scheme: str = "light",
            width: int = 1280,
            before: str = "",
        ) -> Visit:
            shown = scene or Scene()
            names = [{"name": one.collection} for one in shown.collections]
            settings = Settings.model_validate(
                {"collections": names, "reconcile": {"interval_seconds": 86_400}}
            )
            queues = QueueLengths(shown.look)
            for _ in range(3):
                queues.add(shown.look())
            serving = Serving(endpoints(shown.look, shown.read, settings, queues).app(), HOST, 0)
            stack.callback(serving.stop)
            serving.start()
            language = {"userAgent": "Chromium", "acceptLanguage": locale}
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            for command, arguments in (
                ("Emulation.setUserAgentOverride", language),
                ("Emulation.setEmulatedMedia", {"features": features}),
                ("Emulation.setDeviceMetricsOverride", screen),
                ("Emulation.setTimezoneOverride", {"timezoneId": "UTC"}),
            ):
                chromium.execute_cdp_cmd(command, arguments)
            if before:
                added = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": before})
                stack.callback(chromium.execute_cdp_cmd, "Page.removeScriptToEvaluateOnNewDocument", added)
            visit = Visit(shown, serving, chromium)
            visit.load()
            return visit

        yield opened
        chromium.get("about:blank")
