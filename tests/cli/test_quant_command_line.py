"""Quantization on the command line: what is chosen is what runs, and a mistake is told in one line."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsplit.cli.run import main
from fedsplit.config.compose import compose_config, composing, plain
from fedsplit.config.overrides import spell_out
from fedsplit.config.settings import CODECS
from fedsplit.errors import UserError
from fedsplit.sweeps import grid
from tests.command_line import command_line
from tests.conftest import TINY, Configure


def codec(config: dict[str, Any], path: str) -> dict[str, Any]:
    """The settings at a dotted path."""
    for name in path.split("."):
        config = config[name]
    return config


def target(config: dict[str, Any], path: str) -> str:
    """The last name of a codec's `_target_`."""
    return str(codec(config, path)["_target_"]).rpartition(".")[2]


def jobs(*arguments: str) -> list[dict[str, Any]]:
    """The configurations of the jobs of a sweep."""
    overrides = [each for argument in arguments for each in spell_out(argument)]
    with composing():
        return [plain(compose_config(job)) for job in grid.jobs(overrides)]


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return command_line(*TINY, "rounds=2", *arguments)


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# Choices


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("quant=int4", ["quant=int4"]),
        ("quant.smashed=none", ["codec@quant.smashed=none"]),
        ("quant.cut_gradient=fp8", ["codec@quant.cut_gradient=fp8"]),
        ("quant.weights.up=sign", ["codec@quant.weights.up=sign"]),
        ("quant.weights=none", [f"codec@quant.weights.{way}=none" for way in ("up", "down", "whole")]),
        ("quant.smashed.bits=2", ["quant.smashed.bits=2"]),
        ("quant.weights.up.zstd=3", ["quant.weights.up.zstd=3"]),
        ("quant.continue_from_decoded=true", ["quant.continue_from_decoded=true"]),
        ("codec@quant.smashed=none", ["codec@quant.smashed=none"]),
        ("quant.smashed", ["quant.smashed"]),
        ("quant.weight=none", ["quant.weight=none"]),
    ],
)
def test_codec_override_by_its_key_is_spelled_out_for_hydra(argument: str, expected: list[str]) -> None:
    assert spell_out(argument) == expected


def test_default_configuration_codes_nothing(configured: Configure) -> None:
    config = configured().plain()
    assert {target(config, path) for path in CODECS} == {"Identity"}
    assert config["quant"]["continue_from_decoded"] is False


@pytest.mark.parametrize("order", [1, -1])
def test_quant_preset_can_be_changed_for_each_kind_of_message(configured: Configure, order: int) -> None:
    config = configured(*["quant=int4", "quant.smashed.bits=2", "quant.cut_gradient=none"][::order]).plain()
    smashed = codec(config, "quant.smashed")
    assert (smashed["bits"], smashed["granularity"]) == (2, "channel")
    assert target(config, "quant.cut_gradient") == "Identity"
    ways = {way: config["quant"]["weights"][way] for way in ("up", "down", "whole")}
    assert {way: each["bits"] for way, each in ways.items()} == {"up": 4, "down": 4, "whole": 8}
    assert {each["granularity"] for each in ways.values()} == {"block"}


def test_codec_of_weights_can_be_chosen_for_all_ways_or_for_one(configured: Configure) -> None:
    none = configured("quant=int8", "quant.weights=none").plain()
    up = configured("quant=int8", "quant.weights.up=sign").plain()
    both = configured("quant=int8", "quant.weights=none", "quant.weights.up=sign").plain()
    ways = [f"quant.weights.{way}" for way in ("up", "down", "whole")]
    assert [target(none, way) for way in ways] == ["Identity"] * 3
    assert [target(up, way) for way in ways] == ["Sign", "affine", "affine"]
    assert [target(both, way) for way in ways] == ["Sign", "Identity", "Identity"]
    assert target(none, "quant.smashed") == target(up, "quant.smashed") == "affine"


def test_codec_with_automatic_bits_takes_a_budget(configured: Configure) -> None:
    config = configured("quant=int8", "quant.smashed.bits=auto", "quant.smashed.budget=1.0").plain()
    assert (config["quant"]["smashed"]["bits"], config["quant"]["smashed"]["budget"]) == ("auto", 1.0)
    assert config["quant"]["cut_gradient"]["bits"] == 8


