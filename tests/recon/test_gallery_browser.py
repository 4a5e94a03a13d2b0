"""The page in headless Chromium: keys, filters, order, subjects, enlarging, themes, names of everything, no fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recon.gallery.content import Content, read_content
from recon.gallery.page import draw_page, page_data
from tests.conftest import PROJECT
from tests.recon import gallery_run
from tests.recon.browser import Browser, browser

SHOWN = "[...document.querySelectorAll('.item')].map(item => item.querySelector('.id').textContent)"
COUNT = "document.getElementById('count').textContent"
OPEN = "document.getElementById('zoom').open"
ZOOM = "document.getElementById('zoom').getBoundingClientRect()"
LARGE = "[...document.querySelectorAll('#large img')].map(image => image.src)"


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[Content]:
    """Two subjects: one with all that is optional, one with ten stimuli and nothing of it."""
    run = gallery_run.scored_run(tmp_path_factory.mktemp("gallery"))
    second = read_content(run)
    second = replace(second, report={**second.report, "subject": "02", "n_stimuli": 10}, items=second.items[5:15])
    gallery_run.add_extras(run, [item.stimulus_id for item in read_content(run).items])
    first = read_content(run)
    kinds = [replace(item, concept=("bird", "fish", "fish")[k % 3]) for k, item in enumerate(first.items)]
    return [replace(first, items=tuple(kinds)), second]


@pytest.fixture(scope="module")
def data(contents: list[Content]) -> dict[str, Any]:
    return page_data(contents)


@pytest.fixture(scope="module")
def page(contents: list[Content], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "gallery with a space.html"
    path.write_text(draw_page(contents), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(chromium: Browser, page: Path) -> Iterator[Browser]:
    """The page just loaded; afterwards it must have met no fault and asked for nothing but itself."""
    chromium.open(page)
    yield chromium
    assert chromium.faults == []
    assert chromium.asked == [page.as_uri()]


def choose(opened: Browser, name: str, value: str | int, event: str = "change") -> None:
    """What a person does to a select or a slider."""
    act = f"e.value = {str(value)!r}; e.dispatchEvent(new Event({event!r}));"
    opened.js(f"(e => {{ {act} }})(document.getElementById({name!r}))")
    opened.settle()


def click(opened: Browser, selector: str) -> None:
    opened.js(f"document.querySelector({selector!r}).click()")
    opened.settle()


def by_rule(run: dict[str, Any], name: str, best_first: bool = True) -> list[str]:
    """Ids in the order of one score, ties by the scores of the rule, then by the order of the split."""
    better = {metric: entry["better"] for metric, entry in run["report"]["reconstruction"].items()} | {"rank": "lower"}
    names = [name, *(other for other in run["rule"] if other != name)]

    def key(item: dict[str, Any]) -> tuple[float, ...]:
        values = [item["rank"] if n == "rank" else item["scores"][n] for n in names]
        signs = [1 if (better[n] == "lower") == best_first else -1 for n in names]
        return tuple(sign * value for sign, value in zip(signs, values, strict=True))

    return [item["id"] for item in sorted(run["items"], key=key)]


def test_everything_of_a_run_is_on_its_card(opened: Browser, data: dict[str, Any]) -> None:
    run = data["runs"][0]
    count = "[...document.querySelectorAll('.item')].map(item => item.querySelectorAll('.KIND').length)"
    ids = opened.js(SHOWN)
    items = {item["id"]: item for item in run["items"]}
    assert opened.js(COUNT) == "24 of 24" and len(ids) == 24
    for kind, wanted in (
        ("enlarge.others", lambda item: 2),
        ("enlarge.low", lambda item: int(item["low_level"] is not None)),
        ("enlarge.evidence", lambda item: 2 * int(item["evidence"] is not None)),
        ("enlarge.controls", lambda item: 9),
        ("enlarge.retrieved", lambda item: 5),
    ):
        assert opened.js(count.replace("KIND", kind)) == [wanted(items[name]) for name in ids], kind
    captions = opened.js("[...document.querySelectorAll('.item')].map(i => i.querySelector('.main').textContent)")
    lit = [f"evidence {int(100 * items[name]['lit'] + 0.5)} %" if items[name]["lit"] else "" for name in ids]
    assert all(text in caption for text, caption in zip(lit, captions, strict=True))
    scores = opened.js("[...document.querySelectorAll('.item')].map(i => i.querySelector('.scores').textContent)")
    assert all(f"{items[n]['scores']['two_way']:.3f}" in text for n, text in zip(ids, scores, strict=True))
    source = opened.js("[...document.querySelectorAll('.item')].map(i => i.querySelectorAll('.main img')[1].src)")
    assert source == [data["images"][items[name]["reconstructed"]] for name in ids]


def test_rule_of_the_evidence_is_text_and_never_markup(opened: Browser) -> None:
    opened.press("?")
    assert gallery_run.RULE in opened.js("document.getElementById('words').innerText")
    assert opened.js("document.querySelectorAll('#words b').length") == 0


def test_the_audit_stands_on_top(opened: Browser) -> None:
    first = opened.js("document.querySelector('#panels > *').innerText")
    assert "audit: clear" in first and "of 21 checks were made" in first and "No sign of a leak" in first
    told = opened.js("[...document.querySelectorAll('.findings tbody tr')].map(row => row.cells[1].textContent)")
    assert len(told) == 21 and told == sorted(told, key=["leak", "suspect", "clear", "not checked"].index)


def test_a_walk_with_keys(opened: Browser, data: dict[str, Any]) -> None:
    order = by_rule(data["runs"][0], "two_way")
    focused = "document.activeElement.querySelector('.id')?.textContent"
    opened.press("j")
    assert opened.js(focused) == order[0]
    opened.press("ArrowDown", "j", "k")
    assert opened.js(focused) == order[1]
    style = "getComputedStyle(document.activeElement)"
    assert opened.js(f"{style}.outlineStyle") == "solid" and opened.js(f"parseFloat({style}.outlineWidth)") >= 2
    box = opened.js("(({top, bottom}) => [top, bottom])(document.activeElement.getBoundingClientRect())")
    bar = opened.js("document.querySelector('.bar').getBoundingClientRect().bottom")
    assert bar <= box[0] and box[1] <= 900, "the stimulus is hidden by the bar or below the window"
    assert opened.js("document.querySelectorAll('.item[tabindex=\"0\"]').length") == 1
    opened.press("Enter")
    assert opened.js(OPEN)
    opened.press("Escape")
    assert not opened.js(OPEN) and opened.js(focused) == order[1]
    opened.press("/")
    assert opened.js("document.activeElement.id") == "filter"
    opened.press("j", "o", "?")
    assert opened.js("document.getElementById('filter').value") == "jo?" and not opened.js("help.open")


def test_tab_reaches_the_pictures_and_enter_enlarges(opened: Browser) -> None:
    opened.press("Tab", "Enter")  # the first stop skips everything before the pictures
    assert opened.js("document.activeElement.className").startswith("item")
    opened.press("Tab", "Enter")
    assert opened.js(OPEN)


def test_help_names_every_key_and_letters_can_be_switched_off(opened: Browser) -> None:
    opened.press("?")
    assert opened.js("help.open")
    keys = opened.js("[...document.querySelectorAll('#keys kbd')].map(key => key.textContent)")
    assert set(keys) == {"↓", "↑", "j", "k", "Enter", "←", "→", "/", "o", "c", "s", "t", "?", "Esc"}
    click(opened, "#letters")
    opened.press("Escape", "t", "?")
    assert not opened.js("help.open") and opened.js("document.documentElement.dataset.theme") == "light"
    opened.press("ArrowDown")
    assert opened.js("document.activeElement.className").startswith("item")


def test_enlarged_pictures_move_on(opened: Browser, data: dict[str, Any]) -> None:
    run = data["runs"][0]
    order = by_rule(run, "two_way")
    items = {item["id"]: item for item in run["items"]}
    first, second = items[order[0]], items[order[1]]
    images = data["images"]
    opened.press("j", "Enter")
    assert opened.js(LARGE) == [images[first["seen"]], images[first["reconstructed"]]]
    opened.press("ArrowRight")
    assert opened.js(LARGE) == [images[first["seen"]], images[first["others"][0][1]]]
    told = opened.js("document.getElementById('zoom-where').textContent")
    assert told.startswith("seed 1: picture 3 of ") and f"stimulus 1 of 24 ({order[0]})" in told
    opened.press("ArrowLeft", "ArrowLeft")
    assert opened.js(LARGE) == [images[first["seen"]]]
    opened.press("ArrowLeft")  # round to the last: the fifth retrieved picture
    assert opened.js(LARGE)[-1] == images[run["candidates"][first["retrieved"][4]][0]]
    opened.press("ArrowUp")
    assert opened.js("document.getElementById('zoom-title').textContent") == first["caption"], "none is before it"
    opened.press("Home", "ArrowRight", "ArrowDown")
    assert opened.js(LARGE) == [images[second["seen"]], images[second["reconstructed"]]]
    assert opened.js("document.getElementById('zoom-title').textContent") == second["caption"]
    opened.press("Escape")
    assert opened.js("document.activeElement.querySelector('.id').textContent") == order[1]
    click(opened, ".item .enlarge.controls")
    assert opened.js(OPEN) and opened.js(LARGE)[-1] == images[first["controls"][0]]


def test_filters_count(opened: Browser, data: dict[str, Any]) -> None:
    run = data["runs"][0]

    def matching(test: Callable[[dict[str, Any]], bool]) -> set[str]:
        return {item["id"] for item in run["items"] if test(item)}

    word = run["items"][0]["caption"].split()[1]
    choose(opened, "filter", f" {word.upper()} ", "input")
    wanted = matching(lambda item: any(word in item[part].lower() for part in ("id", "caption", "concept")))
    assert 0 < len(wanted) < 24 and set(opened.js(SHOWN)) == wanted and opened.js(COUNT) == f"{len(wanted)} of 24"
    choose(opened, "concept", "fish")
    both = wanted & matching(lambda item: item["concept"] == "fish")
    assert set(opened.js(SHOWN)) == both and opened.js(COUNT) == f"{len(both)} of 24"
    opened.press("c")
    assert opened.js(COUNT) == "24 of 24" and opened.js("document.getElementById('filter').value") == ""
    assert opened.js("document.getElementById('clear').hidden")
    assert opened.js("[...concept.options].map(option => option.text)") == ["all", "bird (8)", "fish (16)"]
    for group in ("best", "median", "worst"):
        click(opened, f"[data-group={group}]")
        assert set(opened.js(SHOWN)) == matching(lambda item, group=group: item["group"] == group)
    click(opened, "[data-group=all]")
    choose(opened, "filter", "no such thing", "input")
    assert opened.js(COUNT) == "0 of 24"
    assert "No stimulus matches" in opened.js("document.getElementById('list').innerText")
    opened.press("j", "Enter")
    assert not opened.js(OPEN)
    click(opened, "#clear")
    assert opened.js(COUNT) == "24 of 24"


@pytest.mark.parametrize("name", ["PixCorr", "rank"])
def test_the_range_of_a_score(name: str, opened: Browser, data: dict[str, Any]) -> None:
    run = data["runs"][0]
    values = {item["id"]: item["rank"] if name == "rank" else item["scores"][name] for item in run["items"]}
    least, most = min(values.values()), max(values.values())
    choose(opened, "metric", name)
    assert opened.js(COUNT) == "24 of 24"
    choose(opened, "low", 30, "input")
    choose(opened, "high", 80, "input")
    low, high = least + 0.3 * (most - least), least + 0.8 * (most - least)
    wanted = {key for key, value in values.items() if low <= value <= high}
    assert 0 < len(wanted) < 24 and set(opened.js(SHOWN)) == wanted
    digits = 0 if name == "rank" else 2
    assert opened.js("range.textContent") == f"{low:.{digits}f} to {high:.{digits}f}"
    assert opened.js("low.getAttribute('aria-valuetext')") == f"{low:.{digits}f}"
    assert opened.js("document.querySelectorAll('#spread rect').length") == 24
    choose(opened, "low", 95, "input")
    assert opened.js("low.value") == "80", "the lower end stops at the upper one"
    choose(opened, "metric", "SSIM")
    assert opened.js(COUNT) == "24 of 24" and opened.js("[low.value, high.value]") == ["0", "100"]


def test_every_order(opened: Browser, data: dict[str, Any]) -> None:
    run = data["runs"][0]
    ids = [item["id"] for item in run["items"]]
    names = opened.js("[...sort.options].map(option => option.value)")
    assert names == [*run["report"]["reconstruction"], "rank", "id"]
    for name in names:
        choose(opened, "sort", name)
        assert opened.js(SHOWN) == (ids if name == "id" else by_rule(run, name)), name
        opened.press("o")
        assert opened.js(SHOWN) == (ids[::-1] if name == "id" else by_rule(run, name, best_first=False)), name
        opened.press("o")
    assert opened.js("document.querySelector('.item .by')") is None
    choose(opened, "sort", "rank")
    assert opened.js("document.querySelector('.item .by').textContent") == "rank"


def test_subjects_are_switched(opened: Browser, data: dict[str, Any]) -> None:
    second = data["runs"][1]
    pressed = "[...document.querySelectorAll('#runs button')].map(b => [b.textContent, b.getAttribute('aria-pressed')])"
    assert opened.js(pressed) == [["01", "true"], ["02", "false"]]
    choose(opened, "sort", "PixCorr")
    choose(opened, "concept", "fish")
    click(opened, "#runs button:nth-child(2)")
    assert opened.js(pressed) == [["01", "false"], ["02", "true"]]
    assert opened.js(COUNT) == "10 of 10" and opened.js(SHOWN) == by_rule(second, "PixCorr")
    assert opened.js("document.title").endswith("subject 02")
    assert "subject 02" in opened.js("facts.innerText || document.getElementById('facts').innerText").replace("\n", " ")
    assert opened.js("document.querySelectorAll('.enlarge.evidence, .enlarge.others').length") == 0
    shows = "[...document.querySelectorAll('#shows label')].filter(label => !label.hidden).map(l => l.dataset.name)"
    assert opened.js(shows) == ["controls", "retrieved"]
    opened.press("s")
    assert opened.js(COUNT) == "24 of 24" and opened.js("sort.value") == "PixCorr"
    assert opened.js(shows) == ["others", "low", "evidence", "controls", "retrieved"]
    assert "Subjects" in opened.js("document.getElementById('panels').innerText")


def test_a_page_of_one_run_has_no_switch(chromium: Browser, contents: list[Content], tmp_path: Path) -> None:
    path = tmp_path / "one.html"
    path.write_text(draw_page(contents[1:]), encoding="utf-8")
    chromium.open(path)
    assert chromium.js("document.getElementById('runs').hidden")
    assert chromium.js("document.querySelectorAll('.item.rich').length") == 0
    assert chromium.faults == []


def test_columns_and_size(opened: Browser) -> None:
    for name in ("others", "low", "evidence", "controls", "retrieved"):
        visible = f"[...document.querySelectorAll('.enlarge.{name}')].filter(e => e.checkVisibility()).length"
        before = opened.js(visible)
        click(opened, f"#show-{name}")
        assert before > 0 and opened.js(visible) == 0, name
        click(opened, f"#show-{name}")
        assert opened.js(visible) == before
    width = "document.querySelector('.main img').getBoundingClientRect().width"
    assert opened.js(width) == 112
    choose(opened, "size", 200, "input")
    assert opened.js(width) == 200


UNTIL_DARK = """new Promise(done => {
  const until = Date.now() + 5000;
  const dark = () => document.documentElement.dataset.theme === "dark";
  const look = () => dark() || Date.now() > until ? setTimeout(done) : requestAnimationFrame(look);
  look();
})"""  # the page is told of another scheme with one of the next frames


def test_both_themes(chromium: Browser, page: Path) -> None:
    theme = "document.documentElement.dataset.theme"
    paper = "getComputedStyle(document.body).backgroundColor"
    for dark, name in ((True, "dark"), (False, "light")):
        chromium.open(page, dark=dark)
        assert chromium.js(theme) == name
    light = chromium.js(paper)
    chromium.scheme("dark")
    chromium.js(UNTIL_DARK)
    assert chromium.js(theme) == "dark" and chromium.js(paper) != light, "the page follows the system"
    chromium.press("t")
    assert chromium.js(theme) == "light" and chromium.js(paper) == light
    click(chromium, "#theme")
    assert chromium.js(theme) == "dark"
    chromium.open(page, fragment="#dark")
    assert chromium.js(theme) == "dark"
    assert chromium.faults == []


def test_nothing_moves_by_itself(opened: Browser) -> None:
    """So there is nothing to switch off for people who ask for less motion."""
    assert opened.js("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    opened.press("j", "Enter", "ArrowRight")
    assert opened.js("document.getAnimations().length") == 0
    moving = "[...document.querySelectorAll('*')].filter(e => parseFloat(getComputedStyle(e).transitionDuration) > 0)"
    assert opened.js(f"{moving}.length") == 0


def named_parts(opened: Browser) -> dict[str, list[str]]:
    """Role to names of everything that assistive technology is told of."""
    roles: dict[str, list[str]] = {}
    for part in opened.call("Accessibility.getFullAXTree")["nodes"]:
        if not part["ignored"]:
            roles.setdefault(part["role"]["value"], []).append(part.get("name", {}).get("value", "").strip())
    return roles


def test_everything_has_a_name_and_a_place(opened: Browser) -> None:
    roles = named_parts(opened)
    for landmark in ("banner", "main", "search", "contentinfo", "feed", "status"):
        assert len(roles.get(landmark, [])) >= 1, landmark
    assert len(roles["slider"]) == 3 and len(roles["combobox"]) == 3 and len(roles["checkbox"]) == 5
    opened.press("j", "Enter")
    enlarged = named_parts(opened)
    assert len(enlarged["dialog"]) == 1 and len(enlarged["button"]) >= 15
    opened.press("Escape", "?")
    explained = named_parts(opened)
    assert explained["dialog"] == ["Keys"] and len(explained["checkbox"]) >= 1
    for found in (roles, enlarged, explained):
        for role in ("button", "checkbox", "combobox", "slider", "searchbox", "article", "region", "dialog"):
            assert all(found.get(role, [])), role
    assert opened.js("[...document.images].every(image => image.hasAttribute('alt'))")
    assert opened.js("[...document.querySelectorAll('.stack > img:first-child')].every(image => image.alt.trim())")
    assert opened.js("[...document.querySelectorAll('[role=group]')].every(part => part.ariaLabel)")
    assert opened.js("document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_nothing_sticks_out(width: int, chromium: Browser, page: Path) -> None:
    chromium.open(page, width=width, height=844)
    assert chromium.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    out = "e => e.getBoundingClientRect().right > innerWidth + 1"
    found = f"[...document.querySelectorAll('.bar *, .item *')].filter({out}).map(e => e.outerHTML.slice(0, 80))"
    assert chromium.js(found) == []
    chromium.press("j", "Enter")
    box = chromium.js(f"(({{left, right, bottom}}) => [left, right, bottom])({ZOOM})")
    assert box[0] >= 0 and box[1] <= width and box[2] <= 844
    assert chromium.js("(e => e.scrollWidth <= e.clientWidth)(document.getElementById('zoom'))")


def colours(theme: str) -> dict[str, tuple[int, ...]]:
    style = (PROJECT / "recon" / "gallery" / "page.css").read_text(encoding="utf-8")
    block = style.split('[data-theme="dark"]')[1] if theme == "dark" else style
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6});", block.split("}")[0])
    return {name: tuple(int(value[k : k + 2], 16) for k in (0, 2, 4)) for name, value in found}


def contrast(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """WCAG 2.2, 1.4.3: (L1 + .05) / (L2 + .05) of relative luminances."""

    def luminance(colour: tuple[int, ...]) -> float:
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    one, two = sorted((luminance(a), luminance(b)))
    return (two + 0.05) / (one + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_text_and_of_controls(theme: str) -> None:
    assert contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)
    known = colours(theme)
    for text in ("ink", "muted", "accent", "clear", "middle", "bad"):
        for ground in ("paper", "card"):
            assert contrast(known[text], known[ground]) >= 4.5, (text, ground)
    assert contrast(known["accent-ink"], known["accent"]) >= 4.5
    for ground in ("paper", "card"):
        assert contrast(known["edge"], known[ground]) >= 3, ("edge", ground)
