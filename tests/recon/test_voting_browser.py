"""The page to vote on in headless Chromium: name, keys, mouse, the way back, and the file that it saves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recon.gallery.content import read_content
from recon.voting.ballots import read_votes
from recon.voting.page import draw_vote
from recon.voting.trials import Table, draw_trials
from tests.recon import gallery_run
from tests.recon.browser import Browser, browser

VISIBLE = "['start', 'ask', 'done'].filter(id => document.getElementById(id).getBoundingClientRect().height > 0)"
WHERE = "document.getElementById('where').textContent"
WAIT = "new Promise(done => setTimeout(done, 250))"  # a choice within 200 ms is no answer


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def made(opened: Browser, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table]:
    """A page of six questions and its table; after the browser, so that nothing is trained where there is none."""
    folder = tmp_path_factory.mktemp("vote")
    content = read_content(gallery_run.scored_run(folder))
    table = draw_trials(content, 6, 0, ["shuffled"])
    page = folder / "vote here.html"
    page.write_text(draw_vote(content, table), encoding="utf-8")
    return page, table


def begin(opened: Browser, name: str) -> None:
    opened.js(f"document.getElementById('voter').value = {name!r}; document.querySelector('#enter button').click()")
    opened.settle()


def test_a_whole_vote(opened: Browser, made: tuple[Path, Table], tmp_path: Path) -> None:
    page, table = made
    opened.open(page)
    assert opened.js(VISIBLE) == ["start"]
    opened.press("ArrowLeft")
    begin(opened, "   ")
    assert opened.js(VISIBLE) == ["start"], "a vote needs a name"
    begin(opened, ' An, "one" ')
    assert opened.js(VISIBLE) == ["ask"]
    shown = "['shown', 'left', 'right'].map(id => data.images.indexOf(document.getElementById(id).src))"
    assert opened.js(shown) == opened.js("data.trials[0]")
    choices = ["left", "right", "right", "left", "left", "right"]
    for k, choice in enumerate(choices):
        opened.js(WAIT)
        assert opened.js(WHERE) == f"Question {k + 1} of 6"
        if k % 2:
            opened.js(f"document.querySelector('[data-choice={choice}]').click()")
        else:
            opened.press({"left": "ArrowLeft", "right": "ArrowRight"}[choice])
    assert opened.js(VISIBLE) == ["done"]
    opened.press("ArrowLeft")
    opened.js("document.getElementById('again').click()")
    assert opened.js(WHERE) == "Question 6 of 6"
    opened.js(WAIT)
    opened.press("ArrowLeft")
    votes = tmp_path / "votes.csv"
    votes.write_text(opened.js("csv()"), encoding="utf-8")
    opened.js("state.saved = true")  # else the page asks whether it may be left
    assert opened.faults == [] and opened.asked == [page.as_uri()]
    read = read_votes([votes], [table])
    assert [vote.choice for vote in read] == [*choices[:5], "left"]
    assert {vote.voter for vote in read} == {'An, "one"'} and all(vote.seconds >= 0.2 for vote in read)


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (1024, 640), (360, 740)])
def test_pictures_fit_the_window(opened: Browser, made: tuple[Path, Table], width: int, height: int) -> None:
    opened.open(made[0], width, height)
    begin(opened, "A")
    box = opened.js("(r => [r.left, r.right, r.bottom])(document.querySelector('.pair').getBoundingClientRect())")
    assert box[0] >= 0 and box[1] <= width and box[2] <= height
    assert opened.js("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
def test_page_follows_the_colours_of_the_system(opened: Browser, made: tuple[Path, Table], dark: bool) -> None:
    opened.open(made[0], dark=dark)
    assert opened.js("document.documentElement.dataset.theme") == ("dark" if dark else "light")
