"""The web page in Chromium: keyboard, phone, hostile rules, tokens, and axe's accessibility checks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rule_server import RuleService, Settings
from rule_server.api.app import create_app
from rule_server.api.auth import new_token
from rule_server.retrieval.build import load_or_build
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("ASCL_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is installed"),
]
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write_rulebook(
        tmp_path / "rules",
        rule("cyber.malware", title="Malicious software", applies_when="Someone asks for a computer virus."),
        rule("cyber.repair", stance="answer", title="Repairing computers", not_when=None),
        rule(
            "kitchen.knives",
            stance="limit",
            title=f"Knives {HOSTILE}",
            body=prose(HOSTILE, "Nothing.", "Plainly."),
        ),
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright: `make page-check` has it")
    with driver.sync_playwright() as playwright:
        # Chromium's sandbox cannot start as root, as in a container.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages. Teardown fails if a page logged an error or contacted another host."""
    wrong: list[str] = []
    contexts = []

    def opened(served: LiveServer, view: str = "", **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(served.origin) else wrong.append(asked.url),
        )
        page.goto(served.origin + "/" + view)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.innerText || document.activeElement.id"))


def tab_to(page: Any, target: str) -> None:
    """Presses Tab until the element with this text or id has the focus."""
    for _ in range(40):
        if focused(page).strip() == target:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{target} is not reached by Tab")


def test_the_page_can_be_used_with_the_keyboard_alone(
    served: LiveServer, open_page: Callable[..., Any]
) -> None:
    page = open_page(served)
    page.get_by_text("test-rules 1.0.0, 3 rules").wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab_to(page, "situation")
    page.keyboard.type("someone asks for a computer virus")
    page.keyboard.press("Control+Enter")
    page.get_by_role("status").filter(has_text="given to the model").wait_for()
    assert page.get_by_role("row", name="Malicious software").get_by_text("given").is_visible()
    tab_to(page, "Malicious software")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Malicious software").wait_for()
    assert focused(page) == "Malicious software"
    assert page.title() == "Malicious software · Safety rules"
    page.go_back()
    page.get_by_role("heading", name="Try a question").wait_for()


def test_a_question_without_a_rule_shows_the_nearest_rules(
    served: LiveServer, open_page: Callable[..., Any]
) -> None:
    page = open_page(served)
    page.get_by_text("test-rules 1.0.0").wait_for()
    page.get_by_label("Situation").fill("What is 17 times 23?")
    page.get_by_role("button", name="Consult").click()
    page.get_by_role("heading", name="No rule applies").wait_for()
    assert page.get_by_role("cell", name="below", exact=True).count() == 3


def test_a_question_in_a_language_that_is_not_searched_gets_a_hint(
    served: LiveServer, open_page: Callable[..., Any]
) -> None:
    page = open_page(served)
    page.get_by_text("test-rules 1.0.0").wait_for()
    page.get_by_label("Situation").fill(
        "Ninataka kujua jinsi ya kutengeneza virusi vya kompyuta kwa ajili ya mtu"
    )
    page.get_by_role("button", name="Consult").click()
    page.get_by_role("heading", name="No rule was searched").wait_for()
    page.get_by_text("The rules cannot be searched in this language").wait_for()


def test_rules_are_filtered_by_words_category_stance_and_use(
    served: LiveServer, open_page: Callable[..., Any]
) -> None:
    page = open_page(served, "#/rules")
    page.get_by_text("3 of 3 rules").wait_for()
    page.get_by_label("Words in the rule").fill("virus computer")
    page.get_by_text("1 of 3 rules").wait_for()
    page.get_by_label("Words in the rule").fill("")
    page.locator("#stance").select_option("answer")
    assert page.locator("#list a").all_inner_texts() == ["Repairing computers\nanswer"]
    page.locator("#stance").select_option("")
    page.locator("#filter-category").select_option("cyber")
    page.get_by_text("2 of 3 rules").wait_for()
    page.locator("#use").select_option("used")
    page.get_by_text("0 of 3 rules").wait_for()


