import csv
import io
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsplit.algorithms.round_load import Population
from fedsplit.building.run import build_clients
from fedsplit.cli.run import main
from fedsplit.errors import UserError
from fedsplit.models.derived import DerivedAuxiliary
from fedsplit.reports.figures.wording import in_words
from fedsplit.tasks.cuts.costs import CutCosts
from fedsplit.tasks.cuts.cuts import CutTable
from tests.cases import long_but
from tests.conftest import ALGORITHMS, METHODS, TINY, Build, Configure
from tests.training.test_communication_load import SIZES, uploaded_samples

ASKED = (*TINY, "auxiliary=derived", "auxiliary.optimizer.lr=0.001")

SIZED = ("smashed", "client", "server", "memory", "held")


def costs(configured: Configure, *overrides: str) -> dict[str, CutCosts]:
    config = configured(*ASKED, "task=cuts", *overrides)
    return {cut.name: cut for cut in config.task.build(CutTable).costs(build_clients(config))}


@cache  # which takes a second
def costs_of_resnet8(configured: Configure) -> dict[str, CutCosts]:
    return costs(configured, "model=resnet20", "model.depth=8", "model.cut=layer1", "batch_size=20")


@pytest.mark.cover(1)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["local_epochs=2", "batch_size=43"],
        ["quant=int8"],
        ["quant=int4", "quant.weights.whole=none", "quant.smashed=fp16", "model.cut=relu1"],
        ["quant.weights=none", "quant.cut_gradient=int2_block"],
        ["model.cut=relu3"],
    ],
)
def test_loads_of_cuts_are_what_a_run_counts_in_its_later_rounds(
    configured: Configure, tiny: Build, algorithm: str, overrides: list[str]
) -> None:
    """With all clients and l=2, a mean over two rounds; the first two have no differences to take."""
    overrides = [f"algorithm={algorithm}", "auxiliary=derived", *overrides]
    if algorithm in ("cse_fsl", "fsl_sage"):
        overrides.append("algorithm.server_update_interval=3")
    if algorithm == "fsl_sage":
        overrides.append("algorithm.align_interval=2")
    run = tiny(*overrides)
    loads = [0, *(run_round(run, t) for t in range(4))]
    # q and l of algorithms that have none are the task's own
    asked = ["task.server_update_interval=3", "task.align_interval=2"]
    found = costs(configured, *overrides, *asked)[run.config.splitting.cut]
    assert found.load[algorithm] == (loads[4] - loads[2]) / 2


@pytest.mark.parametrize("algorithm", ["fed_avg", "splitfed_v2", "cse_fsl", "fsl_sage"])
def test_memory_of_clients_at_a_cut_is_what_a_run_records(
    configured: Configure, tiny: Build, algorithm: str
) -> None:
    overrides = [f"algorithm={algorithm}", "model.cut=pool"]
    record = tiny("auxiliary=derived", *overrides).run_round(0)
    found = costs(configured, *overrides)["pool"]
    assert (found.memory_bytes, found.held_bytes) == (record.client_memory, record.held)


def run_round(run: Any, t: int) -> int:
    record = run.run_round(t)
    run.records.append(record)
    load: int = record.load
    return load


def test_loads_of_sampled_cohorts_are_means_over_many_rounds(configured: Configure, tiny: Build) -> None:
    """Without codecs, which do not care who was there before; a client in two aligns in a round."""
    overrides = ["cohort_size=2", "num_clients=5", "algorithm.align_interval=3", "batch_size=40"]
    run = tiny("auxiliary=derived", *overrides)
    found = costs(configured, *overrides)["flatten"].load["fsl_sage"]
    last = -1.0
    rounds = 3000
    last_alignment = dict.fromkeys(range(5), float("-inf"))
    aligned = []
    for t in range(rounds):
        due = [client for client in run.parts.cohort_of(t) if t - last_alignment[client] >= 3]
        last_alignment |= dict.fromkeys(due, t)
        aligned.append(len(due))
    population = Population([1] * 5, 2, 1, 1, 1, 3, 1)
    assert sum(aligned) / rounds == pytest.approx(population.alignments, rel=0.02)
    z, a, c = 4 * 256, sum(4 * t.numel() for t in run.parts.models.auxiliary.parameters()), 4 * 1248
    u = sum(uploaded_samples(26, 40, 5, 1) for _ in range(5)) * 2 / 5
    assert found == pytest.approx(u * (z + 1) + 2 * 2 * c + population.alignments * a)
    assert last < found


