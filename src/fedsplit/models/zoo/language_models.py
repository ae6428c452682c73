"""Models of the transformers library: from a folder or file that holds one, or from scratch.

Nothing of a folder is run or unpickled, and nothing is looked for anywhere else.
"""

import logging
import os
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from fedsplit.errors import UserError, first_line
from fedsplit.files.bounded import Damage, json_in
from fedsplit.files.paths import user_path
from fedsplit.machine.extras import extra
from fedsplit.machine.torchvision_operators import torchvision

Attention: TypeAlias = Literal["sdpa", "eager"]
Kind: TypeAlias = Literal["AutoModelForCausalLM", "AutoModelForSequenceClassification"]
_MOST_LAYERS = 1000
"""Modules of a layer take memory before their tensors do, which are counted first."""
_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")


@cache
def transformers() -> Any:
    """The transformers library, which says only what is wrong."""
    torchvision()
    for talker in ("torchao", "torch.utils._pytree"):  # imported where it is installed, of no use here
        logging.getLogger(talker).setLevel(logging.ERROR)
    os.environ.setdefault("TQDM_DISABLE", "1")  # read once, before weights of GGUF files are
    with extra("model", "causal_lm"):
        library: Any = import_module("transformers")
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def language_model(
    kind: Kind,
    *,
    vocabulary: int,
    context: int,
    name: str | None,
    architecture: str | None,
    sizes: Mapping[str, object] | None,
    attention: Attention,
    **further: object,
) -> nn.Module:
    """A model of text.

    Args:
        kind: kind of outputs.
        vocabulary: token ids are below this.
        context: most tokens of a sample.
        name: a folder with `config.json` and safetensors, or a GGUF file; None makes an untrained model.
        architecture: architecture of an untrained model, as `model_type` of transformers has it.
        sizes: keys of its configuration.
        attention: implementation of attention.
        further: keys of any configuration.

    Raises:
        UserError: there is no such model, or it does not fit the data.
    """
    if (name is None) == (architecture is None):
        message = "either model.name, of a folder or GGUF file, or model.architecture is needed"
        raise UserError("model.name", name, message)
    key, value = ("model.name", name) if name is not None else ("model.architecture", architecture)
    place = None if name is None else user_path(name, "model.name")
    if place is not None and not place.exists():
        raise UserError(key, value, "no such folder or GGUF file")
    if place is not None and place.is_dir():
        _check_folder(key, place)
    try:
        if place is None:
            config = _configure_untrained(str(architecture), dict(sizes or {}), vocabulary, context, further)
        else:
            where, how = _locate(place)
            config = transformers().AutoConfig.from_pretrained(*where, **how)
            for name_of, each in further.items():
                setattr(config, name_of, each)
        _refuse_misfits(config, key, value, vocabulary, context)
        return _make(kind, place, config, attention)
    except UserError:
        raise
    except Exception as error:  # whatever the library says of what is not one of its models
        raise UserError(key, value, f"makes no such model ({first_line(error)})") from error


def _configure_untrained(
    architecture: str, sizes: dict[str, Any], vocabulary: int, context: int, further: Mapping[str, object]
) -> Any:
    """The configuration of a model from scratch; special tokens that no text has are left out."""
    library = transformers()
    if architecture not in library.CONFIG_MAPPING:
        raise UserError("model.architecture", architecture, "must be a model_type of transformers")
    known = library.CONFIG_MAPPING[architecture]()
    if unknown := [key for key in sizes if key.startswith("_") or not hasattr(known, key)]:
        raise UserError("model.sizes", unknown[0], f"must be a key of the configuration of {architecture}")
    ids = {key: each for key in _SPECIAL if (each := getattr(known, key, None)) is None or each >= vocabulary}
    given = {"vocab_size": vocabulary, **dict.fromkeys(ids), **further, **sizes}
    if hasattr(known, "max_position_embeddings") and "max_position_embeddings" not in sizes:
        offset = (getattr(known, "pad_token_id", None) or 0) + 1 if architecture == "roberta" else 0
        given["max_position_embeddings"] = context + offset
    return library.AutoConfig.for_model(architecture, **given)


def _locate(place: Path) -> tuple[tuple[str], dict[str, object]]:
    """Arguments of the library's loaders."""
    apart: dict[str, object] = {"local_files_only": True, "trust_remote_code": False}
    if place.is_dir():
        return (str(place),), apart
    return (str(place.parent),), {**apart, "gguf_file": place.name}


def _check_folder(key: str, folder: Path) -> None:
    """Refuse a folder that holds anything but a configuration and weights in safetensors.

    Raises:
        UserError: it does, or is damaged.
    """
    try:
        config = json_in(folder / "config.json")
    except OSError as error:
        message = f"holds no config.json that can be read ({error.strerror})"
        raise UserError(key, folder, message) from error
    except Damage as error:
        raise UserError(key, folder, first_line(error)) from error
    if not isinstance(config, dict):
        reason = "config.json holds no object"
    elif "auto_map" in config:
        reason = "config.json names code of its own, which is never run"
    elif "quantization_config" in config:
        reason = "its weights are quantized already; take the model in floats"
    elif (folder / "adapter_config.json").exists():
        reason = "holds an adapter too; take a folder of the model alone"
    elif not any(folder.glob("*.safetensors")):
        reason = "holds no safetensors; other files of weights are never unpickled"
    else:
        return
    raise UserError(key, folder, reason)


def _refuse_misfits(config: Any, key: str, value: object, vocabulary: int, context: int) -> None:
    if config.vocab_size < vocabulary:
        message = f"knows {config.vocab_size} tokens, fewer than the {vocabulary} of the dataset's tokenizer"
        raise UserError(key, value, message)
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise UserError(key, value, f"has {layers} layers, and must have at most {_MOST_LAYERS}")
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions < context:
        raise UserError(key, value, f"has {positions} positions, fewer than the dataset's context, {context}")


def _make(kind: Kind, place: Path | None, config: Any, attention: Attention) -> nn.Module:
    builder = getattr(transformers(), kind)
    made: nn.Module
    if place is None or torch.get_default_device().type == "meta":  # a model that is only counted
        made = builder.from_config(config, attn_implementation=attention, trust_remote_code=False)
    else:
        (where,), how = _locate(place)
        made = builder.from_pretrained(
            where,
            config=config,
            attn_implementation=attention,
            dtype=torch.get_default_dtype(),
            use_safetensors=True if place.is_dir() else None,
            **how,
        )
    made.frozen_from_files = place is not None  # type: ignore[assignment]
    return made.to(torch.get_default_dtype())
