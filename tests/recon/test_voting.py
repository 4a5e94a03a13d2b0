"""Votes from the page to the scores: what is asked, what the page gives away, how votes are joined, what they say."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align.checkpoint import Run
from recon import cli
from recon.evaluation.judge import Judge
from recon.evaluation.settings import EvaluateConfig
from recon.gallery.content import Content, read_content
from recon.metrics import metrics
from recon.metrics.feature_nets import WeightsMissing
from recon.voting.ballots import COLUMNS, JOINED, Vote, joined_text, read_votes
from recon.voting.crossed import CROSSED, EXACT, Crossed, fleiss
from recon.voting.metric_choices import metric_choices
from recon.voting.page import draw_vote, vote_data
from recon.voting.score import metric_agreement, score_votes
from recon.voting.trials import OWN, Table, Trial, draw_trials, picture_hash, read_table
from tests.one_line import fails
from tests.recon import gallery_run, tiny_run
from tests.recon.test_gallery import decoded, parsed

SETTINGS = EvaluateConfig(n_boot=400, n_perm=199, networks=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return gallery_run.scored_run(tmp_path_factory.mktemp("votes"))


@pytest.fixture(scope="module")
def content(run: Run) -> Content:
    return read_content(run)


@pytest.fixture(scope="module")
def table(content: Content) -> Table:
    return draw_trials(content, 40, 3, ["shuffled"])


def answers(table: Table, choose: Callable[[Trial], str], voter: str = "A") -> list[Vote]:
    return [Vote(voter, table, trial, choose(trial), 1.5) for trial in table.trials]


def other(side: str) -> str:
    return {"left": "right", "right": "left"}[side]


def write_votes(path: Path, table: Table, votes: list[Vote]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([table.hash, v.voter, v.trial.number, v.choice, v.seconds] for v in votes)
    return path


def test_every_stimulus_stands_once_in_every_condition(content: Content, table: Table) -> None:
    by = {name: [t.stimulus_id for t in table.trials if t.condition == name] for name in (OWN, "shuffled")}
    assert len(set(by[OWN])) == len(by[OWN]) == 20 and sorted(by["shuffled"]) == sorted(by[OWN])
    assert [t.number for t in table.trials] == list(range(1, 41))
    assert all((t.left_id == t.stimulus_id) != (t.right_id == t.stimulus_id) for t in table.trials)
    assert 8 < Counter(t.true_side for t in table.trials)["left"] < 32
    conditions = [t.condition for t in table.trials]
    assert conditions != sorted(conditions), "the controls stand in one block"
    shown = {item.stimulus_id: {OWN: item.reconstructed, **item.controls} for item in content.items}
    assert all(t.picture == picture_hash(shown[t.stimulus_id][t.condition]) for t in table.trials)


def test_seed_decides_foils_sides_and_order(content: Content, table: Table) -> None:
    assert draw_trials(content, 40, 3, ["shuffled"]) == table
    assert draw_trials(content, 40, 4, ["shuffled"]).hash != table.hash
    assert len(draw_trials(content).trials) == tiny_run.N_TEST, "40 are not there"
    odd = Counter(t.condition for t in draw_trials(content, 41, 0, ["shuffled"]).trials)
    assert odd == {OWN: 21, "shuffled": 20}


def test_whose_tokens_were_drawn_is_never_the_foil(content: Content) -> None:
    few = replace(content, items=content.items[:3])
    ids = [item.stimulus_id for item in few.items]
    sources = {"shuffled": dict(zip(ids, [*ids[1:], ids[0]], strict=True))}
    for seed in range(20):
        for trial in draw_trials(few, 6, seed, ["shuffled"], sources).trials:
            if trial.condition == "shuffled":
                assert sources["shuffled"][trial.stimulus_id] not in (trial.left_id, trial.right_id)


def test_what_cannot_be_asked(content: Content) -> None:
    fails("--count 49 should be 2 to 48: 24 stimuli", lambda: draw_trials(content, 49, 0, ["shuffled"]))
    fails("--count 0 should be 1 to 24", lambda: draw_trials(content, 0))
    fails("2 reconstructed stimuli are too few", lambda: draw_trials(replace(content, items=content.items[:2])))


def test_page_loads_nothing_and_gives_nothing_away(content: Content, table: Table) -> None:
    text = draw_vote(content, table)
    page = parsed(text)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"(https?|file|ftp):", page.data["data"])
    assert not [tag for tag, attributes in page.tags if "src" in attributes or "href" in attributes]
    data = json.loads(page.data["data"])
    assert set(data) == {"table", "about", "trials", "images"} and len(data["trials"]) == 40
    for item in content.items:
        assert item.stimulus_id not in text and item.caption not in text
    assert not any(f'"{name}"' in page.data["data"] for name in (*content.controls, OWN))
    first = table.trials[0]
    images = [np.asarray(decoded(data["images"][k]), dtype=float) for k in data["trials"][0]]
    for name, image in zip((first.left_id, first.right_id), images[1:], strict=True):
        assert np.abs(image - content.seen[name]).mean() < 10
    assert data == json.loads(json.dumps(vote_data(content, table)))


def test_table_is_known_by_its_content(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(table.text().replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    assert read_table(path) == table and read_table(path).hash == table.hash
    swapped = replace(table.trials[0], left_id=table.trials[0].right_id, right_id=table.trials[0].left_id)
    assert replace(table, trials=(swapped, *table.trials[1:])).hash != table.hash
    path.write_text(table.text().replace(f",{table.trials[4].number},", ",five,"), encoding="utf-8")
    fails("no whole number", lambda: read_table(path))
    path.write_text("\n".join(table.text().splitlines()[:1]), encoding="utf-8")
    fails("should hold the trials of one run", lambda: read_table(path))
    fails("does not exist", lambda: read_table(tmp_path))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0123,A,1,left,1", "vote 1 belongs to table '0123', which is not here"),
        ("HASH,A,41,left,1", "is of trial '41'; its table has 1 to 40"),
        ("HASH,A,x,left,1", "is of trial 'x'"),
        ("HASH,A,1,up,1", "chooses 'up'; left or right"),
        ("HASH, ,1,left,1", "names no voter"),
        ("HASH,A,1,left,soon", "took 'soon' seconds"),
        ("HASH,A,1,left,nan", "took 'nan' seconds"),
        ("HASH,A,1,left", "has a row that is too short"),
        ("HASH,A,1,left,1\nHASH,A,1,right,1", "voter 'A' answers trial 1 twice"),
        ("", "holds no vote"),
    ],
)
def test_votes_that_cannot_be_read(table: Table, tmp_path: Path, row: str, words: str) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("table,voter,trial,choice,seconds\n" + row.replace("HASH", table.hash), encoding="utf-8")
    fails(words, lambda: read_votes([path], [table]))


def test_files_that_hold_no_votes(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_bytes(b"\xff\xfe\x00")
    fails("is no readable CSV", lambda: read_votes([path], [table]))
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    fails("lacks table, voter, trial, choice, seconds: it is no file of votes", lambda: read_votes([path], [table]))


def test_joined_votes_say_what_was_chosen(table: Table, tmp_path: Path) -> None:
    votes = answers(table, lambda trial: "left", 'An, "one"')
    read = read_votes([write_votes(tmp_path / "v.csv", table, votes)], [table])
    assert read == votes
    rows = list(csv.DictReader(joined_text(read).splitlines()))
    assert tuple(rows[0]) == JOINED and rows[0]["voter"] == 'An, "one"'
    for row, trial in zip(rows, table.trials, strict=True):
        assert row["chosen_id"] == trial.left_id and row["true_id"] == trial.stimulus_id == row["stimulus_id"]
        assert row["correct"] == str(int(row["chosen_id"] == row["true_id"])) and row["condition"] == trial.condition


def test_a_voter_who_sees_reconstructions_and_guesses_at_controls(table: Table) -> None:
    side = iter(range(1000))

    def choose(trial: Trial) -> str:
        return trial.true_side if trial.condition == OWN or next(side) % 2 else other(trial.true_side)

    scores = score_votes(answers(table, choose), SETTINGS)
    own, shuffled = scores["conditions"][OWN], scores["conditions"]["shuffled"]
    assert (own["accuracy"], own["n"], own["voters"], own["stimuli"]) == (1, 20, 1, 20) and own["interval"] == EXACT
    assert own["ci95"] == pytest.approx([0.025 ** (1 / 20), 1]) and own["p"] == 1 / 200
    assert shuffled["accuracy"] == 0.5 and shuffled["ci95"][0] < 0.3 and shuffled["p"] > 0.3
    difference = scores["differences"]["shuffled"]
    assert difference["difference"] == 0.5 and difference["stimuli"] == 20
    assert 0.2 < difference["ci95"][0] < 0.5 < difference["ci95"][1] < 0.8 and difference["p"] == 1 / 200
    assert own["median_seconds"] == 1.5 and scores["voter_agreement"] == {"all": None, OWN: None, "shuffled": None}


def test_voters_are_resampled_too(table: Table) -> None:
    """One sees everything, one nothing: another pair of voters could be anything between."""
    votes = answers(table, lambda trial: trial.true_side, "A") + answers(table, lambda t: other(t.true_side), "B")
    scores = score_votes(votes, SETTINGS)
    entry = scores["conditions"][OWN]
    assert entry["accuracy"] == 0.5 and entry["ci95"] == [0, 1] and entry["interval"] == CROSSED and entry["n"] == 40
    assert scores["voter_agreement"][OWN] == {"share": 0, "kappa": pytest.approx(-1, abs=0.1), "trials": 20}
    same = score_votes([*votes[:40], *answers(table, lambda trial: trial.true_side, "C")], SETTINGS)
    assert same["voter_agreement"]["all"] == {"share": 1, "kappa": 1, "trials": 40}
    assert same["conditions"][OWN]["ci95"] == pytest.approx([0.025 ** (1 / 20), 1]), "20 stimuli, not 40 votes"


def test_interval_of_crossed_votes_covers() -> None:
    """Voters and stimuli both differ; an interval over votes alone would hold the truth far more rarely."""
    rng, hits = np.random.default_rng(0), 0
    names, shown = np.repeat(np.arange(12), 20), np.tile(np.arange(20), 12)
    for trial in range(60):
        chance = 0.7 + 0.15 * rng.choice([-1, 1], 12)[names] + 0.1 * rng.choice([-1, 1], 20)[shown]
        values = (rng.random(240) < chance).astype(float)
        crossed = Crossed.of([str(n) for n in names], [str(s) for s in shown], 300, trial)
        (low, high), kind = crossed.interval(values, np.ones(240, dtype=bool))
        assert kind == CROSSED
        hits += low <= 0.7 <= high
    assert hits >= 52


def test_fleiss_kappa_of_his_table() -> None:
    """The worked example of 10 subjects, 14 raters, 5 categories that most texts print: kappa .210."""
    rows = "0 0 0 0 14/0 2 6 4 2/0 0 3 5 6/0 3 9 2 0/2 2 8 1 1/7 7 0 0 0/3 2 6 3 0/2 5 3 2 2/6 5 2 1 0/0 2 2 3 7"
    counts = np.array([[int(word) for word in row.split()] for row in rows.split("/")])
    found = fleiss(counts)
    assert found is not None and round(found["kappa"], 3) == 0.210 and round(found["share"], 3) == 0.378
    assert fleiss(np.array([[1, 0], [0, 1]])) is None
    assert fleiss(np.array([[2, 0]])) == {"share": 1, "kappa": None, "trials": 1}


def test_a_metric_votes_on_the_same_pairs(content: Content, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 64)
    monkeypatch.setattr("recon.voting.metric_choices.OFFLINE", ())
    choices, skipped = metric_choices(content, [table], "mini", SETTINGS)
    assert {"PixCorr", "SSIM"} <= set(choices) and "LPIPS" not in choices
    assert "judge torchvision/squeezenet1_0" in {*skipped, *choices}
    items = {item.stimulus_id: item for item in content.items}
    for trial in table.trials:
        item = items[trial.stimulus_id]
        top = item.reconstructed if trial.condition == OWN else item.controls[trial.condition]
        r = [np.corrcoef(top.ravel(), content.seen[key].ravel())[0, 1] for key in (trial.left_id, trial.right_id)]
        if abs(r[0] - r[1]) > 0.05:  # the metric enlarges before it compares
            assert choices["PixCorr"][table.hash, trial.number] == float(r[0] > r[1])
    asked = {"PixCorr": choices["PixCorr"]}
    follower = answers(table, lambda trial: "left" if asked["PixCorr"][table.hash, trial.number] else "right")
    found = metric_agreement(follower, asked, SETTINGS)["PixCorr"][OWN]
    assert found["agreement"] == 1 and found["n"] == 20 and found["metric_accuracy"] >= 0.9
    m = found["metric_accuracy"]
    assert found["expected"] == pytest.approx(m * m + (1 - m) ** 2)
    ties = metric_agreement(follower, {"none": dict.fromkeys(asked["PixCorr"], 0.5)}, SETTINGS)["none"]["shuffled"]
    assert ties["agreement"] == ties["expected"] == 0.5


def test_judges_of_the_run_choose_by_their_features(
    content: Content, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that took part is left out, one without weights is named; the rest correlate features."""
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 64)
    monkeypatch.setattr(
        "recon.voting.metric_choices.OFFLINE", ("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1")
    )

    def load(name: str, settings: EvaluateConfig) -> Judge:
        if name == "timm/tf_efficientnet_lite1":
            raise WeightsMissing("not here")
        return tiny_run.pixel_judge()

    monkeypatch.setattr("recon.voting.metric_choices.load_judge", load)
    few = replace(table, trials=table.trials[:8])
    choices, skipped = metric_choices(content, [few], "timm/tf_efficientnet_lite0", SETTINGS)
    assert set(choices) == {"PixCorr", "SSIM", "judge torchvision/squeezenet1_0"}
    assert skipped == {
        "judge timm/tf_efficientnet_lite0": "took part in this run",
        "judge timm/tf_efficientnet_lite1": "not here",
    }
    items = {item.stimulus_id: item for item in content.items}

    def coarse(pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).ravel()

    for trial in few.trials:
        item = items[trial.stimulus_id]
        top = coarse(item.reconstructed if trial.condition == OWN else item.controls[trial.condition])
        left, right = (np.corrcoef(top, coarse(content.seen[k]))[0, 1] for k in (trial.left_id, trial.right_id))
        assert choices["judge torchvision/squeezenet1_0"][few.hash, trial.number] == float(left > right)


