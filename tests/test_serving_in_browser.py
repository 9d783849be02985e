"""The page at / as people have it: in the system's Chromium, by keyboard, before a scripted engine."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from scripted_solver import ScriptedEngine, solver

from east_ray.serving.application import render_page, router

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("vllm.sampling_params")  # it takes seconds to import, which no page should wait for
HOSTILE = r"<img src=x onerror=window.pwned=1> \boxed{<script>window.pwned=1</script>}"


class PatientEngine(ScriptedEngine):
    """Waits after its first response until the test lets it go on."""

    def __init__(self, *texts: str) -> None:
        super().__init__(*texts)
        self.go_on, self.was_left = threading.Event(), threading.Event()

    async def generate(self, *arguments: Any) -> AsyncIterator[Any]:
        try:
            num_finished = 0
            async for output in super().generate(*arguments):
                yield output
                num_finished += output.outputs[0].finish_reason is not None
                while num_finished and not self.go_on.is_set():
                    await asyncio.sleep(0.01)
        except (asyncio.CancelledError, GeneratorExit):
            self.was_left.set()
            raise


@pytest.fixture
def engine() -> PatientEngine:
    return PatientEngine(r"So \boxed{12}.", HOSTILE, r"It is \boxed{12}.", "no idea")


@pytest.fixture
def url(engine: PatientEngine) -> Iterator[str]:
    app = FastAPI()
    app.state.solver, app.state.page = solver(engine), render_page("tiny", 64)
    app.include_router(router)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        engine.go_on.set()
        server.should_exit = True
        thread.join()


@pytest.fixture
def page(browser: "sync_api.Browser", url: str) -> Iterator["sync_api.Page"]:
    page = browser.new_page()
    page.said, page.asked = [], []  # type: ignore[attr-defined]
    page.on("console", lambda message: page.said.append(message.text))  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.said.append(str(error)))  # type: ignore[attr-defined]
    page.on("request", lambda request: page.asked.append(request.url))  # type: ignore[attr-defined]
    page.goto(url)
    yield page
    page.close()


def ask(page: "sync_api.Page", responses: int = 4) -> None:
    sync_api.expect(page.get_by_role("textbox", name="Question")).to_be_focused()  # from the beginning
    page.keyboard.type("7 + 5?")
    page.get_by_role("spinbutton", name="Responses").fill(str(responses))
    page.get_by_role("textbox", name="Question").press("Control+Enter")


def test_responses_arrive_and_fall_into_clusters(page: "sync_api.Page", engine: PatientEngine, url: str) -> None:
    ask(page)
    sync_api.expect(page.get_by_role("status")).to_have_text("1 of 4 responses, 1 cluster")
    sync_api.expect(page.locator("#answer")).to_have_text("12")
    engine.go_on.set()
    sync_api.expect(page.get_by_role("status")).to_have_text("4 of 4 responses, 3 clusters, done")
    sync_api.expect(page.locator("#entropy")).to_have_text("1.04 nats")  # shares 1/2, 1/4, 1/4
    sync_api.expect(page.locator("#share")).to_have_text("50 %")
    assert page.locator("#clusters > li").count() == 3
    assert page.locator("#clusters bdi").all_text_contents()[0] == "12"
    page.get_by_text("All responses in order of arrival").press("Enter")
    assert page.locator("#responses li").all_text_contents() == list(engine.texts)
    assert page.evaluate("window.pwned") is None and page.locator("img").count() == 0
    assert page.said == []  # type: ignore[attr-defined]
    assert all(one.startswith((url, "data:")) for one in page.asked)  # type: ignore[attr-defined]


def test_escape_stops_and_the_engine_is_told(page: "sync_api.Page", engine: PatientEngine) -> None:
    ask(page)
    sync_api.expect(page.get_by_role("status")).to_have_text("1 of 4 responses, 1 cluster")
    page.keyboard.press("Escape")
    sync_api.expect(page.get_by_role("status")).to_have_text("stopped")
    assert engine.was_left.wait(10)
    sync_api.expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def test_an_error_is_shown_in_its_own_words(page: "sync_api.Page") -> None:
    page.get_by_role("textbox", name="Question").fill("x" * 64)
    page.get_by_role("button", name="Ask").press("Enter")
    sync_api.expect(page.get_by_role("status")).to_contain_text("error: 400")


@pytest.mark.parametrize("width", [320, 1200])
def test_it_fits_a_phone_and_has_a_name_for_everything(
    page: "sync_api.Page", engine: PatientEngine, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    engine.go_on.set()
    ask(page)
    sync_api.expect(page.get_by_role("status")).to_contain_text("done")
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    for control in page.locator("input:visible, textarea, button, progress, meter").all():
        assert control.evaluate("e => e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label')")
