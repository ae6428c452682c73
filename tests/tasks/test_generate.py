"""Texts that runs generate, and that task=generate makes of the models they left."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fedsplit.building.process import prepare_process
from fedsplit.building.trained import TrainedRun
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.generation.scores import score
from fedsplit.models.zoo.language_models import transformers
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.recording.text_scores import SCORES
from fedsplit.tasks.generate import Generate
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resume
from tests.conftest import TINY, Configure
from tests.data.text_makers import NAMES, descriptions, e2e_nlg, table

SIZES = "model.sizes={n_layer: 2, n_embd: 16, n_head: 2}"
SHORT = ("num_clients=2", "batch_size=4", "progress=false", "algorithm=splitfed_v2", "dataset.context=80")
OF_TEXTS = (*SHORT, "experiment=e2e_tiny", SIZES, "dataset.tokenizer=bytes")
GREEDY = ("generation=greedy", "generation.max_tokens=3")


def run_at(directory: Path, config: RunConfig) -> Experiment:
    prepare_process(config)
    run = Experiment(config)
    run.run(RunDirectory(directory))
    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def greedy_one_by_one(run: Path, contexts: Sequence[str], tokens: int) -> list[str]:
    """Texts of bytes of a run's model, each computed alone, without the project's search."""
    trained = TrainedRun(run, device="cpu", threads=1)
    found = []
    for context in contexts:
        ids, own = [*context.encode(), 257], list[int]()
        while len(own) < tokens:
            with torch.no_grad():
                logits = trained.server(trained.client(torch.tensor([ids + own])))
            own.append(int(logits[0, -1].argmax()))
            if own[-1] == 256:
                break
        found.append(bytes(each for each in own if each < 256).decode(errors="replace"))
    return found


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return e2e_nlg(tmp_path / "e2e", monkeypatch)


def test_run_generates_at_every_second_evaluation_and_at_its_end_and_keeps_texts_and_scores(
    data: list[str], configured: Configure, tmp_path: Path
) -> None:
    greedy = (*GREEDY, "generation.interval=2", "rounds=3", "generation.samples=1")
    run_at(tmp_path / "run", configured(*OF_TEXTS, *data, *greedy))
    files = sorted(path.name for path in (tmp_path / "run" / "texts").iterdir())
    assert files == ["round-000001.jsonl", "round-000002.jsonl"]
    metrics = rows(tmp_path / "run" / "metrics.csv")
    assert [bool(row["bleu"]) for row in metrics] == [False, True, True]
    (last,) = lines(tmp_path / "run" / "texts" / files[-1])
    assert last["context"] == "name[Cotto], area[south]"
    assert last["references"] == ["Cotto is in the south.", 'In the south, "Cotto" is found.']
    assert [last["text"]] == greedy_one_by_one(tmp_path / "run", [str(last["context"])], 3)
    scores = vars(score([str(last["text"])], [last["references"]]))  # type: ignore[list-item]
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert results["text_scores"] == scores
    written = {name: float(metrics[-1][name]) if metrics[-1][name] else None for name in SCORES}
    assert written == scores


def test_generating_changes_neither_training_nor_what_a_resumed_run_leaves(
    data: list[str], configured: Configure, tmp_path: Path
) -> None:
    greedy = (*GREEDY, "generation.interval=1", "checkpoint_interval=1")
    run_at(tmp_path / "plain", configured(*OF_TEXTS, *data, "rounds=2"))
    run_at(tmp_path / "whole", configured(*OF_TEXTS, *data, *greedy, "rounds=2"))
    run_at(tmp_path / "resumed", configured(*OF_TEXTS, *data, *greedy, "rounds=1"))
    resume(tmp_path / "resumed", {"rounds": 2})
    for name in ("plain", "resumed"):
        for half in ("client", "server"):
            file = f"model/{half}.safetensors"
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    for number in range(2):
        file = f"texts/round-{number:06d}.jsonl"
        assert (tmp_path / "resumed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    both = [rows(tmp_path / name / "metrics.csv") for name in ("whole", "resumed")]
    whole, resumed = ([[row[name] for name in SCORES] for row in each] for each in both)
    assert whole == resumed


def test_generate_writes_what_the_model_of_a_run_continues_and_prints_its_scores(
    data: list[str], configured: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run_at(run, configured(*OF_TEXTS, *data, "rounds=1"))
    for beams in (1, 2):  # the second replaces what the first left
        keys = (f"run={run}", f"task.beams={beams}", "task.max_tokens=4")
        config = configured("task=generate", *keys)
        config.task.build(Generate).run(config, tmp_path / "unused")
        found = lines(run / "generate" / "texts.jsonl")
        texts, contexts = ([str(each[key]) for each in found] for key in ("text", "context"))
        assert contexts == ["name[Cotto], area[south]", "name[Aromi], area[south]"]
        if beams == 1:
            assert texts == greedy_one_by_one(run, contexts, 4)
        written = json.loads((run / "generate" / "generate.json").read_text("utf-8"))
        scores = vars(score(texts, [each["references"] for each in found]))  # type: ignore[misc]
        assert written == {"beams": beams, "max_tokens": 4, "texts": 2, **scores}
        assert "BLEU" in capsys.readouterr().out
    assert not (tmp_path / "unused").exists()


def test_model_of_a_folder_brings_its_tokenizer_and_its_run_generates(
    configured: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedsplit.data.tokenizers.subwords import learned_byte_pairs  # noqa: PLC0415  (an extra)

    data, folder = e2e_nlg(tmp_path / "e2e", monkeypatch), tmp_path / "folder"
    library = transformers()
    tokenizer = learned_byte_pairs([text for pair in descriptions(NAMES, ("north",)) for text in pair], 280)
    sizes = dict.fromkeys(("hidden_size", "intermediate_size"), 16) | {"num_attention_heads": 2}
    config = library.AutoConfig.for_model("llama", vocab_size=280, num_hidden_layers=3, **sizes)
    torch.manual_seed(0)
    library.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer._inner.to_str(), encoding="utf-8")
    line = ("model=causal_lm", f"model.name={folder}", "model.cut=model.layers.1", "adapter=lora")
    config = configured(*SHORT, *line, "adapter.rank=8", "dataset=e2e_nlg", *data, "rounds=1")
    assert (
        config.plain()["dataset"] | {"tokenizer": "files", "tokenizer_files": str(folder)}
        == (config.plain()["dataset"])
    )
    run = run_at(tmp_path / "run", config)
    assert run.parts.data.dataset.tokenizer == tokenizer.digest
    asked = configured("task=generate", f"run={tmp_path / 'run'}", "task.max_tokens=3")
    asked.task.build(Generate).run(asked, tmp_path / "unused")
    assert len(lines(tmp_path / "run" / "generate" / "texts.jsonl")) == 2


def test_data_without_contexts_is_refused_in_one_line(configured: Configure, tmp_path: Path) -> None:
    told = "needs a dataset with contexts that can be continued, such as e2e_nlg"
    with pytest.raises(UserError, match=f"generation=greedy: {told}"):
        Experiment(configured(*TINY, "generation=greedy"))
    run_at(tmp_path / "run", configured(*TINY, "rounds=1", "algorithm=fed_avg"))
    config = configured("task=generate", f"run={tmp_path / 'run'}")
    with pytest.raises(UserError, match=f"run=.*: {told}"):
        config.task.build(Generate).run(config, tmp_path / "unused")


def test_text_ends_where_the_context_of_the_model_does(configured: Configure, tmp_path: Path) -> None:
    root = tmp_path / "e2e"
    for file in ("devset.csv", "testset_w_refs.csv"):
        table(root / file, [("mr", "ref"), *descriptions(("Aromi",), ("riverside",))])
    keys = (f"dataset.root={root}", "num_clients=1", "rounds=1", "generation=greedy", "dataset.context=30")
    run_at(tmp_path / "run", configured(*OF_TEXTS, *keys, "generation.max_tokens=100"))
    (found,) = lines(tmp_path / "run" / "texts" / "round-000000.jsonl")
    context = str(found["context"])  # 28 bytes and the separator: one more is seen, and one follows
    assert [found["text"]] == greedy_one_by_one(tmp_path / "run", [context], 2)


@pytest.mark.parametrize("experiment", ["e2e_tiny", "e2e_smollm2", "e2e_gpt2_medium"])
def test_experiment_composes_with_every_algorithm_of_split_learning(
    experiment: str, configured: Configure
) -> None:
    config = configured(f"experiment={experiment}", "algorithm=splitfed_v2").plain()
    assert config["choices"]["dataset"] == "e2e_nlg"
    assert (config["adapter"].get("rank"), config["dataset"]["tokenizer"]) == {
        "e2e_tiny": (None, "bpe"),
        "e2e_smollm2": (8, "files"),
        "e2e_gpt2_medium": (4, "files"),
    }[experiment]


def test_gpt2_medium_experiment_has_the_settings_of_the_paper(configured: Configure) -> None:
    config = configured("experiment=e2e_gpt2_medium").plain()
    assert (config["batch_size"], config["num_clients"], config["local_epochs"]) == (8, 10, 1)
    expected = {
        "adapter": {"rank": 4, "alpha": 32, "dropout": 0.1, "targets": ["c_attn"]},
        "algorithm": {"server_update_interval": 5, "align_interval": 10},
        "auxiliary": {"depth": 3, "align_epochs": 40, "align_batch_size": 8, "max_dataset_size": 64},
        "dataset": {"context": 512, "label_smoothing": 0.1},
        "model": {"cut": "transformer.h.0"},
        "optimizer": {"lr": 2e-4, "weight_decay": 0.01},
        "scheduler": {"warmup": 500},
    }
    for group, values in expected.items():
        assert config[group] | values == config[group]
    assert config["optimizer"]["_target_"].endswith("AdamW")
