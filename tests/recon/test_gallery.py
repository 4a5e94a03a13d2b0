"""Both galleries of a real tiny run: what they show, by which rule, and that the page needs nothing else."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.checkpoint import Run
from align.errors import UserError
from recon import gallery
from recon.gallery import album
from recon.gallery.content import Content, choose, ordered, read_content
from recon.gallery.page import draw_page, page_data
from tests.recon import gallery_run, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return gallery_run.scored_run(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def content(run: Run) -> Content:
    return read_content(run)


def test_best_median_and_worst_follow_the_rule(content: Content) -> None:
    assert content.rule == ("two_way", "PixCorr")
    ranked = ordered(content)
    keys = [(item.scores["two_way"], item.scores["PixCorr"]) for item in ranked]
    assert keys == sorted(keys, reverse=True)
    chosen = choose(content, 4)
    assert chosen["best"] == ranked[:4]
    assert chosen["median"] == ranked[10:14]
    assert chosen["worst"] == ranked[20:]
    assert {name: len(items) for name, items in choose(content, 100).items()} == {"best": 8, "median": 8, "worst": 8}


def test_pictures_belong_to_their_stimuli(content: Content, run: Run) -> None:
    from align.data.studies.simulated.rendering import picture

    for item in content.items:
        assert np.array_equal(content.seen[item.stimulus_id], picture(item.stimulus_id.split(" ")[0]))
        assert np.corrcoef(item.reconstructed.ravel(), content.seen[item.stimulus_id].ravel())[0, 1] > 0.1
        assert len(item.retrieved) == 5
        assert (item.retrieved[0] == item.stimulus_id) == (item.rank == 1)
    assert content.controls[0] == "oracle"
    assert len(content.controls) == 9


def test_sheet_shows_the_chosen_and_every_pair(content: Content, tmp_path: Path, run: Run) -> None:
    gallery.save_sheet(content, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    from recon.gallery.sheet import LARGE, MARGIN, TEXT_WIDTH

    best, left = ordered(content)[0], MARGIN + TEXT_WIDTH
    shown = sheet[150 + 70 : 150 + 70 + LARGE, left : left + LARGE]
    expected = np.asarray(
        Image.fromarray(content.seen[best.stimulus_id]).resize((LARGE, LARGE), Image.Resampling.BICUBIC)
    )
    assert np.array_equal(shown, expected)
    assert list(tmp_path.iterdir()) == [tmp_path / "sheet.png"]


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.data: dict[str, str] = {}
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id", tag) if tag == "script" else ""

    def handle_data(self, text: str) -> None:
        if self._inside:
            self.data[self._inside] = self.data.get(self._inside, "") + text


def parsed(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    return page


def test_page_is_whole_and_loads_nothing(run: Run, tmp_path: Path) -> None:
    gallery.save_page([read_content(run)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = parsed(text)
    assert not re.search(r"(https?|file|ftp):", page.data["data"])
    assert not [tag for tag, attributes in page.tags if "src" in attributes or "href" in attributes]
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    labelled = [a for tag, a in page.tags if tag == "select" or tag == "input"]
    assert len(labelled) == 8
    data = json.loads(page.data["data"])["runs"][0] | {"images": json.loads(page.data["data"])["images"]}
    assert len(data["items"]) == tiny_run.N_TEST
    first = data["items"][0]
    picture = Image.open(io.BytesIO(base64.b64decode(data["images"][first["reconstructed"]].split(",")[1])))
    assert picture.size == (64, 64)


def test_equal_pictures_are_kept_once(content: Content) -> None:
    data = page_data([content])["runs"][0]
    grey = [control["name"] for control in data["controls"]].index("grey")
    assert len({item["controls"][grey] for item in data["items"]}) == 1
    own_first = [item for item in data["items"] if item["rank"] == 1]
    assert all(data["candidates"][item["retrieved"][0]][0] == item["seen"] for item in own_first)


def test_a_page_keeps_to_its_budget() -> None:
    """A fiftieth of 200 stimuli x 8 pictures of 256 px, with a fiftieth of the budget."""
    made = album.Album()
    pictures = gallery_run.noise(32, 256)
    numbers = [made.add(pixels) for pixels in pictures]
    assert numbers == list(range(32)) and made.add(pictures[3]) == 3
    budget = album.BUDGET // 50
    first = sum(len(address) for address in made.addresses(budget=10**9))
    addresses = made.addresses(budget)
    length = len(json.dumps(addresses, separators=(",", ":")))
    assert first > budget, "pictures that need no reduction prove nothing"
    assert 0.5 * budget < length <= budget
    assert {decoded(address).size for address in addresses} == {(192, 192)}, "photographs are easier: they keep 256"
    large = np.asarray(decoded(addresses[5]).resize((256, 256)), dtype=float)
    assert np.abs(large - pictures[5]).mean() < 20 < np.abs(large - pictures[6]).mean()


def test_small_pictures_are_kept_as_they_are_and_many_are_made_smaller(caplog: pytest.LogCaptureFixture) -> None:
    made = album.Album()
    for pixels in gallery_run.noise(6, 64):
        made.add(pixels)
    assert {decoded(address).size for address in made.addresses()} == {(64, 64)}
    large = album.Album()
    for pixels in gallery_run.noise(4, 256):
        large.add(pixels)
    assert {decoded(address).size for address in large.addresses(4 * 8000)} == {(128, 128)}
    assert not caplog.records
    large.addresses(400)
    assert "show fewer runs" in caplog.text


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB")


def test_text_of_a_study_cannot_leave_the_data(content: Content) -> None:
    from dataclasses import replace

    evil = replace(content.items[0], caption="</script><script>alert(1)</script><!-- & \u2028")
    page = parsed(draw_page([replace(content, items=(evil, *content.items[1:]))]))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert json.loads(page.data["data"])["runs"][0]["items"][0]["caption"] == evil.caption


def test_gallery_names_the_command_that_is_missing(run: Run, tmp_path: Path) -> None:
    from dataclasses import replace

    shutil.copy(run.path / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match="recon evaluate --subject 01"):
        gallery.gallery(replace(run, path=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
