"""Runs of language models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedsplit.building.process import prepare_process
from fedsplit.config.component import component_of
from fedsplit.errors import UserError
from fedsplit.models.zoo.language_models import transformers
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from tests.conftest import ALGORITHMS, Configure
from tests.models.sharing_adapters import OfPeft, OneForAll
from tests.texts import of_texts

OVERRIDES = (
    "model=tiny_gpt2",
    "model.sizes={n_layer: 2, n_embd: 16, n_head: 2}",
    "num_clients=3",
    "batch_size=8",
    "rounds=2",
    "progress=false",
    "optimizer.lr=0.01",
    "auxiliary.align_epochs=2",
    "auxiliary.max_dataset_size=16",
    "auxiliary.align_batch_size=8",
)


def built(configured: Configure, *overrides: str, classified: bool = False) -> Experiment:
    config = of_texts(configured(*OVERRIDES, *overrides), classified=classified)
    prepare_process(config)
    return Experiment(config)


def frozen_of(run: Experiment) -> dict[str, torch.Tensor]:
    """Parameters that do not learn, by name, in the models' own memory."""
    halves = run.parts.models.halves
    named = [*halves.client.named_parameters(), *halves.server.named_parameters()]
    return {name: parameter for name, parameter in named if not parameter.requires_grad}


def assert_what_learns_moves(run: Experiment) -> None:
    frozen = frozen_of(run)
    copies = {name: parameter.detach().clone() for name, parameter in frozen.items()}
    before = run.algorithm.full_weights()
    losses = [run.run_round(t).train_loss for t in range(2)]
    assert losses[1] < losses[0]
    after = run.algorithm.full_weights()
    assert before.keys() & frozen.keys() == set()
    assert [name for name in after if torch.equal(after[name], before[name])] == []
    assert all(torch.equal(frozen[name], copy) for name, copy in copies.items())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_language_model_learns_under_every_algorithm(algorithm: str, configured: Configure) -> None:
    run = built(configured, f"algorithm={algorithm}", "adapter=lora")
    assert len(frozen_of(run)) > 0
    assert_what_learns_moves(run)


@pytest.mark.parametrize(
    ("model", "adapter"),
    [
        ("tiny_gpt2", "none"),
        ("causal_lm", "lora"),
        pytest.param("sequence_classifier", "none", marks=pytest.mark.long),
        ("sequence_classifier", "lora"),
    ],
)
def test_model_of_texts_trains_with_an_adapter(model: str, adapter: str, configured: Configure) -> None:
    sizes = {
        "tiny_gpt2": "{n_layer: 2, n_embd: 16, n_head: 2}",
        "causal_lm": "{hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2}",
        "sequence_classifier": "{dim: 16, n_layers: 2, n_heads: 2, hidden_dim: 24}",
    }
    architectures = {"causal_lm": "llama", "sequence_classifier": "distilbert", "tiny_gpt2": "gpt2"}
    keys = [f"model.architecture={architectures[model]}"]
    if (model, adapter) == ("sequence_classifier", "lora"):
        keys.append("adapter.targets=[q_lin]")
    chosen = (f"model={model}", f"model.sizes={sizes[model]}", f"adapter={adapter}", *keys)
    overrides = (*OVERRIDES[2:], *chosen, "algorithm=fed_avg")
    config = of_texts(configured(*overrides), classified=model == "sequence_classifier")
    prepare_process(config)
    assert_what_learns_moves(Experiment(config))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # asked by PEFT itself
def test_adapter_that_a_run_leaves_loads_in_peft_with_the_outputs_of_its_model(
    configured: Configure, tmp_path: Path
) -> None:
    library = transformers()
    from peft import PeftModel  # noqa: PLC0415  (after torchvision was repaired)

    torch.manual_seed(0)
    config = library.AutoConfig.for_model(
        "llama",
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    base = tmp_path / "base"
    library.AutoModelForCausalLM.from_config(config).save_pretrained(base)
    causal = ("model=causal_lm", f"model.name={base}", "adapter=lora", "algorithm=splitfed_v2")
    overrides = [each for each in OVERRIDES if not each.startswith("model")]
    run = Experiment(of_texts(configured(*overrides, *causal)))
    run.run(RunDirectory(tmp_path / "run"))
    halves, full = run.parts.models.halves, run.algorithm.full_weights()
    for half in (halves.client, halves.server):
        half.load_state_dict(full, strict=False)
        half.eval()
    x = torch.arange(18).view(2, 9)
    plain = library.AutoModelForCausalLM.from_pretrained(base)
    found = PeftModel.from_pretrained(plain, tmp_path / "run" / "model").eval()
    assert torch.equal(found(input_ids=x).logits, halves.server(halves.client(x)))
    written = json.loads((tmp_path / "run" / "model" / "adapter_config.json").read_text())
    assert (written["r"], written["target_modules"]) == (4, ["q_proj", "v_proj"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("engine=vectorized", "engine=vectorized: .*its code cannot be traced"),
        ("qat=true", "qat=True: must be false with this model"),
        ("weight_bits=4", "weight_bits=4: must be null with this model"),
        ("compile=true", "compile=True: must be false with this model"),
        ("cuda_graphs=true", "cuda_graphs=True: must be false with this model"),
        ("model.untie=false", "wte.weight and lm_head.weight are one and the same; model.untie=true lets"),
    ],
)
def test_what_needs_a_traced_model_is_refused_in_one_line(
    override: str, told: str, configured: Configure
) -> None:
    with pytest.raises(UserError, match=told):
        built(configured, override)


def test_engine_is_sequential_where_code_cannot_be_traced(configured: Configure) -> None:
    assert built(configured).parts.config.choices["engine"] == "sequential"


@pytest.mark.parametrize("untie", ["true", "false"])
def test_adapter_whose_layers_share_what_learns_is_refused(untie: str, configured: Configure) -> None:
    config = of_texts(configured(*OVERRIDES, f"model.untie={untie}"))
    with pytest.raises(UserError, match=r"^adapter=.* are one and the same; layers of an adapter must share"):
        Experiment(replace(config, adapter=component_of("adapter", OneForAll)))


@pytest.mark.parametrize(
    ("name", "keys"),
    [("VeraConfig", {"r": 2}), ("VBLoRAConfig", {"r": 2, "num_vectors": 8, "vector_length": 4})],
)
def test_adapter_that_peft_does_not_inject_is_refused_in_its_words(
    name: str, keys: dict[str, int], configured: Configure
) -> None:
    config = of_texts(configured(*OVERRIDES))
    adapter = component_of("adapter", OfPeft, name=name, keys=keys)
    with pytest.raises(UserError, match=r"^adapter=.*cannot be added to this model .*uses shared state"):
        Experiment(replace(config, adapter=adapter))