def test_sizes_and_multiply_adds_of_a_small_model_are_those_worked_out_by_hand(configured: Configure) -> None:
    found = costs(configured)
    assert list(found) == ["conv1", "relu1", "conv2", "relu2", "pool", "flatten", "fc1", "relu3"]
    conv1, conv2, fc1, fc2 = 8 * 9 + 8, 16 * 8 * 9 + 16, 256 * 64 + 64, 64 * 10 + 10
    macs = [64 * 8 * 9, 64 * 16 * 8 * 9, 256 * 64, 64 * 10]
    expected = {
        "conv1": (8 * 64, [conv1], macs[:1]),
        "relu1": (8 * 64, [conv1], macs[:1]),
        "conv2": (16 * 64, [conv1, conv2], macs[:2]),
        "pool": (256, [conv1, conv2], macs[:2]),
        "flatten": (256, [conv1, conv2], macs[:2]),
        "relu3": (64, [conv1, conv2, fc1], macs[:3]),
    }
    for name, (values, client, done) in expected.items():
        cut = found[name]
        assert cut.smashed_bytes == 4 * values
        assert cut.client_bytes == 4 * sum(client)
        assert cut.server_bytes == 4 * (conv1 + conv2 + fc1 + fc2) - cut.client_bytes
        assert (cut.client_macs, cut.server_macs) == (sum(done), sum(macs) - sum(done))
    # derived: behind the pool 16 hidden units, 8 channels of a 3x3 convolution where one is left
    assert found["flatten"].auxiliary_bytes == 4 * (256 * 16 + 16 + 16 * 10 + 10)
    assert found["relu3"].auxiliary_bytes == 4 * (64 * 10 + 10)
    assert found["conv1"].auxiliary_bytes == 4 * (8 * 8 * 9 + 4 * 8 + 8 * 10 + 10) + 8


@pytest.mark.long  # those of smaller models are worked out by hand
def test_sizes_of_resnet18_are_those_of_the_reference(configured: Configure) -> None:
    asked = ["model=resnet18", "dataset.image_size=32", "batch_size=20", "task.among=stages"]
    found = costs(configured, *asked)
    assert [(cut.name, cut.stage) for cut in found.values()] == [(f"layer{i}", i) for i in (1, 2, 3, 4)]
    z, c, s, _ = SIZES["resnet18"]
    one_channel = 2 * 64 * 49 * 4  # less of the first convolution
    cut = found["layer2"]
    assert (cut.smashed_bytes, cut.client_bytes, cut.server_bytes) == (z, c - one_channel, s)
    # He et al. count 1.8 thousand million at 224x224 with three channels; here 49 times fewer pixels
    stem = 16 * 16 * 64 * 49
    assert cut.client_macs + cut.server_macs + 2 * stem == pytest.approx(1.814e9 / 49, rel=0.01)


@pytest.mark.long  # a transformer of 86 million parameters
def test_multiply_adds_of_attention_are_those_of_the_formula(configured: Configure) -> None:
    """Also where torch would compute it in one operation of its own."""
    asked = ["model=torchvision", "model.name=vit_b_16", "dataset.image_size=32", "task.among=stages"]
    found = costs(configured, *asked, "batch_size=20", "num_clients=1", "dataset.max_train=20")
    layers = [cut for name, cut in found.items() if ".encoder_layer_" in name]
    assert len(layers) == 12
    tokens, width = 2 * 2 + 1, 768
    each = tokens * width * (3 * width + width + 8 * width) + 2 * tokens * tokens * width
    assert {b.client_macs - a.client_macs for a, b in pairwise(layers)} == {each}


def test_cut_inside_a_residual_block_costs_what_crosses(configured: Configure) -> None:
    found = costs_of_resnet8(configured)
    inside, behind = found["layer1.0.conv1"], found["layer1"]
    assert (inside.tensors, behind.tensors) == (2, 1)
    assert inside.smashed_bytes == 2 * behind.smashed_bytes == 2 * 4 * 16 * 64


