"""The report as a reader has it: in the system's Chromium, opened from disk, on a phone, in the dark and on paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from run_directories import NUM_QUESTIONS, write_run

from east_ray.report.files import write_report, write_side_by_side
from east_ray.storage import RunDirectory

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


class Opened:
    """A page that was opened, with what its console said and what it asked the network for."""

    def __init__(self, page: "sync_api.Page", file: Path) -> None:
        self.page, self.said, self.asked = page, list[str](), list[str]()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(file.as_uri())

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("runs") / "run", rounds=2, num_seeds=3)


@pytest.fixture(scope="module")
def file(directory: RunDirectory) -> Path:
    return Path(write_report(directory))


@pytest.fixture
def opened(browser: "sync_api.Browser", file: Path) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    yield Opened(page, file)
    page.close()


def test_nothing_fails_nothing_is_asked_for_and_nothing_hostile_runs(opened: Opened, file: Path) -> None:
    for details in opened.page.locator("summary").all():
        details.evaluate("element => { element.parentElement.open = true; }")
    assert opened.said == []
    assert opened.asked == [file.as_uri()]
    assert opened.page.evaluate("window.pwned") is None
    assert opened.page.locator("script").count() == 1 and opened.page.locator("img").count() == 0


def test_a_script_that_is_not_ours_is_refused(opened: Opened) -> None:
    opened.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned = 1'}))"
    )
    assert opened.page.evaluate("window.pwned") is None
    assert "Content Security Policy" in opened.said[0]


def test_every_section_is_there_and_the_contents_lead_to_it(opened: Opened) -> None:
    titles = opened.page.locator("h3").all_inner_texts()
    for title in (
        "What came out",
        "What it cost",
        "What was run",
        "Questions kept and discarded",
        "Entropy and weights",
        "Questions to look at",
        "Training",
        "Comparison",
        "Time and tokens",
        "How many responses are enough",
        "Accuracy and weights from round to round",
        "Every setting",
    ):
        assert title in titles
    for link in opened.page.locator("nav a").all():
        target = opened.page.locator(link.get_attribute("href") or "")
        assert target.count() == 1 and target.inner_text() == link.inner_text()


def test_figures_are_drawn_and_described(opened: Opened) -> None:
    figures = opened.page.locator("svg").all()
    assert len(figures) >= 20
    assert opened.page.locator("svg[role=group]").count() == 2, "the dots of each round are links"
    for figure in figures:
        box = figure.bounding_box()
        assert box is not None and box["width"] > 200 and box["height"] > 50
        assert len(figure.get_attribute("aria-label") or "") > 30


def test_questions_are_searched_and_sorted_by_keyboard(opened: Opened) -> None:
    box = opened.page.locator(".questions").first
    rows = box.locator("tbody tr:visible")
    assert rows.count() == NUM_QUESTIONS
    box.get_by_role("searchbox").focus()
    opened.page.keyboard.type("question 17: window")
    assert rows.count() == 1 and box.get_by_role("status").inner_text() == f"1 of {NUM_QUESTIONS} questions"
    box.get_by_role("searchbox").fill("")

    header = box.get_by_role("button", name="pass rate")
    header.focus()
    opened.page.keyboard.press("Enter")
    shares = [float(value) for value in box.locator("tbody tr td:nth-child(3)").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    opened.page.keyboard.press("Enter")
    shares = [float(value) for value in box.locator("tbody tr td:nth-child(3)").all_inner_texts()]
    assert shares == sorted(shares)
    assert box.locator("th[aria-sort=ascending]").inner_text().startswith("pass rate")
    box.get_by_role("button", name="weight").click()
    box.get_by_role("button", name="weight").click()
    weights = box.locator("tbody tr td:nth-child(4)").all_inner_texts()
    assert weights[-10:] == ["–"] * 10, "what has no weight comes last, whichever way"


def test_a_question_opens_and_shows_its_responses(opened: Opened) -> None:
    row = opened.page.locator(".questions tbody tr").nth(1)
    row.locator("summary").first.focus()
    opened.page.keyboard.press("Enter")
    assert row.locator("pre").first.is_visible()
    assert "It is \\boxed{72}." in row.inner_text() and "characters in all)" in row.inner_text()


def test_the_page_begins_with_the_result(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 390, "height": 844})
    first = opened.page.locator("main h2").first
    tile = opened.page.locator(".highlights strong").first.bounding_box()
    assert first.inner_text() == "The result" and tile is not None and tile["y"] < 500, "on a phone, without scrolling"
    result, contents = (opened.page.locator(one).first.bounding_box() for one in ("main section", "nav"))
    assert result is not None and contents is not None and contents["y"] >= result["y"] + result["height"]


def test_a_dot_says_its_question_under_the_pointer_and_by_keyboard_and_leads_to_it(opened: Opened) -> None:
    box = opened.page.locator(".questions").first
    dots, told = box.locator("svg a"), box.locator(".told")
    assert dots.count() == NUM_QUESTIONS
    assert "Question 30: " in (dots.nth(30).locator("title").text_content() or "")
    dots.nth(59).hover()
    assert told.inner_text().startswith("Question 59: ")
    dots.nth(0).focus()
    assert told.inner_text().startswith("Question 0: ")
    opened.page.keyboard.press("ArrowRight")
    text = told.inner_text()
    assert text.startswith("Question 1: ") and "reference answer: 72\ncommonest answer: 72 × 5, correct" in text
    assert "entropy 2.36, pass rate 0.02" in text
    assert dots.nth(0).get_attribute("tabindex") == "-1" and dots.nth(1).get_attribute("tabindex") == "0"
    box.get_by_role("searchbox").fill("question 17: window")
    assert box.locator("tbody tr:visible").count() == 1
    dots.nth(1).focus()
    opened.page.keyboard.press("Enter")
    row = box.locator("tbody tr").nth(1)
    sync_api.expect(row.locator("details").first).to_have_attribute("open", "")
    assert row.locator(".bars").is_visible() and row.locator(".id").inner_text().startswith("q001")


def test_the_clusters_of_a_question_are_bars_and_the_correct_one_is_marked_in_words_and_fill(opened: Opened) -> None:
    row = opened.page.locator(".questions tbody tr").nth(1)
    row.locator("summary").first.click()
    assert row.locator(".bars b").all_inner_texts() == ["5 of 8 ✓ correct", "2 of 8", "1 of 8"]
    boxes = [bar.bounding_box() for bar in row.locator(".bars i").all()]
    widths = [box["width"] for box in boxes if box is not None]
    assert widths[0] / widths[2] == pytest.approx(5, rel=0.1) and widths[1] / widths[2] == pytest.approx(2, rel=0.1)
    fills = row.locator(".bars i").evaluate_all("bars => bars.map(bar => getComputedStyle(bar).backgroundColor)")
    assert fills[0] != fills[1] == fills[2] == "rgba(0, 0, 0, 0)"


def test_it_is_read_without_scripts(browser: "sync_api.Browser", file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".questions").first.locator("tbody tr").count() == NUM_QUESTIONS
    assert not page.locator(".controls").first.is_visible()
    page.locator(".questions").first.locator("svg a").nth(1).click()
    assert page.locator(".questions tbody tr").nth(1).locator(".bars").is_visible()
    context.close()


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_the_page_never_scrolls_sideways(opened: Opened, width: int) -> None:
    opened.page.set_viewport_size({"width": width, "height": 800})
    assert opened.overflow <= 0
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert opened.overflow <= 0


def test_no_table_is_wider_than_a_sheet_of_paper(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 700, "height": 1000})  # A4 with the browser's margins
    opened.page.emulate_media(media="print")
    ends = opened.page.locator("table").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert len(ends) > 10 and max(ends) <= 700


CONTRAST = """selector => {
  const channels = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const luminance = color => channels(color).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = luminance(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll(selector)].map(element => {
    const [low, high] = [ground, luminance(getComputedStyle(element).color)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
}"""


@pytest.mark.parametrize("medium", ["light", "dark", "print"])
def test_text_can_be_read_in_the_light_in_the_dark_and_on_paper(opened: Opened, medium: str) -> None:
    if medium == "print":
        opened.page.emulate_media(media="print", color_scheme="dark")
    else:
        opened.page.emulate_media(color_scheme=medium)
    for selector in ("p", "caption", "figcaption", "td", "summary"):
        assert min(opened.page.evaluate(CONTRAST, selector)) >= 4.5, selector
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (medium != "dark")
    assert opened.page.locator(".controls").first.is_visible() == (medium != "print")


def test_runs_side_by_side_stand_in_columns_and_on_a_phone_below_one_another(
    browser: "sync_api.Browser", directory: RunDirectory, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "other")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    opened = Opened(page, Path(write_side_by_side([directory, other], str(tmp_path / "both.html"))))
    for width, in_columns in ((1200, True), (360, False)):
        page.set_viewport_size({"width": width, "height": 900})
        first, second = (page.locator(".runs").first.locator("> div").nth(index).bounding_box() for index in (0, 1))
        assert first is not None and second is not None
        assert (first["y"] == second["y"]) == in_columns and opened.overflow <= 0
    assert opened.said == []
    page.close()
