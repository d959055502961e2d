"""One file holds a whole state: tensors as safetensors, everything else as JSON in the same file's header.

A state is any nesting of dicts, lists, tensors and JSON values (what `state_dict` methods return). Being one
file, it is replaced by one rename: a reader sees the old state or the new one, never half of either.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from led_fast.errors import InputError
from led_fast.files import write_atomically

_HEADER = "led_fast"
_FORMAT = 1


def save_state(path: Path, kind: str, state: dict[str, Any]) -> None:
    """Writes a state.

    Args:
        path: the file to replace.
        kind: what the state is, checked when it is read back.
        state: nested dicts and lists of tensors and JSON values.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _take_tensors(state, kind, tensors)
    header = json.dumps({"format": _FORMAT, "kind": kind, "skeleton": skeleton})
    write_atomically(path, save(tensors, metadata={_HEADER: header}))


def load_state(path: Path, kind: str) -> dict[str, Any]:
    """Reads what `save_state` wrote.

    Raises:
        InputError: the file is missing, truncated, not ours, or holds another kind of state.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = path.read_bytes()  # not mapped: what happens to the file afterwards changes no tensor
        with torch.device("cpu"):
            tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, OSError, KeyError) as error:  # a type of tensors that is not known is a key
        raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None
    if _HEADER not in metadata:
        raise InputError(f"{path}: a safetensors file, but not one that led_fast wrote")
    try:
        header = json.loads(metadata[_HEADER])
        found = header["format"], header["kind"]
        state = _put_tensors(header["skeleton"], tensors)
    except (ValueError, RecursionError, LookupError, TypeError):
        raise InputError(f"{path}: its header is damaged") from None
    if found != (_FORMAT, kind):
        raise InputError(f"{path}: want a {kind} of format {_FORMAT}, got a {found[1]} of format {found[0]}")
    if not isinstance(state, dict):
        raise InputError(f"{path}: its header is damaged")
    return state


def _take_tensors(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Moves the tensors of a state into `tensors`; returns JSON that says where each one was."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().contiguous()
        return {"tensor": path}
    if isinstance(value, dict):  # as pairs: optimisers number their parameters, and JSON keys are strings
        return {"dict": [[k, _take_tensors(v, f"{path}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_tensors(v, f"{path}.{i}", tensors) for i, v in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of `_take_tensors`."""
    if isinstance(value, list):
        return [_put_tensors(v, tensors) for v in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _put_tensors(v, tensors) for key, v in value["dict"]}
    return value
