"""Tables and the page, as the command line makes them."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsplit.machine.extras import install_command
from tests.cli.test_plot_results import files, plot, refused
from tests.reports.chosen import store_run


def ask(folder: Path, **experiments: Any) -> None:
    (folder / "exp_configs.yaml").write_text(yaml.safe_dump(experiments, sort_keys=False), "utf-8")


def test_plot_of_an_experiment_with_a_table_writes_its_files_and_a_page_of_all(tmp_path: Path) -> None:
    for seed, accuracy in enumerate([(0.5, 0.9), (0.7, 0.8)]):
        store_run(tmp_path / "saves" / "sweep" / str(seed), seed=seed, accuracy=accuracy)
    store_run(tmp_path / "saves" / "sweep" / "on", "fed_avg", accuracy=(0.6,), ended=False)
    ask(
        tmp_path,
        compared={"runs": ["saves"], "table": {"targets": [0.85]}, "expects": {"seed": [0, 1, 2]}},
        plain={"where": {"algorithm": "fsl_sage"}, "title": "<Plain>"},
        nowhere={"where": {"algorithm": "cse_fsl"}, "table": {}},
    )
    done = plot(tmp_path)
    assert done.returncode == 0, done.stderr
    written = [
        "compared.png",
        "plain.png",
        *(f"compared.{each}" for each in ("md", "tex", "csv")),
        "index.html",
    ]
    assert done.stdout.splitlines() == [str(Path("saves/plots") / name) for name in written]
    assert files(tmp_path / "saves" / "plots") == set(written)
    with (tmp_path / "saves" / "plots" / "compared.csv").open(encoding="utf-8") as file:
        going_on, sage = csv.DictReader(file)
    assert (going_on["algorithm"], going_on["load.mean"]) == ("fed_avg", "1000000.0")
    assert sage["final_accuracy.mean"] == "0.8500000000000001"
    reached = [sage[f"bytes_to_accuracy.0.85.{part}"] for part in ("mean", "std", "seeds")]
    assert reached == ["2000000.0", "", "1"]
    page = (tmp_path / "saves" / "plots" / "index.html").read_text("utf-8")
    assert page.count("<section ") == 4  # two experiments, what is missing, versions
    assert "&lt;Plain&gt;" in page
    for note in done.stderr.splitlines():
        assert note.removeprefix("note: ") in page.replace("<wbr>", "")
    assert "missing for compared: python main.py seed=2" in done.stderr
    before = (tmp_path / "saves" / "plots" / "index.html").read_bytes()
    plot(tmp_path)
    assert (tmp_path / "saves" / "plots" / "index.html").read_bytes() == before


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (3, "mine.table=3: must be {} or have keys of targets, columns"),
        ({"columns": ["bytes"]}, "mine.table.columns=bytes: must be among final_accuracy, "),
        (
            {"targets": [90]},
            "mine.table.targets=[90]: must be a list of different accuracies above 0, at most 1",
        ),
    ],
)
def test_plot_of_a_wrong_table_names_the_mistake_before_anything_is_read(
    tmp_path: Path, table: Any, told: str
) -> None:
    ask(tmp_path, mine={"runs": ["nowhere"], "table": table})
    refused(plot(tmp_path), told)
    assert files(tmp_path) == {"exp_configs.yaml"}


def test_plot_without_jinja2_says_what_to_install_and_writes_nothing(tmp_path: Path) -> None:
    store_run(tmp_path / "saves" / "0")
    ask(tmp_path, mine={"runs": ["saves"]})
    stub = tmp_path / "path" / "jinja2"
    stub.mkdir(parents=True)
    missing = "raise ModuleNotFoundError(\"No module named 'jinja2'\", name='jinja2')\n"
    (stub / "__init__.py").write_text(missing, "utf-8")
    before = files(tmp_path)
    done = plot(tmp_path, path=tmp_path / "path")
    refused(done, "jinja2=missing: ")
    assert done.stderr.rstrip().endswith(install_command("plot"))
    assert {each for each in files(tmp_path) if "pycache" not in each} == before
