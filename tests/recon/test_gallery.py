"""Both galleries of a real tiny run: what they show, by which rule, and that the page needs nothing else."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.checkpoint import Run
from align.errors import UserError
from recon import gallery
from recon.evaluation import metrics, report
from recon.evaluation.settings import EvaluateConfig
from recon.gallery.content import Content, choose, ordered, read_content
from recon.gallery.page import draw_page, page_data
from tests.recon import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("gallery")
    made = tiny_run.make_run(folder)
    tiny_run.add_pictures(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PIXEL_SIZE", 64)  # quicker; the true size is tested with the metrics
        patch.setenv("TORCH_HOME", str(folder / "no weights"))
        patch.setattr(report, "load_judge", lambda name, settings: tiny_run.pixel_judge())
        report.evaluate_run(made, settings=EvaluateConfig(n_boot=100, n_perm=99))
    return made


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
    from align.data.rendering import picture

    for item in content.items:
        assert np.array_equal(content.seen[item.stimulus_id], picture(item.stimulus_id.split(" ")[0]))
        assert np.corrcoef(item.reconstructed.ravel(), content.seen[item.stimulus_id].ravel())[0, 1] > 0.1
        assert len(item.retrieved) == 5
        assert (item.retrieved[0] == item.stimulus_id) == (item.rank == 1)
    assert content.controls[0] == "oracle"
    assert len(content.controls) == 9


def test_sheet_shows_the_chosen_and_every_pair(content: Content, tmp_path: Path, run: Run) -> None:
    gallery.write_sheet(run, tmp_path / "sheet.png")
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
    gallery.write_page(run, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = parsed(text)
    assert not re.search(r"(https?|file|ftp):", page.data["data"])
    assert not [tag for tag, attributes in page.tags if "src" in attributes or "href" in attributes]
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    labelled = [a for tag, a in page.tags if tag == "select" or tag == "input"]
    assert len(labelled) == 5
    data = json.loads(page.data["data"])
    assert len(data["items"]) == tiny_run.N_TEST
    first = data["items"][0]
    picture = Image.open(io.BytesIO(base64.b64decode(data["images"][first["reconstructed"]].split(",")[1])))
    assert picture.size == (64, 64)


def test_equal_pictures_are_kept_once(content: Content) -> None:
    data = page_data(content)
    grey = [control["name"] for control in data["controls"]].index("grey")
    assert len({item["controls"][grey] for item in data["items"]}) == 1
    own_first = [item for item in data["items"] if item["rank"] == 1]
    assert all(data["candidates"][item["retrieved"][0]][0] == item["seen"] for item in own_first)


def test_two_hundred_stimuli_stay_below_ten_megabytes(content: Content) -> None:
    rng = np.random.default_rng(0)
    data = page_data(content)
    noise = rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    hard = np.asarray(Image.fromarray(noise).resize((128, 128), Image.Resampling.NEAREST))
    from recon.gallery.page import _encode

    pictures_of_one = 2 + len(content.controls) - 2  # grey and mean image are shared
    assert 200 * pictures_of_one * len(_encode(hard)) * 4 / 3 < 10e6
    assert len(draw_page(content)) / len(data["items"]) * 200 < 10e6


def test_text_of_a_study_cannot_leave_the_data(content: Content) -> None:
    from dataclasses import replace

    evil = replace(content.items[0], caption="</script><script>alert(1)</script><!-- & \u2028")
    page = parsed(draw_page(replace(content, items=(evil, *content.items[1:]))))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert json.loads(page.data["data"])["items"][0]["caption"] == evil.caption


def test_gallery_names_the_command_that_is_missing(run: Run, tmp_path: Path) -> None:
    from dataclasses import replace

    shutil.copy(run.path / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match="recon evaluate --subject 01"):
        gallery.gallery(replace(run, path=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_page_works_in_a_browser(run: Run, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium: no browser on the path")
    page = tmp_path / "page.html"
    gallery.write_page(run, page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=60)
    found = done.stdout
    assert found.count('<article class="item"') == tiny_run.N_TEST
    assert 'id="count" role="status" aria-live="polite">24 of 24<' in found
    assert "Retrieved by the brain" in found
