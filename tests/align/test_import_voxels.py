"""Sessions and people whose files hold other voxels, and events whose rows may be those of other volumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.check import check_study, format_report
from align.data.importing import parts
from align.data.studies import open_study
from align.files import read_json
from tests.align.fixture_import import imported, read_folder, write_pictures, write_table
from tests.align.test_import_betas import save
from tests.one_line import fails

SHAPE = (3, 4, 5)
NAMES = ["a.png", "b.png", "c.png", "d.png"]
MASK = np.random.default_rng(2).random(SHAPE) < 0.6
PLACES = [tuple(place) for place in np.argwhere(MASK).tolist()]


class Lab:
    """Files of one laboratory in ``folder``, and the command that imports them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = write_pictures(folder / "pictures", NAMES)
        self.mask = save(folder / "mask.nii.gz", MASK.astype(np.uint8))

    def session(self, name: str, empty: tuple[int, ...] = (), zeros: tuple[int, ...] = (), **columns: Any) -> Any:
        """Betas and events; voxels of the mask, by number, that are NaN or 0 throughout."""
        x = np.random.default_rng(list(name.encode())).normal(size=(*SHAPE, 4)).astype(np.float32)
        for voxels, value in ((empty, np.nan), (zeros, 0)):
            for i in voxels:
                x[PLACES[i]] = value
        split = ["train", "train", "train", "test"]
        table = {"onset": [1, 2, 10, 12], "stim_file": NAMES, "split": split, **columns}
        events = write_table(self.folder / f"{name}_events.tsv", table)
        return save(self.folder / f"{name}_betas.nii.gz", x), events, x

    def run(self, files: list[Any], *more: object, mask: Path | None = None) -> dict[str, Any]:
        """Into ``out``."""
        given = ["--betas", *(file[0] for file in files), "--events", *(file[1] for file in files)]
        out = self.folder / "out"
        return imported(*given, "--mask", mask or self.mask, "--images", self.images, "--out", out, *more)

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted((self.folder / "out").rglob("*")) if path.is_file()}

    @property
    def info(self) -> Any:
        return read_json(self.folder / "out" / "info.json")

    def report(self) -> dict[str, Any]:
        """Of `recon data check`."""
        config = load_config(Config, None, ["study.name=folder", f"study.root={self.folder / 'out'}"])
        return check_study(open_study(config))