def test_metrics_are_not_asked_about_other_pictures(content: Content, table: Table) -> None:
    wrong = replace(table.trials[0], picture="0" * 12)
    fails(
        "is no longer the one that was voted on",
        lambda: metric_choices(content, [replace(table, trials=(wrong,))], "mini", SETTINGS),
    )
    strange = replace(table.trials[0], left_id="nothing")
    fails(
        "is about 'nothing'",
        lambda: metric_choices(content, [replace(table, trials=(strange,))], "mini", SETTINGS),
    )


def test_both_commands(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 64)
    monkeypatch.setattr("recon.voting.metric_choices.OFFLINE", ())
    where = ["--run", str(run.path)]
    assert cli.main(["gallery", "--vote", *where, "--count", "12", "--seed", "5", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["trials"] == {OWN: 6, "shuffled": 6} and Path(made["page"]).name == f"vote_sub-01_{made['hash']}.html"
    table = read_table(Path(made["table"]))
    assert table.hash == made["hash"] and table.seed == 5
    votes = write_votes(tmp_path / "v.csv", table, answers(table, lambda trial: trial.true_side))
    words = ["score-votes", str(votes), *where, "evaluate.n_boot=50", "evaluate.networks=false"]
    assert cli.main([*words, "--json", "--out", str(tmp_path / "joined.csv")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["conditions"][OWN]["accuracy"] == 1 and told["tables"] == [table.hash] and told["voters"] == ["A"]
    assert told["metrics"]["PixCorr"][OWN]["n"] == 6 and "text" not in told
    assert len((tmp_path / "joined.csv").read_text(encoding="utf-8").splitlines()) == 13
    assert cli.main(["score-votes", str(votes), "--table", made["table"]]) == 0
    out = capsys.readouterr().out
    assert "reconstructed minus shuffled: +0.000" in out and "PixCorr" not in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gallery", "--vote", "--run", "RUN", "--controls", "nobody"], "no control 'nobody'; it holds oracle"),
        (["gallery", "--vote", "--run", "RUN", "--out", "page.csv"], "its name should end in .html"),
        (["gallery", "--vote", "--run", "RUN", "--run", "RUN"], "the page of one run"),
        (["gallery", "--vote", "--run", "RUN", "--contact", "all"], "without --contact"),
        (["gallery", "--run", "RUN", "--controls", "shuffled"], "--controls belongs to --vote"),
        (["score-votes", "nowhere.csv"], "pass --subject 01, --run RUN or --table"),
        (["score-votes", "nowhere.csv", "--table", "TABLE"], "'nowhere.csv' does not exist"),
        (["score-votes", "VOTES", "--table", "TABLE", "cache_dir=x"], "say where the tables are"),
        (["score-votes", "VOTES", "--run", "RUN", "--table", "OTHER"], "belongs to table"),
        (["score-votes", "STRANGE", "--run", "RUN", "--table", "OTHER"], "are about elsewhere, but the run"),
        (["score-votes", "VOTES", "STRANGE", "--table", "TABLE", "OTHER"], "about different runs"),
    ],
)
def test_mistakes_cost_one_line(
    run: Run, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    strange = replace(table, run="elsewhere")
    for name, one in (("table.csv", table), ("other.csv", strange)):
        (tmp_path / name).write_text(one.text(), encoding="utf-8")
    files = {"RUN": run.path, "TABLE": tmp_path / "table.csv", "OTHER": tmp_path / "other.csv"}
    files["VOTES"] = write_votes(tmp_path / "v.csv", table, answers(table, lambda trial: "left"))
    files["STRANGE"] = write_votes(tmp_path / "s.csv", strange, answers(strange, lambda trial: "left", "B"))
    before = sorted(run.path.iterdir())
    assert cli.main([str(files.get(word, word)) for word in words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"recon {words[0]}: ") and expected in line
    assert sorted(run.path.iterdir()) == before
