"""Offsets of requests with lengths of their own: an indptr or cu_seqlens tensor, looked at from the host or left where it is."""

import torch

from flashmla._errors import invalid
from flashmla.compat._words import tensor_text


def device_offsets(operation, name, offsets, device):
    """The tensor as the library takes it, int32 on `device`. Nothing is read, so that a stream being captured can do it."""
    if not isinstance(offsets, torch.Tensor) or offsets.dim() != 1 or offsets.numel() == 0 or offsets.is_floating_point():
        raise invalid(operation, name, tensor_text(offsets), "a tensor of integers [batch + 1]")
    return offsets.to(device, torch.int32).contiguous()


def host_offsets(operation, name, offsets):
    """The tensor as a list of ints that rises from 0; synchronises when it lies on a GPU."""
    values = device_offsets(operation, name, offsets, "cpu").tolist()
    if values[0] != 0 or any(a > b for a, b in zip(values, values[1:])):
        raise invalid(operation, name, f"{values[:4]} ..", "offsets that begin at 0 and never fall")
    return values


def longest(offsets):
    return max((end - begin for begin, end in zip(offsets, offsets[1:])), default=0)