def test_table_of_cuts_counts_the_derived_auxiliary_of_the_width_asked_for(configured: Configure) -> None:
    config = configured(*ASKED, "task=cuts", "auxiliary.width=0.5")
    parts = build_clients(config)
    assert isinstance(parts.models.auxiliary, DerivedAuxiliary)
    state = parts.models.auxiliary.state_dict()
    found = {cut.name: cut for cut in config.task.build(CutTable).costs(parts)}["flatten"]
    assert found.auxiliary_bytes == sum(t.numel() * t.element_size() for t in state.values())
    assert found.auxiliary_bytes == 4 * (256 * 32 + 32 + 32 * 10 + 10)


def printed(
    configured: Configure, capsys: pytest.CaptureFixture[str], tmp_path: Path, *overrides: str
) -> str:
    config = configured(*ASKED, "task=cuts", *overrides)
    config.task.build(CutTable).run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return capsys.readouterr().out


def test_table_of_cuts_holds_the_same_in_every_format(
    configured: Configure, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = costs(configured)
    lines = list(csv.DictReader(io.StringIO(printed(configured, capsys, tmp_path, "task.format=csv"))))
    assert [line["cut"] for line in lines] == list(found)
    for line in lines:
        cut = found[line["cut"]]
        assert line["stage"] == str(cut.stage)
        for key in ("tensors", *(f"{what}_bytes" for what in SIZED), "client_macs", "server_macs"):
            assert int(line[key]) == getattr(cut, key)
        assert {name: int(line[f"load_{name}"]) for name in (*ALGORITHMS, *METHODS)} == pytest.approx(
            cut.load, abs=0.5
        )
    for format, separator in (("md", "|"), ("table", "│")):
        told = printed(configured, capsys, tmp_path, f"task.format={format}")
        assert re.search(r"130 images, 3 of 3 clients a round, batch_size=8, local_epochs=1, q=5, l=10", told)
        rows = [[cell.strip() for cell in line.split(separator)[1:-1]] for line in told.splitlines()]
        rows = [row for row in rows if row and row[0] in found]
        assert [row[0] for row in rows] == list(found)
        for row in rows:
            cut = found[row[0]]
            assert row[1:3] == [str(cut.stage), str(cut.tensors)]
            numbers = [cut.smashed_bytes, cut.client_bytes, cut.server_bytes, cut.auxiliary_bytes]
            numbers += [cut.client_macs, cut.server_macs, cut.memory_bytes, cut.held_bytes]
            numbers += cut.load.values()
            shown = [1e6 * float(cell.replace(",", "")) for cell in row[3:]]
            assert shown == pytest.approx(numbers, rel=0.006)


def test_figure_of_cuts_has_a_line_of_stages_and_dots_of_other_cuts_for_each_algorithm(
    configured: Configure, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from fedsplit.tasks.cuts.costs import cut_figure  # noqa: PLC0415

    found = list(costs_of_resnet8(configured).values())
    (axes,) = cut_figure(found).axes
    lines = axes.get_lines()
    names = {in_words(name): name for name in found[0].load}
    # FedAvg's, SCAFFOLD's, SplitFed's, SGLR's, HO-SFL's, CSE-FSL's, FSL-SAGE's, LGL-SL's, Ampere's,
    # SplitFed v3's, FedPer's
    assert len(lines) == 2 * 11
    for dots, line in zip(lines[::2], lines[1::2], strict=True):
        name = names[" ".join(line.get_label().split()).split(",")[0]]
        assert list(line.get_ydata()) == [cut.load[name] / 1e6 for cut in found if cut.stage]
        assert list(dots.get_xdata()) == [cut.client_macs / 1e6 for cut in found if not cut.stage]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    for suffix in ("png", "pdf", "svg"):
        printed(configured, capsys, tmp_path, f"task.plot={tmp_path / 'cuts'}.{suffix}", "task.among=stages")
        assert (tmp_path / f"cuts.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("task.format=html", "task.format=html: must be one of table, csv, md"),
        ("task.among=some", "task.among=some: must be one of all, stages"),
        ("task.plot=cuts.xyz", "task.plot=cuts.xyz: must end in .png, .pdf or .svg"),
        ("task.plot=nowhere/cuts.png", "task.plot=nowhere/cuts.png: there is no directory nowhere"),
        ("task.server_update_interval=0", "task.server_update_interval=0: must be a whole number greater"),
        ("task.align_interval=no", "task.align_interval=no: must be a whole number greater than 0"),
        ("task.columns=[stage,load]", "task.columns=load: must be among stage, tensors, smashed_bytes"),
        ("task.colour=red", "task.colour=red: no such key"),
    ],
)
def test_table_of_cuts_asked_for_wrongly_ends_in_one_line(
    override: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["main.py", "task=cuts", override])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_intervals_of_the_table_of_cuts_are_those_of_the_algorithm_where_it_has_them(
    configured: Configure,
) -> None:
    config = configured("task=cuts", "algorithm.server_update_interval=7", "algorithm.align_interval=2")
    task = config.task.arguments
    assert (task["server_update_interval"], task["align_interval"]) == (7, 2)
    task = configured("task=cuts", "algorithm=fed_avg").task.arguments
    assert (task["server_update_interval"], task["align_interval"]) == (5, 10)


def test_sweep_of_tables_of_cuts_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["main.py", "-m", "task=cuts", "seed=0,1"])
    assert main() == 2
    assert "task=cuts" in capsys.readouterr().err


