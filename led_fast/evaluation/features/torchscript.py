"""A user's own feature network, in one file."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from led_fast.errors import InputError


def load_torchscript(path: Path, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """A TorchScript network: uint8 (B, 3, H, W) in, features (B, d) out; grey images become RGB.

    Where its `forward` has an argument `return_features`, that is set: so the Inception file that the
    StyleGAN papers measure by works as it is.

    Raises:
        InputError: not a TorchScript file.
    """
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a TorchScript file ({reason})") from None
    arguments = {argument.name for argument in network.forward.schema.arguments}
    options = {"return_features": True} if "return_features" in arguments else {}
    return lambda images: network(images.to(device).expand(-1, 3, -1, -1), **options)