@pytest.fixture
def lab(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Lab:
    caplog.set_level("INFO", logger="align")
    return Lab(tmp_path)


def _rows(x: np.ndarray, voxels: list[int]) -> np.ndarray:
    return np.array([[x[(*PLACES[i], row)] for i in voxels] for row in range(3)])


@pytest.mark.parametrize("second", [(3, 6), (3, 6, 8)])
def test_what_is_empty_in_one_session_leaves_all(
    second: tuple[int, ...], lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    files = [lab.session("one", (1, 3)), lab.session("two", second[:-1], second[-1:])]
    lab.run(files, "--subject", "01", "--drop-empty")
    lost = {1, 3, *second}
    kept = [i for i in range(len(PLACES)) if i not in lost]
    x = read_folder(lab.folder / "out").train.x
    np.testing.assert_array_equal(x, np.concatenate([_rows(file[2], kept) for file in files]))
    told = f"subject 01: left out {len(lost)} of {len(PLACES)} voxels that are empty in every trial of one of 2 files"
    assert f"{told} (2, {len(second)})" in caplog.text
    (entry,) = lab.info["voxels"]
    flat = [int(np.ravel_multi_index(PLACES[i], SHAPE)) for i in range(len(PLACES))]
    for key, voxels in (("kept", kept), ("empty", sorted(lost))):
        assert [first + i for first, n in entry[key] for i in range(n)] == [flat[i] for i in voxels]


def test_people_lose_their_own_empty_voxels_alone(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    files = [lab.session("a1", (1,)), lab.session("b1", (2,)), lab.session("a2", (3,)), lab.session("b2", (5,))]
    lab.run(files, "--subject", "A", "B", "A", "B", "--drop-empty")
    for who, one, two, lost in (("A", 0, 2, {1, 3}), ("B", 1, 3, {2, 5})):
        kept = [i for i in range(len(PLACES)) if i not in lost]
        expected = np.concatenate([_rows(files[one][2], kept), _rows(files[two][2], kept)])
        np.testing.assert_array_equal(read_folder(lab.folder / "out", who).train.x, expected)
    n = len(PLACES) - 2
    assert f"subjects A and B have other voxels (2 of {n} are missing, 2 are new)" in caplog.text
    assert [entry["subjects"] for entry in lab.info["voxels"]] == [["A"], ["B"]]


@pytest.mark.parametrize("later", [(2, 4), (2,)])
def test_a_later_session_with_other_voxels_is_refused(later: tuple[int, ...], lab: Lab) -> None:
    lab.run([lab.session("one", (1, 3))], "--subject", "01", "--drop-empty")
    before = lab.files()
    more = ["--subject", "01", "--append", "--drop-empty"]
    said = fails(
        rf"subject 01: .*keeps other voxels than .*\({len(later)} of {len(PLACES) - 2} are missing, 2 are new\)",
        lambda: lab.run([lab.session("two", later)], *more),
    )
    assert "import all sessions of this person at once" in said and lab.files() == before
    assert lab.run([lab.session("three", (1, 3))], *more)["trials"] == 8


def test_a_mask_of_the_same_size_is_another_mask(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    other = MASK.copy()
    other[PLACES[0]], other[tuple(np.argwhere(~MASK)[0])] = False, True
    mask = save(lab.folder / "other.nii.gz", other.astype(np.uint8))
    lab.run([lab.session("one")], "--subject", "01")
    before = lab.files()
    fails(
        rf"keeps other voxels than .*\(1 of {len(PLACES)} are missing, 1 are new\)",
        lambda: lab.run([lab.session("two")], "--subject", "01", "--append", mask=mask),
    )
    assert lab.files() == before
    lab.run([lab.session("two")], "--subject", "02", "--append")
    assert "have other voxels" not in caplog.text and lab.info["voxels"][0]["subjects"] == ["01", "02"]
    lab.run([lab.session("three")], "--subject", "03", "--append", mask=mask)
    told = {record.getMessage() for record in caplog.records if "have other voxels" in record.getMessage()}
    assert len(told) == 1 and "subjects 01 and 03 have other voxels (1 of" in told.pop()
    assert [entry["subjects"] for entry in lab.info["voxels"]] == [["01", "02"], ["03"]]
    assert len(read_folder(lab.folder / "out", "03").train) == 3


def test_another_grid_of_the_same_person_is_refused(lab: Lab) -> None:
    lab.run([lab.session("one")], "--subject", "01")
    _, events, x = lab.session("two")
    affine = np.diag([2.0, 2, 2, 1])
    mask = save(lab.folder / "mask2.nii.gz", MASK.astype(np.uint8), affine)
    moved = save(lab.folder / "moved.nii.gz", x, affine), events
    fails("the affines differ", lambda: lab.run([moved], "--subject", "01", "--append", mask=mask))


def test_folders_of_older_imports_are_read_and_added_to(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.run([lab.session("one")], "--subject", "01")
    (lab.folder / "out" / "info.json").unlink()
    lab.run([lab.session("two")], "--subject", "01", "--append")
    assert "does not say which voxels it holds" in caplog.text and not (lab.folder / "out" / "info.json").exists()
    lab.run([lab.session("three")], "--subject", "02", "--append")
    assert [entry["subjects"] for entry in lab.info["voxels"]] == [["02"]]
    assert len(read_folder(lab.folder / "out").train) == 6


def test_a_killed_append_leaves_nobody_behind(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after info.json and before the table: the person may come again with other voxels."""
    lab.run([lab.session("one", (1,))], "--subject", "01", "--drop-empty")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            lab.run([lab.session("two", (2,))], "--subject", "02", "--append", "--drop-empty")
    assert [entry["subjects"] for entry in lab.info["voxels"]] == [["01"], ["02"]]
    lab.run([lab.session("three", (4,))], "--subject", "02", "--append", "--drop-empty")
    assert [entry["subjects"] for entry in lab.info["voxels"]] == [["01"], ["02"]]


@pytest.mark.parametrize("change", [{"voxels": 3}, {"voxels": [{"subjects": ["01"]}]}, {"notes": "text"}, "kept"])
def test_a_damaged_entry_is_one_line(change: Any, lab: Lab) -> None:
    lab.run([lab.session("one")], "--subject", "01")
    entry = lab.info["voxels"][0]
    change = {"voxels": [{**entry, "kept": [[1, 2, 3]]}]} if change == "kept" else change
    (lab.folder / "out" / "info.json").write_text(json.dumps({**lab.info, **change}))
    fails(
        "info.json.* is damaged or of another program",
        lambda: lab.run([lab.session("two")], "--subject", "01", "--append"),
    )


def test_regions_that_are_not_given_again_are_asked_for(lab: Lab) -> None:
    roi = save(lab.folder / "v1.nii.gz", MASK.astype(np.uint8))
    label = save(lab.folder / "labels.nii.gz", np.indices(SHAPE)[0].astype(np.int16))
    more = ["--subject", "01", "--append"]
    lab.run([lab.session("one")], "--subject", "01", "--roi", f"V1={roi}", label)
    said = fails(
        r"holds regions \(V1, label-1, label-2\).*give --roi again", lambda: lab.run([lab.session("t")], *more)
    )
    assert "[" not in said
    fails(
        r"differ in the regions label-1, label-2, A, B; give the --roi",
        lambda: lab.run([lab.session("t")], *more, "--roi", f"V1={roi}", label, "--roi-names", "1=A", "2=B"),
    )
    assert lab.run([lab.session("t")], *more, "--roi", f"V1={roi}", label)["trials"] == 8
    report = lab.report()
    sizes = {f"label-{k}": sum(place[0] == k for place in PLACES) for k in (1, 2)}
    assert report["subjects"]["01"]["regions"] == {"V1": len(PLACES), **sizes}
    assert f"regions    V1 {len(PLACES)}, label-1 {sizes['label-1']}, " in format_report(report)


def test_regions_for_a_folder_without_any_are_refused(lab: Lab) -> None:
    lab.run([lab.session("one")], "--subject", "01")
    again = ["--subject", "01", "--append", "--roi", f"V1={lab.mask}"]
    fails("holds no regions; leave --roi out", lambda: lab.run([lab.session("two")], *again))


def test_a_label_image_is_no_mask_of_one_region(lab: Lab) -> None:
    labels = save(lab.folder / "labels.nii.gz", (np.indices(SHAPE)[2] % 4).astype(np.int16))
    fails(
        r"--roi V1=.*labels.nii.gz: a named mask is 0 and 1, .* codes 1, 2, 3; .*--roi .*labels.nii.gz "
        "--roi-names 1=V1 ...",
        lambda: lab.run([lab.session("one")], "--roi", f"V1={labels}"),
    )
    assert not (lab.folder / "out").exists()
    outside = save(lab.folder / "brain.nii.gz", np.where(MASK, 1, -1).astype(np.int16))
    fails("has the codes -1, 1; .*1=V1", lambda: lab.run([lab.session("one")], "--roi", f"V1={outside}"))
    seven = save(lab.folder / "seven.nii.gz", np.where(MASK, 7, 0).astype(np.int16))
    lab.run([lab.session("one")], "--roi", f"V1={seven}")
    assert len(lab.info["roi"]["V1"]) == len(PLACES)


@pytest.mark.parametrize(
    ("name", "columns", "told"),
    [
        ("x", {"onset": [12, 10, 2, 1]}, "do not ascend (first at trial 2): rows must be in the order of the volumes"),
        ("x", {"onset": [1, 10, 2, 12]}, "do not ascend (first at trial 3)"),
        ("x", {"onset": [1, 2, 1, 2], "run": [1, 1, 2, 2]}, ""),
        ("x", {"onset": [1, 2, 2, 1], "run": [1, 1, 2, 2]}, "do not ascend (first at trial 4)"),
        ("x", {"onset": [1, "n/a", 9.5, 10]}, ""),
        ("x", {"session": [1, 1, 1, 1]}, ""),
        ("sub-01_ses-02", {"session": [2, 2, 2, 2]}, ""),
        ("sub-01_ses-02", {"session": ["ses-2"] * 4}, ""),
        ("sub-01_ses-02", {"session": [1, 1, 1, 1]}, "names session '1', 'sub-01_ses-02_betas.nii.gz' session '02'"),
    ],
)
def test_events_in_doubt_are_named_and_kept_in_mind(
    name: str, columns: dict[str, Any], told: str, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.run([lab.session(name, **columns)], "--subject", "01")
    assert told in caplog.text if told else not [one for one in caplog.records if one.levelname == "WARNING"]
    assert [told in text for text in lab.report()["remarks"] if "_events.tsv'" in text] == ([True] if told else [])


def test_events_of_another_session_are_named(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    one, two = lab.session("ses-1"), lab.session("ses-2")
    lab.run([(one[0], two[1])], "--subject", "01")
    assert "'ses-1_betas.nii.gz' and 'ses-2_events.tsv' name two sessions" in caplog.text
    lab.run([(two[0], one[1])], "--subject", "01", "--append")
    assert len(lab.info["notes"]) == 2 and sum("name two sessions" in text for text in lab.report()["remarks"]) == 2


@pytest.mark.parametrize(
    ("names", "run", "told"),
    [
        (("a", "b"), {}, True),
        (("run-1", "run-12"), {}, False),
        (("run-1", "x_run-01"), {}, True),
        (("a", "b"), {"run": 1}, False),
        (("a", "b"), {"run": 0}, True),
    ],
)
def test_two_files_of_one_session(
    names: tuple[str, str], run: dict[str, int], told: bool, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[dict[str, Any]] = [{"run": [1 + i * run["run"]] * 4} if run else {} for i in range(2)]
    files = [lab.session(name, session=[1] * 4, **more) for name, more in zip(names, runs, strict=True)]
    lab.run(files, "--subject", "01")
    assert ("both name session '1': if these are two sessions, mend" in caplog.text) == told
    caplog.clear()
    lab.folder = lab.folder / "people"
    lab.folder.mkdir()
    lab.run(files, "--subject", "01", "02")
    assert "both name session" not in caplog.text
