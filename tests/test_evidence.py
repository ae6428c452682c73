"""Numbers of the documentation that are marked as coming from runs are what these runs say."""

import re
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
from PIL import Image, ImageChops

from fedsplit.errors import UserError
from fedsplit.reports.drawing import draw
from fedsplit.reports.experiments import experiments_in
from tests.cases import long_but
from tests.reports.chosen import store_run


@pytest.fixture(scope="module")
def check(root: Path) -> ModuleType:
    spec = spec_from_file_location("check", root / "evidence" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def claimed(tmp_path: Path) -> Path:
    """A page with a table and a number, of two runs, as it should be."""
    for seed, accuracy in enumerate(([0.5, 0.7], [0.5, 0.8])):
        store_run(tmp_path / "evidence/mine" / str(seed), "fed_avg", seed=seed, accuracy=accuracy)
    table = "table: {columns: [final_accuracy], spread: interval}"
    (tmp_path / "evidence/exp_configs.yaml").write_text(f"mine: {{runs: [mine], {table}}}")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text(
        "<!-- evidence: mine -->\n\n"
        "| Algorithm | Seeds | Final accuracy (%) |\n| --- | ---: | ---: |\n| FedAvg | 2 | 75.0 ± 63.5 |\n\n"
        "<!-- end of evidence -->\n\n"
        "It reaches 75.0 <!-- evidence: mine/fed_avg/final_accuracy --> percent.\n"
    )
    return tmp_path


def test_every_page_says_what_its_runs_say(check: ModuleType, root: Path) -> None:
    assert check.compared(root, write=False) == []


def test_page_that_says_what_its_runs_say_is_left_as_it_is(check: ModuleType, claimed: Path) -> None:
    before = (claimed / "docs/page.md").read_text()
    assert check.compared(claimed, write=True) == []
    assert (claimed / "docs/page.md").read_text() == before


@pytest.mark.parametrize(
    ("true", "false", "line"),
    [
        ("75.0 ± 63.5", "75.0 ± 63.4", 5),
        ("| 2 |", "| 3 |", 5),
        ("| --- | ---: | ---: |\n", "| --- | ---: | ---: |\n| fsl_sage | 2 | 99.0 |\n", 5),
        ("reaches 75.0", "reaches 75.1", 9),
    ],
)
def test_number_or_row_that_is_no_runs_is_told_and_put_right(
    check: ModuleType, claimed: Path, true: str, false: str, line: int
) -> None:
    page = claimed / "docs/page.md"
    before = page.read_text()
    page.write_text(before.replace(true, false))
    assert check.compared(claimed, write=False) == [f"docs/page.md:{line}: its runs say otherwise"]
    check.compared(claimed, write=True)
    assert page.read_text() == before


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (
            "<!-- evidence: other/fed_avg/final_accuracy -->",
            "evidence=other: must be an experiment with runs: mine",
        ),
        ("<!-- evidence: mine/fsl_sage/final_accuracy -->", "mine=fsl_sage: must be among fed_avg"),
        ("<!-- evidence: mine/fed_avg/load -->", "mine=load: must be among final_accuracy"),
    ],
)
def test_place_that_names_nothing_is_an_error(
    check: ModuleType, claimed: Path, named: str, told: str
) -> None:
    (claimed / "docs/other.md").write_text(f"7 {named}")
    with pytest.raises(UserError, match=re.escape(told)):
        check.compared(claimed, write=False)


def test_damaged_run_is_an_error(check: ModuleType, claimed: Path) -> None:
    (claimed / "evidence/mine/0/metrics.csv").write_text("round\nx\n")
    with pytest.raises(UserError, match="damaged"):
        check.compared(claimed, write=False)


def test_runs_of_a_sweep_are_taken_over_for_finished_seeds_without_places_of_the_machine(
    check: ModuleType, claimed: Path
) -> None:
    sweep, folder = claimed / "sweep", claimed / "evidence/taken"
    for number, (seed, algorithm) in enumerate(
        [(0, "fed_avg"), (0, "cse_fsl"), (1, "fed_avg"), (1, "cse_fsl")]
    ):
        run = store_run(sweep / str(number), algorithm, seed=seed, accuracy=[0.5])
        (run / "results.json").write_text("{}")
        (run / "model").mkdir()
        config = run / "config.yaml"
        config.write_text(config.read_text() + "dataset:\n  root: /somewhere/else\n")
    shutil.rmtree(sweep / "3")
    assert check.add(sweep, folder, "datas/images") == 2
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1"]
    assert {path.name for path in (folder / "0").iterdir()} == set(check.KEPT)
    assert (folder / "0/config.yaml").read_text().endswith("\n  root: datas/images\n")

    later = claimed / "later"  # the run that was missing, under the number of one that is there
    for number, (seed, algorithm) in enumerate([(1, "cse_fsl"), (1, "fed_avg"), (2, "fed_avg")]):
        run = store_run(later / str(number), algorithm, seed=seed, accuracy=[0.5])
        (run / "results.json").write_text("{}")
    assert check.add(later, folder, "datas/images") == 2
    kept = {path.name: check.read_run(path) for path in folder.iterdir()}
    assert {name: (run.seed, run.algorithm) for name, run in kept.items()} == {
        **{"0": (0, "fed_avg"), "1": (0, "cse_fsl"), "2": (1, "cse_fsl"), "3": (1, "fed_avg")}
    }
    assert check.add(later, folder, "datas/images") == 2  # again: nothing is there twice
    assert len(list(folder.iterdir())) == 4