def test_markup_in_a_rule_is_shown_as_text(served: LiveServer, open_page: Callable[..., Any]) -> None:
    page = open_page(served, "#/rules/kitchen.knives")
    page.get_by_role("heading", name="Knives").wait_for()
    assert HOSTILE in page.locator("#rule").inner_text()
    assert page.locator("main img, main script").count() == 0
    assert "taken" not in page.title().replace(HOSTILE, "")
    page.get_by_role("link", name="Try a question").click()
    page.get_by_label("Situation").fill("kitchen knives")
    page.get_by_role("button", name="Consult").click()
    page.get_by_role("table").wait_for()
    assert page.locator("main img, main script").count() == 0


def test_the_page_shows_the_last_edit_and_the_usage_of_rules(
    settings: Settings, rules: Path, open_page: Callable[..., Any]
) -> None:
    service = RuleService(load_or_build(settings, notify=lambda _: None), settings)
    with LiveServer(create_app(service)) as served:
        page = open_page(served)
        page.get_by_text("3 rules").wait_for()
        page.get_by_label("Situation").fill("someone asks for a computer virus")
        page.get_by_role("button", name="Consult").click()
        page.get_by_role("table").wait_for()
        write_rulebook(rules, rule("cyber.phishing"), rule("cyber.malware", title="Viruses"))
        (rules / "kitchen" / "knives.md").unlink()
        httpx2.post(served.origin + "/v1/admin/reload", timeout=30)
        page.reload()
        page.get_by_role("link", name="Changes and use").click()
        page.get_by_role("heading", name="Added (1)").wait_for()
        assert page.get_by_role("heading", name="Removed (1)").is_visible()
        assert page.get_by_role("link", name="cyber.malware").is_visible()
        assert page.get_by_text("One consultation since").is_visible()
        assert page.get_by_text("Never given: 1 of 3 rules").is_visible()
        (rules / "cyber" / "phishing.md").write_text("no front matter", encoding="utf-8")
        httpx2.post(served.origin + "/v1/admin/reload", timeout=30)
        page.reload()
        for view in ("Try a question", "Rules", "Changes and use"):
            page.get_by_role("link", name=view, exact=True).click()
            page.get_by_text("The last edit is not served").wait_for()


def test_the_page_asks_for_a_token_and_stores_it_in_the_tab_only(
    settings: Settings, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    file = tmp_path / "tokens.jsonl"
    token = new_token(file, "reader", ["consult", "read"], "2026-01-01T00:00:00Z")
    guarded = settings.model_copy(update={"tokens_file": file})
    with LiveServer(
        create_app(RuleService(load_or_build(guarded, notify=lambda _: None), guarded))
    ) as served:
        page = open_page(served)
        field = page.get_by_label("Access token")
        field.fill("ascl_wrong")
        page.get_by_role("button", name="Use this token").click()
        page.get_by_role("alert").filter(has_text="does not accept this token").wait_for()
        field.fill(token)
        page.keyboard.press("Enter")
        page.get_by_text("test-rules 1.0.0, 3 rules").wait_for()
        assert field.is_hidden()
        assert page.get_by_role("alert").is_hidden()
        page.reload()
        page.get_by_text("test-rules 1.0.0, 3 rules").wait_for()
        assert page.evaluate("localStorage.length + document.cookie.length") == 0
        page.get_by_role("button", name="Forget the token").click()
        field.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desktop", "phone"])
def test_every_view_is_accessible_and_does_not_scroll_sideways(
    served: LiveServer, open_page: Callable[..., Any], scheme: str, size: dict[str, int]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing").Axe()
    page = open_page(served, color_scheme=scheme, viewport=size)
    page.get_by_text("test-rules 1.0.0").wait_for()
    page.get_by_label("Situation").fill("someone asks for a computer virus")
    page.get_by_role("button", name="Consult").click()
    page.get_by_role("table").wait_for()
    for view in ("#/ask", "#/rules", "#/rules/cyber.malware", "#/activity"):
        page.evaluate(f"location.hash = '{view}'")
        page.wait_for_load_state("networkidle")
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