def test_table_of_cuts_changes_nothing_that_it_looks_at(configured: Configure) -> None:
    config = configured(*ASKED, "task=cuts")
    parts = build_clients(config)
    draws = torch.get_rng_state()
    one = config.task.build(CutTable).costs(parts)
    assert torch.equal(torch.get_rng_state(), draws)
    assert config.task.build(CutTable).costs(parts) == one
    with pytest.raises(UserError, match="plot"):
        config.with_changes({"task.plot": "x.txt"}).task.build(CutTable)


PUBLISHED = {
    "cifar10": (50_000, 32, 3, 10),
    "cifar100": (50_000, 32, 3, 100),
    "mnist": (60_000, 28, 1, 10),
    "fashion_mnist": (60_000, 28, 1, 10),
    "femnist": (697_932, 28, 1, 62),
    "svhn": (73_257, 32, 3, 10),
    "eurosat": (21_600, 64, 3, 10),
    "imagenette": (9_469, 128, 3, 10),
    "tinyimagenet": (100_000, 64, 3, 200),
    "chest_xray": (5_216, 224, 1, 2),
    "imagenet": (1_281_167, 224, 3, 1000),
}


@pytest.mark.parametrize("dataset", long_but(["cifar100", "femnist"], PUBLISHED))
def test_cuts_of_a_published_dataset_need_none_of_its_images(
    configured: Configure, tmp_path: Path, dataset: str
) -> None:
    asked = ["task=cuts", f"dataset={dataset}", f"dataset.root={tmp_path / 'none'}", "model=simple_conv"]
    parts = build_clients(configured(*asked), sizes_only=True)
    found = parts.data.dataset
    assert (len(found.train), found.image_size, found.channels, found.num_classes) == PUBLISHED[dataset]
    assert sum(parts.sample_counts) == PUBLISHED[dataset][0]
    assert list(tmp_path.iterdir()) == []


def test_cuts_without_images_honour_prefix_size_and_division(configured: Configure, tmp_path: Path) -> None:
    asked = ["task=cuts", "dataset=cifar10", f"dataset.root={tmp_path}", "dataset.max_train=1000"]
    more = ["dataset.image_size=16", "distribution=feature_shift", "dataset.local_test_fraction=0.2"]
    parts = build_clients(configured(*asked, *more), sizes_only=True)
    assert (sum(parts.sample_counts), parts.data.dataset.image_size) == (800, 16)


def test_cuts_of_a_folder_of_images_need_it(configured: Configure, tmp_path: Path) -> None:
    config = configured("task=cuts", "dataset=image_folder", f"dataset.root={tmp_path / 'none'}")
    with pytest.raises(UserError, match=r"^dataset\.root="):
        build_clients(config, sizes_only=True)
