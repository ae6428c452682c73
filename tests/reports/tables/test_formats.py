import csv
import re
from io import StringIO

import pytest

from fedsplit.reports.tables.as_latex import as_latex
from fedsplit.reports.tables.files import as_csv, as_markdown, table_files
from fedsplit.reports.tables.measures import Measure
from fedsplit.reports.tables.table import Estimate, Row, Table

ACCURACY = Measure("final_accuracy", "Final accuracy (%)", lambda run: None, "higher", 100, 1)
LOAD = Measure("bytes_to_accuracy.0.8", "Load to 80% (MB)", lambda run: None, "lower", 1e-6, 2)


def table(setting: str = "alpha=0.1", title: str = "Mine", algorithm: str = "fsl_sage") -> Table:
    rows = (
        Row(algorithm, setting, (0, 1, 2), (Estimate((0.9, 0.93, 0.95), 3), Estimate((1 / 3e-6, 2e6), 3))),
        Row("cse_fsl", "", (0,), (Estimate((0.1 + 0.2,), 1), Estimate((), 1))),
    )
    return Table("mine", title, (ACCURACY, LOAD), rows, ())


def test_table_in_markdown_is_the_text_written_out_by_hand() -> None:
    assert as_markdown(table()) == (
        "**Mine**\n\n"
        "| Algorithm | Setting | Seeds | Final accuracy (%) | Load to 80% (MB) |\n"
        "| --- | --- | ---: | ---: | ---: |\n"
        "| FSL-SAGE | alpha=0.1 | 3 | **92.7** ± 2.5 | 1.17 ± 1.18 (2 of 3 seeds) |\n"
        "| CSE-FSL |  | 1 | 30.0 | - |\n\n"
        "Mean ± standard deviation over seeds. The best of a column is bold. "
        "-: not reached, or not measured. MB are millions of bytes.\n"
    )


def test_table_in_latex_is_the_text_written_out_by_hand() -> None:
    assert as_latex(table()).splitlines() == [
        "% Mine",
        "% Mean ± standard deviation over seeds. The best of a column is bold. "
        "-: not reached, or not measured. MB are millions of bytes.",
        r"% \usepackage{array,booktabs}",
        r"{\small\setlength{\tabcolsep}{3pt}%",
        r"\begin{tabular}{@{}l>{\raggedright\arraybackslash}p{0.28\linewidth}rrr@{}}",
        r"\toprule",
        r"Algorithm & Setting & Seeds & "
        r"\begin{tabular}[b]{@{}r@{}}Final\\accuracy\\(\%)\end{tabular} & "
        r"\begin{tabular}[b]{@{}r@{}}Load to 80\%\\(MB)\end{tabular} \\",
        r"\midrule",
        r"FSL{-}SAGE & alpha=\allowbreak{}0.\allowbreak{}1 & 3 & \textbf{92.7} $\pm$ 2.5 & "
        r"\begin{tabular}[t]{@{}r@{}}1.17 $\pm$ 1.18\\\footnotesize 2 of 3 seeds\end{tabular} \\",
        r"CSE{-}FSL &  & 1 & 30.0 & -- \\",
        r"\bottomrule",
        r"\end{tabular}}",
    ]


def test_table_in_csv_reads_back_to_the_bit() -> None:
    made = table(setting='a, "b"\nc')
    first, second = csv.DictReader(StringIO(as_csv(made)))
    assert (first["algorithm"], first["setting"], first["seeds"]) == ("fsl_sage", 'a, "b"\nc', "0 1 2")
    for row, cells in ((first, made.rows[0].cells), (second, made.rows[1].cells)):
        for column, cell in zip(made.columns, cells, strict=True):
            read = [row[f"{column.key}.{part}"] for part in ("mean", "std", "seeds")]
            assert [float(each) if each else None for each in read] == [
                cell.mean,
                cell.deviation,
                len(cell.values),
            ]
    assert second["final_accuracy.mean"] == "0.30000000000000004"
    assert second["bytes_to_accuracy.0.8.mean"] == ""


NASTY = r"100% & \input{x} #1 $x^2$ _a_ ~ {} <b> | `c` *d* [e] -- \\ " + '"f"'


def test_algorithm_is_shown_by_its_name_in_figures_and_told_to_programs_as_it_is_typed() -> None:
    written = table(algorithm="splitfed_v2")
    assert "| SplitFed v2 |" in as_markdown(written)
    assert "SplitFed v2 &" in as_latex(written)
    assert as_csv(written).splitlines()[1].startswith("splitfed_v2,")


@pytest.mark.parametrize(("place", "written"), [(0, table(algorithm=NASTY)), (1, table(setting=NASTY))])
def test_table_in_latex_has_no_command_out_of_a_name(place: int, written: Table) -> None:
    (row,) = [line for line in as_latex(written).splitlines() if "100" in line]
    cell = re.split(r" (?<!\\)& ", row)[place]
    own = "textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|char34|allowbreak"
    bare = re.sub(rf"\\(?:{own}){{}}|\\[{{}}$&#_%]", "", cell)
    assert not set('\\$&#_%^~<>|"') & set(bare)
    assert "--" not in bare
    assert bare.count("{") == bare.count("}")
    assert [each for each in bare if each.isalnum()] == [each for each in NASTY if each.isalnum()]


def test_table_in_markdown_has_no_mark_out_of_a_name() -> None:
    written = as_markdown(table(setting=NASTY, title="a\nb"))
    assert written.startswith("**a b**\n")
    (row,) = [line for line in written.splitlines() if "100" in line]
    assert len(re.findall(r"(?<!\\)\|", row.replace(r"\\", ""))) == 6
    cell = re.split(r" (?<!\\)\| ", row)[1]
    assert re.sub(r"\\(.)", r"\1", cell) == " ".join(NASTY.split())
    assert not re.search(r"[`*|<>\[\]~&^#$]", re.sub(r"\\.", "", cell))


@pytest.mark.parametrize("length", [1, 300])
def test_long_setting_in_a_latex_table_can_wrap(length: int) -> None:
    setting = ", ".join(["distribution.classes_per_client=2"] * length)
    (row,) = [line for line in as_latex(table(setting=setting)).splitlines() if "classes" in line]
    pieces = re.split(r"\\allowbreak\{\}|\s", row.split(" & ")[1])
    assert max(map(len, pieces)) < 20


def test_files_of_a_table_are_one_of_each_format_and_the_same_each_time() -> None:
    files = table_files(table())
    assert list(files) == ["mine.md", "mine.tex", "mine.csv"]
    assert "±" in files["mine.md"].decode()
    assert files == table_files(table())
