"""JSON, YAML and CSV of others: bounded, finite, of the shape that is asked for; one line names the file and field."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from align.config import Config, load_config
from align.data.importing.nifti import open_image
from align.data.importing.trials import read_table
from align.data.reading.safe_load import decode_image, load_array
from align.data.studies.folder.table import read_stimuli
from align.errors import UserError
from align.fields.yaml_text import parse_yaml
from align.files import LARGEST_TEXT, read_json, text_of
from align.files.json_text import parse_json, reading, require
from align.files.table import cell, finite, read_rows, text_rows

SHAPE = {"name": str, "n": int, "p?": (float, None), "rows": [{"x": float}], "more?": {str: bool}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[" * 9999, "not valid JSON"),
        ("[" * 300 + "]" * 300, "nested deeper than 100"),
        ('{"a": NaN}', "NaN is no finite number"),
        ('{"a": -Infinity}', "-Infinity is no finite number"),
        ('{"a": 1e999}', "1e999 is no finite number"),
        ('{"a": ' + "9" * 401 + "}", "9999999999... is a whole number of 401 digits, too large"),
        ("[]", "its content is a list instead of an object"),
        ("null", "its content is null instead of an object"),
        ('{"n": 1, "rows": []}', "name is missing"),
        ('{"name": 1, "n": 1, "rows": []}', "name is '1' instead of text"),
        ('{"name": "x", "n": true, "rows": []}', "n is 'True' instead of a whole number"),
        ('{"name": "x", "n": 1.5, "rows": []}', "n is '1.5' instead of a whole number"),
        ('{"name": "x", "n": 1, "rows": {}}', "rows is an object instead of a list"),
        ('{"name": "x", "n": 1, "rows": [{"x": 1}, {"x": "y"}]}', r"rows\[1\].x is 'y' instead of a finite number"),
        ('{"name": "x", "n": 1, "rows": [], "more": {"k": 1}}', "more.k is '1' instead of true or false"),
        ('{"name": "x", "n": 1, "rows": [], "p": []}', "p is a list instead of a finite number or null"),
    ],
)
def test_json_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        parse_json(text, "'file.json'", SHAPE)
    assert str(raised.value).startswith("'file.json'") and "\n" not in str(raised.value)


def test_json_of_the_shape_passes() -> None:
    content = {"name": "x", "n": 3, "p": None, "rows": [{"x": 1, "y": 2}], "more": {"a": True}, "else": [1]}
    require(content, SHAPE, "it")
    assert parse_json('{"a": -Infinity}', "it", {"a": object}, finite=False)["a"] == float("-inf")


def test_files_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.json").mkdir()
    for name, said in {"binary": "is not UTF-8", "folder": "is no file", "absent": "does not exist"}.items():
        with pytest.raises(UserError, match=f"{name}.json' {said}"):
            read_json(tmp_path / f"{name}.json")


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
def test_a_device_is_no_file_and_not_said_to_be_absent(tmp_path: Path) -> None:
    device = tmp_path / "x.csv"
    device.symlink_to("/dev/null")
    readers: list[Callable[[Path], object]] = [load_array, decode_image, read_table, text_rows, open_image, text_of]
    for read in readers:
        with pytest.raises(UserError, match=r"x.csv' is no file$"):
            read(device)
    with pytest.raises(UserError, match=r"'/dev/null' is no file$"):
        load_array("/dev/null")


@pytest.mark.parametrize(
    ("text", "told"), [("row;image;split;subject\n0;a;train;01\n", "semicolons"), ("row\timage\n0\ta\n", "tabs")]
)
def test_other_signs_between_columns_are_named(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "stimuli.csv").write_text(text)
    readers: list[Callable[[Path], object]] = [read_table, text_rows, lambda path: read_rows(path, ("row",))]
    for read in [*readers, read_stimuli]:
        with pytest.raises(UserError, match=f"stimuli.csv' has columns apart by {told}; save it with commas"):
            read(tmp_path / "stimuli.csv")
    (tmp_path / "events.tsv").write_text("row,image\n0,a\n")
    with pytest.raises(UserError, match="apart by commas; save it with tabs"):
        read_table(tmp_path / "events.tsv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """Where it is opened, it is found empty: the writer here closes it at once."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.open("wb").close(), daemon=True)
    writer.start()
    with pytest.raises(UserError, match="is no file"):
        read_json(pipe)
    while writer.is_alive():  # it waits for a reader
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
        writer.join(0.01)