def test_codec_can_be_given_by_name_together_with_its_keys(configured: Configure) -> None:
    config = configured("quant.smashed=topk", "quant.smashed.fraction=0.2", "quant.smashed.zstd=3").plain()
    smashed = codec(config, "quant.smashed")
    assert (target(config, "quant.smashed"), smashed["fraction"], smashed["zstd"]) == ("TopK", 0.2, 3)


# Sweeps


def test_sweep_over_codecs_has_a_job_for_each_combination() -> None:
    swept = jobs("quant.smashed=none,int8_channel", "quant.cut_gradient.zstd=null,3", "quant=int4")
    chosen = [(target(job, "quant.smashed"), job["quant"]["cut_gradient"]["zstd"]) for job in swept]
    assert chosen == [("Identity", None), ("Identity", 3), ("affine", None), ("affine", 3)]


def test_sweep_over_presets_and_bits_has_a_job_for_each_combination() -> None:
    swept = jobs("quant=int8,int4", "quant.smashed.bits=2,3")
    assert [job["quant"]["smashed"]["bits"] for job in swept] == [2, 3, 2, 3]
    assert [job["quant"]["cut_gradient"]["bits"] for job in swept] == [8, 8, 4, 4]


@pytest.mark.long  # in every run a sweep's jobs are composed, and single runs say what they coded
def test_sweep_over_codecs_leaves_runs_that_report_their_bits(tmp_path: Path) -> None:
    sweep = ["hydra.launcher.n_jobs=1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = command("-m", "quant.smashed=none,int8_channel", "rounds=1", *sweep)
    assert done.returncode == 0, done.stderr
    bits = [{row["bits.up.smashed"] for row in rows(tmp_path / "sweep" / str(job))} for job in (0, 1)]
    assert bits[0] == {"32.0"}
    assert all(8 < float(each) < 16 for each in bits[1])


# Runs


def test_quantized_run_records_its_codecs_and_resumes_with_them(tmp_path: Path) -> None:
    overrides = ["quant=int4", "quant.smashed.bits=auto", "quant.smashed.budget=1.5", "quant.weights.up=sign"]
    done = command("algorithm=splitfed_v1", *overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["quant"]["smashed"]["budget"] == 1.5
    assert target(config, "quant.weights.up") == "Sign"
    for row in rows(tmp_path / "run"):
        assert 0 < float(row["bits.up.smashed"]) <= 1.5
        assert 1 < float(row["bits.up.client_weights"]) < 2
    longer = command_line(f"resume={tmp_path / 'run'}", "rounds=3")
    assert longer.returncode == 0, longer.stderr
    assert 0 < float(rows(tmp_path / "run")[2]["bits.up.smashed"]) <= 1.5


# Mistakes

CODEC_NAMES = "allowed: affine, bf16, fp16, fp8, int2_block, "
WRONG = [
    (["quant=int8", "quant.smashed.bits=0"], "quant.smashed.bits=0: must be a whole number from 1 to 16 or"),
    (["quant=int8", "quant.smashed.bits=2.5"], "quant.smashed.bits=2.5: must be a whole number from 1 to 16"),
    (["quant=int8", "quant.smashed.bits=all"], "quant.smashed.bits=all: must be a whole number from 1 to 16"),
    (["quant=int4", "quant.weights.down.bits=17"], "quant.weights.down.bits=17: must be a whole number from"),
    (
        ["quant=int8", "quant.smashed.granularity=row"],
        "quant.smashed.granularity=row: must be one of tensor, channel, block",
    ),
    (
        ["quant=int8", "quant.smashed.channel_dim=4"],
        "quant.smashed.channel_dim=4: must be a dimension, 0 to 3",
    ),
    (["quant=int8", "quant.smashed.rounding=up"], "quant.smashed.rounding=up: must be one of nearest, stoch"),
    (["quant=int8", "quant.smashed.range=max"], "quant.smashed.range=max: must be one of minmax, percentile"),
    (
        ["quant=int8", "quant.smashed.block_size=0"],
        "quant.smashed.block_size=0: must be a whole number great",
    ),
    (
        ["quant=int8", "quant.smashed.scale_type=float16"],
        "quant.smashed.scale_type=float16: must be one of bfloat16, float32",
    ),
    (
        ["quant=int3"],
        "quant=int3: no such choice; did you mean int8? allowed: bf16, fp16, int2, int4, int8, none",
    ),
    (["quant.smashed=nothing"], f"quant.smashed=nothing: no such choice; {CODEC_NAMES}"),
    (
        ["quant.weights.up=int4"],
        f"quant.weights.up=int4: no such choice; did you mean int4_block? {CODEC_NAMES}",
    ),
    (
        ["quant.weights=int4"],
        f"quant.weights.up=int4: no such choice; did you mean int4_block? {CODEC_NAMES}",
    ),
    (["quant=int8", "quant.smashed.zstd=99"], "quant.smashed.zstd=99: must be a level of zstandard, 1 to 22"),
    (["quant=int8", "quant.smashed.zstd=0"], "quant.smashed.zstd=0: must be a level of zstandard, 1 to 22"),
    (
        ["quant=int8", "quant.weights.up.zstd=best"],
        "quant.weights.up.zstd=best: must be a level of zstandard",
    ),
    (
        ["quant=int8", "quant.smashed.bits=auto", "quant.smashed.budget=0"],
        "quant.smashed.budget=0: must be a number greater than 0",
    ),
    (
        ["quant.smashed=topk", "quant.smashed.fraction=0"],
        "quant.smashed.fraction=0: must be a number above 0, at most 1",
    ),
    (
        ["quant.smashed=topk", "quant.smashed.fraction=1.1"],
        "quant.smashed.fraction=1.1: must be a number abo",
    ),
    (["quant.smashed=randtopk", "quant.smashed.alpha=2"], "quant.smashed.alpha=2: must be a number from 0"),
    (["quant.smashed.bits=4"], "quant.smashed.bits=4: no such key of codec none; known: zstd"),
    (
        ["quant.smashd=int4_channel"],
        "quant.smashd=int4_channel: no such key; did you mean smashed? known: smashed, cut_gradient, ",
    ),
    (["quant.smashed=null"], "quant.smashed=null: must be a codec; none sends"),
    (["quant.weights.sideways=none"], "quant.weights.sideways=none: no such key; known: up, down, whole"),
    (["+quant.weights.sideways=none"], "quant.weights.sideways=none: no such key; known: up, down, whole"),
    (["quant.continue_from_decoded=maybe"], "quant.continue_from_decoded=maybe: must be true or false"),
    (["~quant.smashed"], "quant.smashed=null: must be a codec"),
    (["~quant.weights"], "quant.weights=null: "),
    (["~quant"], "quant=null: must be a choice of this group"),
    (["~quant.continue_from_decoded"], "quant.continue_from_decoded=null: must be true or false"),
    (
        ["quant.smashed._target_=fedsplit.quant.nothing"],
        "quant.smashed._target_=fedsplit.quant.nothing: must be the dotted path",
    ),
]
"""Mistakes that composing and checking a configuration finds."""
MISTAKES = [
    (
        ["quant=int8", "quant.smashed.bits=17"],
        "quant.smashed.bits=17: must be a whole number from 1 to 16 or",
    ),
    (["quant.smashed.zstd=3"], "quant.smashed.zstd=3: must be null"),
    (
        ["quant=int8", "quant.weights=none", "quant.weights.up.zstd=3"],
        "quant.weights.up.zstd=3: must be null",
    ),
    (
        ["quant=int8", "quant.smashed.bits=auto"],
        "quant.smashed.budget=null: must be a number of bits per value with bits=auto, such as 1.0",
    ),
    (["quant=int8", "quant.smashed.budget=1.0"], "quant.smashed.budget=1.0: must be null with bits=8"),
    (["-m", "quant.weights=none,fp16"], "quant.weights=none,fp16: a sweep takes one of quant.weights.up, "),
    (
        ["quant.smashed._target_=fedsplit.optim.schedules.Constant"],
        "quant.smashed._target_=fedsplit.optim.schedules.Constant: must make a Codec",
    ),
    (
        ["dataset.validation=1438"],
        "dataset.validation=1438: ",
    ),
]
"""Mistakes of command lines: one that composing finds, and those that only a command finds."""


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_quant_mistake_is_refused_in_one_line(
    arguments: list[str], message: str, configured: Configure
) -> None:
    with pytest.raises(UserError) as caught:
        configured(*arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_quant_mistake_ends_with_one_clear_line_and_nothing_written(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    code = main()
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {message}")
    assert (code, told.err.count("\n"), told.out) == (2, 1, "")
    assert list(tmp_path.iterdir()) == []


def test_sweep_with_a_mistake_in_one_job_is_refused_before_the_first_runs(tmp_path: Path) -> None:
    done = command("-m", "quant=int8", "quant.smashed.bits=8,17", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 2
    assert done.stderr == ("error: quant.smashed.bits=17: must be a whole number from 1 to 16 or auto\n")
    assert not (tmp_path / "sweep").exists()
