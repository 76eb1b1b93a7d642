"""PEFT's contexts, read from a list of what is understood.

A context is never handed to PEFT: it becomes a prefix like any other, so that it can be watched, pruned and composed.
Therefore every key of its configuration and every tensor of its file must be one whose meaning is known here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError
from elicitable.methods.peft_config import check_empty, check_task

if TYPE_CHECKING:
    from torch import Tensor

    from elicitable.models.model import Model

TABLE = "prompt_embeddings"
_NOTES = {
    "peft_type",
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "token_dim",
    "num_layers",
    "num_attention_heads",
    "num_transformer_submodules",
    "num_virtual_tokens",
}
_START = {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"}
# What says how a context was started or trained, and no longer matters once its table is finished.
_TRAINING: dict[str, set[str]] = {
    "PROMPT_TUNING": _START,
    "P_TUNING": {
        "encoder_reparameterization_type",
        "encoder_hidden_size",
        "encoder_num_layers",
        "encoder_dropout",
    },
    "MULTITASK_PROMPT_TUNING": {
        *_START,
        "prompt_tuning_init_state_dict_path",
        "prompt_tuning_init_task",
        "num_ranks",
        "num_tasks",
    },
    "PREFIX_TUNING": {"init_weights", "encoder_hidden_size", "prefix_projection"},
    "CARTRIDGE": {"num_frozen_tokens"},
    "CPT": {
        "cpt_token_ids",
        "cpt_mask",
        "cpt_tokens_type_mask",
        "opt_weighted_loss_type",
        "opt_loss_decay_factor",
        "opt_projection_epsilon",
        "opt_projection_format_epsilon",
        "tokenizer_name_or_path",
    },
}
CONTEXT_TYPES = tuple(_TRAINING)
_OF_KEYS = ("PREFIX_TUNING", "CARTRIDGE")  # their tables hold keys and values, the others' embeddings


def understood(model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the finished table of a context as :data:`TABLE`, after accounting for everything in the folder.

    Raises:
        InputError: a key or tensor that is not understood, or one that contradicts the table or the model.
    """
    kind = str(config["peft_type"])
    check_task(folder, config)
    for key, value in config.items():
        if key not in _NOTES | _TRAINING[kind]:
            check_empty(folder, kind, key, value)
    if config.get("num_transformer_submodules") not in (None, 1):
        raise InputError(
            f"{folder}: num_transformer_submodules is {config['num_transformer_submodules']!r}; expected 1, as for a "
            "decoder."
        )
    table, others = _table_of(folder, kind, config, tensors)
    if others:
        raise InputError(f"{folder}: the file has tensors that belong to no {kind}: {', '.join(sorted(others)[:3])}.")
    _check_size(folder, config, len(table) if table.ndim else 0)
    if kind in _OF_KEYS:
        _check_heads(model, folder, config)
    return {TABLE: table}


def _table_of(
    folder: Path, kind: str, config: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    others = dict(tensors)
    table = others.pop(TABLE, None)
    if table is None:
        raise InputError(f"{folder}: the file has no {TABLE}, which every {kind} needs.")
    if kind != "MULTITASK_PROMPT_TUNING":
        return table, others
    columns, rows = others.pop("prefix_task_cols", None), others.pop("prefix_task_rows", None)
    if columns is None or rows is None:
        raise InputError(f"{folder}: the file lacks prefix_task_cols or prefix_task_rows, which every {kind} needs.")
    if len(columns) != 1 or len(rows) != 1 or config.get("num_tasks", 1) != 1:
        raise InputError(
            f"{folder}: a {kind} of {len(columns)} tasks is not read, as nothing says which task is meant; save the "
            "one that you need as PROMPT_TUNING (its embeddings times prefix_task_cols[i] @ prefix_task_rows[i])."
        )
    change = columns[0] @ rows[0]
    if change.shape != table.shape:
        raise InputError(
            f"{folder}: {TABLE} is {tuple(table.shape)}, what its task changes it by {tuple(change.shape)}; expected "
            "the same shape."
        )
    return table * change, others


def _check_size(folder: Path, config: dict[str, Any], rows: int) -> None:
    said = config.get("num_virtual_tokens", rows)
    if isinstance(said, bool) or said != rows:
        raise InputError(f"{folder}: num_virtual_tokens is {said!r}; expected {rows}, as {TABLE} has rows.")


def _check_heads(model: Model, folder: Path, config: dict[str, Any]) -> None:
    """Raise InputError where a table of the right width was made for other heads or layers."""
    facts = model.anatomy.layers[0]
    wanted = {
        "num_layers": model.anatomy.depth,
        "num_attention_heads": facts.kv_heads,
        "token_dim": facts.kv_heads * facts.d_head,
    }
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise InputError(
                f"{folder}: {key} is {config[key]!r}; expected {value} for {model.name}: it was made for another model."
            )
