"""The page in a real Chromium, from the HTTP server of a daemon with a fake status."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest
from selenium import webdriver

from etl.demo.process import HOST
from etl.monitoring.history import QueueLengths
from etl.monitoring.server import Serving
from etl.settings import Settings
from tests.browser.scenes import Scene
from tests.browser.visit import OpenPage, Visit
from tests.support.statuses import endpoints
from tests.support.tools import program

_ARGUMENTS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A Chromium with a temporary profile, for one test at a time."""
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
            queues = QueueLengths(shown.snapshot)
            for _ in range(3):
                queues.add(shown.snapshot())
            serving = Serving(endpoints(shown.snapshot, shown.read, settings, queues).app(), HOST, 0)
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
