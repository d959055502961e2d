"""States of modules, which hold JSON values beside tensors."""

import torch


def same_state(one, other):
    """Whether two states have the same names and, bit for bit, the same values."""
    if one.keys() != other.keys():
        return False
    pairs = [(value, other[name]) for name, value in one.items()]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
