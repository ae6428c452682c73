"""Files of any content are read within bounds, or refused in one line that names them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedsplit.errors import UserError
from fedsplit.files.bounded import (
    MIB,
    Damage,
    csv_rows,
    csv_table,
    json_in,
    number,
    parse_whole_number,
    text,
    yaml_in,
)
from fedsplit.recording.class_counts import read_class_counts
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.reports.figures.confusion import read_confusion
from fedsplit.reports.figures.roc import read_roc
from fedsplit.reports.runs import read_run
from fedsplit.sweeps import record
from fedsplit.sweeps.status import progress_of, read_status
from tests.reports.stored import make_run

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
BAD_YAML = {
    "alias bomb": BOMB,
    "alias of a text": "a: &a x\nb: *a\n",
    "alias of itself": "&a [*a]\n",
    "tag": "a: !!python/object/apply:os.getcwd []\n",
    "tag of a plain type": "a: !!binary aGVsbG8=\n",
    "local tag": "a: !mine {}\n",
    "depth": "[" * 100_000,
    "depth in blocks": "".join(f"{' ' * n}a:\n" for n in range(100)),
    "long text": f"a: {'x' * 5000}\n",
    "400 digits": f"a: {'9' * 400}\n",
    "5000 digits": f"a: {'9' * 5000}\n",
    "hexadecimal": f"a: 0x{'f' * 400}\n",
    "a key of many digits": f"{'9' * 400}: a\n",
    "many values": "[" + "1," * 200_000 + "]",
    "size": f"a: 1\n#{'x' * MIB}",
    "no date": "a: 2020-99-99\n",
    "no key": "{[1]: 2}\n",
    "no YAML": "a: [",
    "zero byte": "a: \0",
}


@pytest.mark.parametrize("content", BAD_YAML.values(), ids=BAD_YAML)
def test_yaml_beyond_bounds_is_refused_by_one_short_line_that_names_the_file(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(Damage) as caught:
        yaml_in(path)
    assert str(caught.value).startswith("config.yaml ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63) + 1, 2**63 - 1)
        | st.floats(allow_nan=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_plain_values_come_back_from_yaml_and_json_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.mktemp("plain") / "file"
    path.write_text(yaml.safe_dump(value, allow_unicode=False), "utf-8")
    copied = json.loads(json.dumps(value))  # one value in two places would be written as an alias
    assert yaml_in(path) == yaml.safe_load(path.read_text("utf-8"))
    path.write_text(json.dumps(copied), "utf-8")
    assert json_in(path) == copied


@pytest.mark.parametrize(
    "content", ["{", "", "9" * 5000, "1" + "0" * 400, "[" * 200_000, "\ud800", '{"a": ' + str(2**64) + "}"]
)
def test_json_beyond_bounds_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, "utf-8", "surrogatepass")
    with pytest.raises(Damage, match=r"^results\.json "):
        json_in(path)


def test_text_is_read_up_to_its_bound_and_refused_beyond(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x" * 10)
    assert text(path, 10) == "x" * 10
    with pytest.raises(Damage, match="file has more than"):
        text(path, 9)


@pytest.mark.parametrize(
    "content",
    ["a,b\n1\n", "a,b\n1,2,3\n", "a,b\n" + "x" * 1001 + ",2\n", "a\n" + "x," * MIB],
)
def test_csv_beyond_bounds_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(content, "latin-1")
    with pytest.raises(Damage, match=r"file\.csv"):
        list(csv_table(path)[1])


def test_csv_is_read_by_line_without_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text('a,b\r\n\r\n1,"2\n3"\n', "utf-8")
    assert list(csv_rows(path)) == [(1, ["a", "b"]), (4, ["1", "2\\n3"])]
    assert csv_table(path)[0] == ["a", "b"]
    assert list(csv_table(path)[1]) == [(4, {"a": "1", "b": "2\\n3"})]


@pytest.mark.parametrize("cell", ["", "-1", "1.0", "1e3", "9" * 400, "9" * 5000, "٣", "11", "1_0", " 1"])
def test_what_is_no_whole_number_within_its_range_is_refused(cell: str) -> None:
    with pytest.raises(ValueError, match="is no whole number up to 10"):
        parse_whole_number(cell, 10)
    assert parse_whole_number("10", 10) == 10


@pytest.mark.parametrize("cell", ["", "x", "1e40", "-1e300", "9" * 300])
def test_what_is_no_number_within_its_range_is_refused(cell: str) -> None:
    with pytest.raises(ValueError, match=r"large|convert"):
        number(cell)
    assert number("-1e39") == -1e39


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config.yaml": ("config.yaml", read_run),
    "config.yaml, resumed": ("config.yaml", lambda path: RunDirectory.existing(path).config()),
    "results.json": ("results.json", read_run),
    "metrics.csv": ("metrics.csv", read_run),
    "class_counts.csv": ("class_counts.csv", read_class_counts),
    "confusion.csv": ("confusion.csv", read_confusion),
    "roc.csv": ("roc.csv", read_roc),
    "sweep.yaml": ("sweep.yaml", record.read),
}
BAD = {
    "bytes": b"\xff\xfe\0",
    "digits": b"a: " + b"9" * 5000,
    "one long line": b"x" * (2 * MIB),
    "depth": b"[" * 100_000,
    "bomb": BOMB.encode(),
    "client": b"client,label,class,samples\n999999999,0,,1\n",
    "label": b"client,label,class,samples\n0,999999999,,1\n",
    "name": b"client,label,class,samples\n0,0," + b"x" * MIB + b",1\n",
    "load": b"round,load\n0," + b"9" * 400,
    "round": b"round,load,x\n-1,1,1\n",
    "accuracy": b"round,load,test_accuracy\n0,1,1e300\n",
    "count": b"label,a\na," + b"9" * 400,
    "point": b"class,false_positive_rate,true_positive_rate\na,0,1e300\n",
    "parameters": b'{"parameters": []}',
    "a parameter": b'{"parameters": {"client": "x"}}',
    "versions": b'{"versions": {"torch": {}}}',
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_a_run_refuses_what_is_no_file_of_its_kind_and_names_it(
    tmp_path: Path, reader: str, content: bytes
) -> None:
    name, read = READERS[reader]
    run = make_run(tmp_path / "run")
    (run / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        read(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_how_far_a_job_is_is_not_known_of_damaged_files(tmp_path: Path, content: bytes) -> None:
    for name in ("results.json", "metrics.csv", "0.json"):
        (tmp_path / name).write_bytes(content)
    assert progress_of(tmp_path) is None
    assert read_status(tmp_path, 0) is None


@pytest.mark.parametrize(
    "job",
    [
        "{number: 0, directory: ../elsewhere, overrides: [], configuration: a}",
        "{number: 0, directory: /tmp, overrides: [], configuration: a}",
        "{number: a, directory: '0', overrides: [], configuration: a}",
        "{number: 0, directory: '0', overrides: [1], configuration: a}",
        "{number: 0, directory: '0', overrides: a, configuration: a}",
        "{number: 0, directory: '0', overrides: [], configuration: 1}",
        "{number: 0}",
        "1",
    ],
)
def test_record_of_a_sweep_with_a_job_that_is_none_is_refused(tmp_path: Path, job: str) -> None:
    (tmp_path / "sweep.yaml").write_text(f"jobs: [{job}]\n")
    with pytest.raises(UserError, match=r"sweep\.yaml is damaged"):
        record.read(tmp_path)


def test_cells_hold_escapes_of_what_cannot_be_shown(tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_bytes("class\na\x00b\x1b é\xff\n".encode("latin-1"))
    assert [row for _, row in csv_rows(tmp_path / "file.csv")] == [["class"], ["a\\x00b\\x1b \\xe9\\xff"]]


def test_error_of_a_value_that_nobody_reads_to_its_end_is_short() -> None:
    assert len(str(UserError("key", "x" * 10**6, "must be short"))) < 500
