"""Requests with query lengths of their own, as calls that the library has: one for each query length among them."""

import typing

import torch

from flashmla._errors import invalid
from flashmla.compat._words import tensor_text


class Group(typing.NamedTuple):
    """Requests of one query length. requests int64 [n] and tokens int64 [n * q_tokens] pick their rows; None: they are all there are."""

    q_tokens: int
    size: int
    requests: torch.Tensor | None
    tokens: torch.Tensor | None


def host_offsets(operation, name, offsets, total=None):
    """An indptr or cu_seqlens tensor as a list of ints that rises from 0; synchronises when it lies on a GPU."""
    if not isinstance(offsets, torch.Tensor) or offsets.dim() != 1 or offsets.numel() == 0 or offsets.is_floating_point():
        raise invalid(operation, name, tensor_text(offsets), "a tensor of integers [batch + 1]")
    values = offsets.tolist()
    if values[0] != 0 or any(a > b for a, b in zip(values, values[1:])):
        raise invalid(operation, name, f"{values[:4]} ..", "offsets that begin at 0 and never fall")
    if total is not None and values[-1] != total:
        raise invalid(operation, name, f"a last offset of {values[-1]}", f"{total}, the query tokens")
    return values


def groups_of(offsets, device):
    """The groups of requests whose query tokens are [offsets[i], offsets[i + 1]); a request without any belongs to none."""
    members = {}
    for request, (begin, end) in enumerate(zip(offsets, offsets[1:])):
        if end > begin:
            members.setdefault(end - begin, []).append(request)
    if len(members) == 1 and (only := next(iter(members.items()))) and len(only[1]) == len(offsets) - 1:
        return [Group(only[0], len(only[1]), None, None)]
    groups = []
    for length, requests in sorted(members.items()):
        tokens = [offsets[request] + i for request in requests for i in range(length)]
        picks = (torch.tensor(numbers, dtype=torch.int64, device=device) for numbers in (requests, tokens))
        groups.append(Group(length, len(requests), *picks))
    return groups