@pytest.mark.parametrize("name", ["report.json", "index.csv", "metrics.jsonl"])
def test_a_file_of_gigabytes_is_not_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = {".json": read_json, ".csv": lambda path: read_rows(path, ("a",)), ".jsonl": text_of}
    path = tmp_path / name
    path.touch()
    os.truncate(path, LARGEST_TEXT + 1)  # a hole: it takes no room
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it is read"))
    with pytest.raises(UserError, match=f"{name}.* bytes; at most"):
        readers[path.suffix](path)


@pytest.mark.parametrize(
    "error", [KeyError("rank"), TypeError("x"), AttributeError("x"), IndexError("x"), OverflowError("x"), MemoryError()]
)
def test_what_goes_wrong_while_reading_names_the_file(error: Exception) -> None:
    with pytest.raises(UserError, match=r"^'run/x.json' "), reading("'run/x.json'"):
        raise error


LIST_BOMB = (
    "[&a [x,x,x,x,x,x,x,x,x,x]"
    + "".join(f", &{new} [{','.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefg", "bcdefgh", strict=True))
    + "]"
)
MAP_BOMB = "k0: &k0 {a: 1, b: 1}\n" + "".join(
    f"k{i}: &k{i} {{{', '.join(f'{c}: *k{i - 1}' for c in 'abcdefghi')}}}\n" for i in range(1, 9)
)
MERGE_BOMB = "k0: &k0 {a: 1, b: 1}\n" + "".join(
    f"k{i}: &k{i}\n  <<: [{', '.join([f'*k{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"seed: {LIST_BOMB}", "aliases written out"),
        (MAP_BOMB, "aliases written out"),
        (MERGE_BOMB, "aliases written out"),
        ("seed: " + "[" * 3000 + "]" * 3000, "nested deeper than 40 levels"),
        ("seed: " + "[" * 3000, "nested deeper than 40 levels"),
        ("".join(f"{' ' * k}k:\n" for k in range(60)), "nested deeper than 40 levels"),
        ("study: &a\n  y: *a\n", "holds itself"),
        ("a: &x [1, *x]", "holds itself"),
        ("a: 1\n" * 200_000, "characters; at most"),
        ("{1: 2", "not valid YAML"),
        ("a: !!python/object/apply:os.system [x]", "not valid YAML"),
        ("? [a, b]\n: 1", "not valid YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, said: str, typed: bool) -> None:
    start = time.process_time()
    with pytest.raises(UserError, match=said):
        parse_yaml(text, "it", typed)
    assert time.process_time() - start < 5


def test_a_few_aliases_are_read() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: *x", "it") == {"a": ["1", "2"], "b": ["1", "2"], "c": ["1", "2"]}


@pytest.mark.parametrize(
    "pair", [f"subjects={LIST_BOMB}", "subjects=" + "[" * 3000, "seed=" + "9" * 5000, "seed=1e400"]
)
def test_pairs_are_bounded_like_files(pair: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(Config, None, [pair])
    assert len(str(raised.value)) < 1000


def test_a_nul_byte_in_a_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text('run_dir: "a\\0b"\n')
    with pytest.raises(UserError, match="NUL"):
        load_config(Config, tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe\0", "not UTF-8 text"),
        (b"a,b\n1\n", "row 1: it has no b"),
        (b"a,b\n1,2,3\n", "more cells than the header"),
        (b"a\n1\n", "lacks a column"),
        (b"", "lacks a column"),
        (b'a,b\n"' + b"x" * 200_000 + b'",1\n', "row 1: field larger"),
    ],
)
def test_tables_that_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_rows(tmp_path / "t.csv", ("a", "b"))


def test_a_line_end_inside_a_cell_stays(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes('a,b\r\n"x\u2028\ny",1\r\n'.encode())
    assert read_rows(tmp_path / "t.csv", ("a", "b")) == [{"a": "x\u2028\ny", "b": "1"}]


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "x", ""])
def test_a_cell_that_is_no_number(text: str) -> None:
    with pytest.raises(UserError, match=r"t\.csv"):
        finite(text, "t.csv")


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1", "＝1", "\r=1"])
def test_a_formula_becomes_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1.5", "+3", "1e-3", "plain", "", -1.5, 3, None])
def test_numbers_and_words_stay(value: object) -> None:
    assert cell(value) == value