def test_every_image_of_a_page_is_there_and_every_image_is_on_one(check: ModuleType, root: Path) -> None:
    pages = {path for pattern in ("*.md", "docs/**/*.md", "evidence/*.md") for path in root.glob(pattern)}
    shown = {
        (page.parent / place).resolve()
        for page in pages
        for place in re.findall(r"!\[[^]]*\]\(([^):]+)\)", page.read_text("utf-8"))
    }
    assert len(shown) > 20
    assert [str(path) for path in sorted(shown) if not path.is_file()] == []
    assert {path.resolve() for path in (root / check.IMAGES).iterdir()} <= shown


def test_every_experiment_of_the_evidence_finds_its_runs_and_is_shown(check: ModuleType, root: Path) -> None:
    text = "".join(path.read_text("utf-8") for pattern in check.PAGES for path in root.glob(pattern))
    shown = check.shown_images(root)
    for experiment, runs in check.experiments(root):
        assert runs
        assert f"{experiment.name}.png" in shown or f"<!-- evidence: {experiment.name}" in text


def test_experiment_without_a_run_is_an_error(check: ModuleType, claimed: Path) -> None:
    listed = claimed / "evidence/exp_configs.yaml"
    listed.write_text(listed.read_text() + "\nother: {runs: [mine], where: {algorithm: cse_fsl}}\n")
    with pytest.raises(UserError, match="other: not drawn, it has no run"):
        check.experiments(claimed)


def test_figures_that_pages_show_are_drawn_and_no_others(check: ModuleType, claimed: Path) -> None:
    listed = claimed / "evidence/exp_configs.yaml"
    listed.write_text(listed.read_text() + "\nother: {runs: [mine], title: Not shown}\n")
    (claimed / "README.md").write_text("![Mine](docs/gallery/mine.png) ![Not of runs](docs/gallery/a.png)")
    drawn = check.figures(claimed)
    assert list(drawn) == ["mine.png"]
    assert drawn == check.figures(claimed)


def test_figure_of_attacks_is_drawn_of_the_gathered_file(check: ModuleType, claimed: Path) -> None:
    file = claimed / "evidence/study/attack.csv"
    file.parent.mkdir()
    file.write_text(
        "job,defence,attacker,adapted,cut,precision,codec,model,mode,psnr,test_accuracy\n"
        "0,none,linear,True,conv1,fp32,none,trained,train,20.0,0.5\n"
    )
    (claimed / "docs/page.md").write_text("![Attacks](gallery/study.png)")
    assert list(check.figures(claimed)) == ["study.png"]


EXPERIMENTS = experiments_in(Path(__file__).parents[1] / "evidence" / "exp_configs.yaml")


@pytest.mark.parametrize(
    "name", long_but(lambda name: name == "methods-digits", [each.name for each in EXPERIMENTS])
)
def test_figure_in_the_gallery_is_what_its_runs_draw(check: ModuleType, root: Path, name: str) -> None:
    image = root / check.IMAGES / f"{name}.png"
    if not image.is_file():
        pytest.skip("only its table is shown")
    kept = Image.open(image)
    if kept.text["Software"].split(",")[0] != f"Matplotlib version{matplotlib.__version__}":
        pytest.skip("another matplotlib drew it")
    ((experiment, runs),) = [each for each in check.experiments(root) if each[0].name == name]
    drawn = Image.open(BytesIO(draw(experiment, runs, ["png"]).images["png"]))
    assert drawn.size == kept.size
    assert ImageChops.difference(drawn.convert("RGB"), kept.convert("RGB")).getbbox() is None


def test_every_folder_that_the_list_of_evidence_names_is_there(root: Path) -> None:
    listed = (root / "evidence" / "README.md").read_text("utf-8")
    folders = {path.name for path in (root / "evidence").iterdir() if path.is_dir()} - {"__pycache__"}
    named = set(re.findall(r"`(?:evidence/)?([\w-]+)/`", listed))
    assert folders == named


COLUMNS = "attacker,psnr,ssim,reidentified,bytes_per_sample,test_accuracy,distance_correlation"
ATTACKS = f"""job,model.cut,cut,defence,codec,{COLUMNS}
0,1,conv1,none,int8,mean,11.87,0.123,0.003,1024.0,0.5,0.9
0,1,conv1,none,int8,linear,24.09,0.779,1.0,1024.0,0.5,0.9
1,2,pool1,none,int8,mean,11.87,0.123,0.003,16.4,0.25,0.1
"""
TABLE = """| cut | defence | sent as | bytes | accuracy (%) | mean | linear | dCor² |
| --- | --- | --- | --: | --: | --: | --: | --: |
| `conv1` | `none` | `int8` | 1,024 | 50.0 | 11.9 / 0.12 / 0.00 | 24.1 / 0.78 / 1.00 | 0.90 |
| `pool1` | `none` | `int8` | 16 | 25.0 | 11.9 / 0.12 / 0.00 |  | 0.10 |"""


def test_table_of_attacks_is_that_of_the_gathered_file(check: ModuleType, claimed: Path) -> None:
    page, file = claimed / "docs/privacy.md", claimed / "evidence/study/attack.csv"
    text = f"<!-- attacks: study -->\n\n{TABLE}\n\n<!-- end of evidence -->\n"
    file.parent.mkdir()
    file.write_text(ATTACKS)
    page.write_text(text)
    assert check.compared(claimed, write=False) == []
    page.write_text(text.replace("24.1", "24.2"))
    assert check.compared(claimed, write=True) == ["docs/privacy.md:5: its runs say otherwise"]
    assert page.read_text() == text
    file.write_text(ATTACKS.replace("24.09", "much"))
    with pytest.raises(UserError, match=r"attack\.csv: cannot be read"):
        check.compared(claimed, write=False)
