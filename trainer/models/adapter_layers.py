"""Modules of a model that a LoRA adapter covers, read from the model itself.

Model families name their layers and projections differently: Phi-3 fuses projections (`qkv_proj`,
`gate_up_proj`), and Gemma 3 with vision has a second stack of layers with projections of the same names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import TrainingError

# PEFT refuses these: the fused kernels of Mamba layers bypass an adapter on them.
_MAMBA_TYPES = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
_MAMBA_MODULES = {"out_proj", "conv1d"}


@dataclass(frozen=True)
class AdapterLayers:
    """Modules that an adapter covers, in the terms of `peft.LoraConfig`."""

    modules: list[str]
    """Names of the linear modules within a layer, such as `q_proj`."""
    layers: list[int]
    """Indices of the layers."""
    pattern: str
    """Name of the list of layers, such as `layers`."""
    exclude: str | None
    """Regular expression of module names outside of the language model's layers; None if none has one of the
    names in `modules`."""


def adapter_layers(model: str | Path, count: int) -> AdapterLayers:
    """Returns all linear modules of the top `count` layers of a model's decoder.

    The weights are not read. Experts of a mixture that are stored in one tensor, routers and the embeddings
    get no adapter.

    Args:
        model: model folder or hub name.

    Raises:
        TrainingError: the model has no layers that an adapter can cover.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model)
    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise TrainingError(
            f"'{model}' is not a model that generates text ({str(error).splitlines()[0]}): pass another model"
        ) from None
    modules = dict(network.named_modules())
    text_config = config.get_text_config(decoder=True)
    depth = text_config.num_hidden_layers
    path = _layers_path(modules, network.get_decoder(), depth)
    if path is None:
        raise TrainingError(
            f"an adapter cannot be placed in '{model}': its decoder has no list of {depth} layers; train all "
            "weights with lora_rank 0"
        )
    layers = list(range(max(0, depth - count), depth))
    experts = _expert_count(text_config)
    names = sorted(
        {
            name.rpartition(".")[2]
            for name, module in modules.items()
            if (found := re.match(rf"{re.escape(path)}\.(\d+)\.", name))
            and int(found[1]) in layers
            and _is_linear(module)
            and getattr(module, "out_features", None) != experts
        }
        - (_MAMBA_MODULES if getattr(config, "model_type", "") in _MAMBA_TYPES else set())
    )
    if not names:
        raise TrainingError(
            f"an adapter cannot be placed in '{model}': its layers have no linear modules; train all weights "
            "with lora_rank 0"
        )
    outside = any(
        name.rpartition(".")[2] in names and not name.startswith(f"{path}.") and _is_linear(module)
        for name, module in modules.items()
    )
    exclude = rf"(?!{re.escape(path)}\.).*" if outside else None
    return AdapterLayers(names, layers, path.rpartition(".")[2], exclude)


def _layers_path(modules: dict[str, Any], decoder: Any, depth: int) -> str | None:
    """Returns the name of the decoder's list of layers; None if it has none."""
    from torch.nn import ModuleList

    prefix = next((name for name, module in modules.items() if module is decoder), "")
    lists = [
        name for name, module in modules.items() if isinstance(module, ModuleList) and len(module) == depth
    ]
    return next((name for name in lists if name.startswith(prefix)), None)


def _is_linear(module: Any) -> bool:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Linear | Conv1D)


def _expert_count(config: Any) -> int | None:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return next((count for name in names if isinstance(count := getattr(config, name, None), int)), None)
