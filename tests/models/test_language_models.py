"""Language models from configurations, folders and files, and the adapters that learn beside them."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedsplit.errors import UserError
from fedsplit.models.adapters.lora import Lora
from fedsplit.models.splitting.split import split
from fedsplit.models.zoo.causal_lm import causal_lm
from fedsplit.models.zoo.language_models import transformers
from tests.models.families import (
    CONTEXT,
    VOCABULARY,
    adapted,
    decoder,
    encoder,
    tokens,
)

X = tokens(2, 9)


def saved(model: nn.Module, folder: Path) -> Path:
    """A folder that holds a model as transformers saves it."""
    own = type(model).__mro__[2]
    model.__class__ = own  # the library names a file's model by its class
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder


def loaded(name: Path | str, **sizes: Any) -> nn.Module:
    return causal_lm(**{"vocabulary": VOCABULARY, "context": CONTEXT, "name": str(name), **sizes})


def test_model_of_a_folder_has_the_logits_of_the_model_that_was_saved(tmp_path: Path) -> None:
    original = decoder("llama").eval()
    expected = original(X)
    found = loaded(saved(original, tmp_path)).eval()
    assert torch.equal(found(X), expected)
    assert loaded(tmp_path, vocabulary=30)(X.clamp_max(29)).shape == (2, 9, 30)


def test_padding_on_the_right_changes_no_logit_before_it() -> None:
    model = decoder("gpt2").eval()
    padded = nn.functional.pad(X, (0, 3), value=-1)
    torch.testing.assert_close(model(padded)[:, :9], model(X))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"vocabulary": VOCABULARY + 1}, "knows 40 tokens, fewer than the 41 of the dataset's tokenizer"),
        ({"context": CONTEXT + 1}, "has 12 positions, fewer than the dataset's context, 13"),
    ],
)
def test_model_of_a_folder_that_is_too_small_for_the_data_is_refused(
    keys: dict[str, int], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        loaded(saved(decoder("gpt2"), tmp_path), **keys)


def test_nothing_of_a_folder_is_unpickled_or_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("raise SystemExit('it ran')",)

    folder = saved(decoder("gpt2"), tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"model.name=.*holds no safetensors; other files of weights"):
        loaded(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UserError, match=r"model.name=.*names code of its own, which is never run"):
        loaded(folder)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", "config.json"),
        ("[]", "config.json holds no object"),
        ('{"model_type": "gpt2", "quantization_config": {}}', "quantized already"),
        ('{"model_type": "own"}', "makes no such model"),
        ('{"model_type": "gpt2", "n_layer": 1000000}', "has 1000000 layers, and must have at most 1000"),
        (" " * 5_000_000, "config.json"),
        (None, "config.json"),
    ],
)
def test_folder_with_a_configuration_that_is_none_is_refused_in_one_line(
    config: str | None, told: str, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=told) as error:
        loaded(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_folder_of_an_adapter_opens_no_other_folder(tmp_path: Path) -> None:
    folder = saved(decoder("gpt2"), tmp_path)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    with pytest.raises(UserError, match="holds an adapter too; take a folder of the model alone"):
        loaded(folder)


def gguf_file(path: Path, model: nn.Module, config: Any) -> None:
    """A Llama as llama.cpp stores it: rows of queries and keys change places, and matrices are in 8 bits."""
    import gguf  # noqa: PLC0415

    names = {
        "embed_tokens": "token_embd",
        "norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        **{f"self_attn.{one}_proj": f"attn_{one}" for one in "qkv"},
        "self_attn.o_proj": "attn_output",
        **{f"mlp.{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")},
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    for name, tensor in model.state_dict().items():
        inner = name.removeprefix("model.").removesuffix(".weight")
        place, _, part = inner.removeprefix("layers.").partition(".")
        if inner.startswith("layers."):
            stored = f"blk.{place}.{names[part]}.weight"
        else:
            stored = f"{names[inner]}.weight"
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        if heads_of := heads.get(inner.rpartition(".")[2]):
            split_up = tensor.view(heads_of, 2, -1, tensor.shape[1])
            array = split_up.transpose(1, 2).reshape(tensor.shape).numpy()
        else:
            array = tensor.numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(stored, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_file_is_the_model_that_was_stored_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_key_value_heads": 2}
    model = decoder("llama", **sizes).eval()
    path = tmp_path / "tiny.gguf"
    gguf_file(path, model, model.config)
    found = loaded(path).eval()
    for name, tensor in found.state_dict().items():
        stored = model.state_dict()[name]
        torch.testing.assert_close(tensor, stored, rtol=0, atol=float(stored.abs().max()) / 200, msg=name)
    torch.testing.assert_close(found(X), model(X), rtol=0, atol=0.05)
    written = path.read_bytes()
    for damaged in (written[: len(written) // 2], written[:40], b"GGUF" + b"\xff" * 60, b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"model.name=.*makes no such model") as error:
            loaded(path)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "model.name=null: either model.name"),
        ({"name": "/nowhere", "architecture": "gpt2"}, "model.name=/nowhere: either model.name"),
        ({"name": "/nowhere"}, "model.name=/nowhere: no such folder or GGUF file"),
        ({"architecture": "gpt-2"}, "model.architecture=gpt-2: must be a model_type of transformers"),
        (
            {"architecture": "gpt2", "sizes": {"layers": 2}},
            "model.sizes=layers: must be a key of the configuration",
        ),
        (
            {"architecture": "gpt2", "sizes": {"n_layer": 1, "n_embd": 5, "n_head": 2}},
            "model.architecture=gpt2: makes no such model",
        ),
        (
            {"architecture": "bert", "sizes": {"num_hidden_layers": 1, "hidden_size": 12}},
            "is no causal language model: a token sees those after it",
        ),
    ],
)
def test_what_makes_no_causal_model_is_told_in_one_line(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        causal_lm(vocabulary=VOCABULARY, context=CONTEXT, **keys)


def lora(**keys: Any) -> Lora:
    return Lora(**{"rank": 2, "alpha": 4, "dropout": 0.0, "targets": None, "freeze_a": False, **keys})


@pytest.mark.parametrize("freeze_a", [False, True])
def test_only_adapters_learn_and_names_of_the_model_stay(freeze_a: bool) -> None:
    model = decoder("llama")
    names = set(model.state_dict())
    lora(freeze_a=freeze_a).inject(model)
    learn = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(learn) == 3 * 2 * (1 if freeze_a else 2)
    assert all("lora_B" in name or (not freeze_a and "lora_A" in name) for name in learn)
    own = {name.replace(".base_layer.", ".") for name in model.state_dict() if "lora_" not in name}
    assert own == names


def test_new_head_of_a_classifier_learns_beside_adapters() -> None:
    model = encoder("distilbert")
    lora(targets=["q_lin"]).inject(model)
    learn = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learn == {"distilbert", "pre_classifier", "classifier"}


def test_same_seed_draws_the_same_adapters() -> None:
    drawn = []
    for _ in range(2):
        model = decoder("gpt2")
        torch.manual_seed(5)
        lora().inject(model)
        drawn.append(model.state_dict())
    assert all(torch.equal(tensor, drawn[1][name]) for name, tensor in drawn[0].items())


def test_targets_that_are_not_there_are_told() -> None:
    with pytest.raises(UserError, match=r"adapter.targets=\['nothing'\]: "):
        lora(targets=["nothing"]).inject(decoder("gpt2"))
    with pytest.raises(UserError, match=r"adapter.targets=null: PEFT has no table"):
        lora().inject(encoder("distilbert"))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # asked by PEFT itself
@pytest.mark.parametrize("family", [pytest.param("gpt2"), pytest.param("llama", marks=pytest.mark.long)])
def test_files_of_an_adapter_load_in_peft_with_the_outputs_of_the_halves(family: str, tmp_path: Path) -> None:
    base = decoder(family, tied=family == "gpt2")
    saved(decoder(family, tied=family == "gpt2"), tmp_path / "base")
    halves = split(adapted(base), f"{'transformer.h' if family == 'gpt2' else 'model.layers'}.0", X)
    weights = halves.client.state_dict() | halves.server.state_dict()
    for name, content in lora().files(halves.server, weights).items():
        (tmp_path / name).write_bytes(content)
    from peft import PeftModel  # noqa: PLC0415  (after torchvision was repaired)

    plain = transformers().AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    found = PeftModel.from_pretrained(plain, tmp_path).eval()
    expected = halves.server.eval()(halves.client.eval()(X))
    assert torch.equal(found(input_ids=X).logits, expected)
