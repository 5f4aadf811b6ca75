"""The two tensors that FlashMLA's get_mla_metadata returned in 2025, made with tensor operations alone, so that they may be captured.

Row w of the first, int32 [num_parts, 8], is what one worker computes, in blocks of 64 tokens: begin request, end request (inclusive), begin
block, end block (exclusive), begin split, whether the first request is split, whether the last one is, pad. A worker with nothing to do
begins at request `batch`. The second, int32 [batch + 1], is the running count of splits.

Requests lie on a line, each as long as its blocks plus a fixed overhead for opening it; the line is cut evenly, and a cut inside an
overhead moves to that request's first block.
"""

import torch

from flashmla._errors import invalid

BLOCK_TOKENS = 64
ROW = 8
_OVERHEAD_BLOCKS = 5


def make_rows(lengths, num_parts):
    """(rows, splits) from int32 lengths [batch], on their device. No synchronisation."""
    device, batch = lengths.device, lengths.numel()
    if batch == 0:
        rows = torch.zeros(num_parts, ROW, dtype=torch.int32, device=device)
        rows[:, 1].fill_(-1)
        return rows, torch.zeros(1, dtype=torch.int32, device=device)
    blocks = (lengths.clamp(min=0).to(torch.int64) + BLOCK_TOKENS - 1) // BLOCK_TOKENS
    ends = torch.cumsum(blocks + _OVERHEAD_BLOCKS, 0)
    positions = torch.arange(num_parts + 1, device=device) * ends[-1] // num_parts
    request = torch.searchsorted(ends, positions, right=True)  # the last cut, at the line's end, gives `batch`
    inside = torch.clamp(request, max=batch - 1)
    offset = positions - ends[inside] + blocks[inside]
    block = torch.where(request < batch, offset.clamp(min=0), 0)  # 0: between requests
    # A cut splits a request if it lies inside and is not the cut before it once more.
    moved = torch.ones_like(request)
    moved[1:] = ((request[1:] != request[:-1]) | (block[1:] != block[:-1])).to(moved.dtype)
    splits_here = moved * (block > 0)
    cuts = torch.zeros(batch, dtype=torch.int64, device=device).index_add_(0, inside, splits_here)
    num_splits = cuts + 1
    splits = torch.zeros(batch + 1, dtype=torch.int64, device=device)
    splits[1:] = torch.cumsum(num_splits, 0)
    before = torch.cumsum(cuts, 0) - cuts
    begin_split = torch.where(block > 0, torch.cumsum(splits_here, 0) - before[inside], 0)
    end_request = torch.where(block > 0, request, request - 1)
    end_block = torch.where(block > 0, block, blocks[end_request.clamp(min=0)])
    rows = torch.zeros(num_parts, ROW, dtype=torch.int64, device=device)
    rows[:, 0], rows[:, 1] = request[:-1], end_request[1:]
    rows[:, 2], rows[:, 3] = block[:-1], end_block[1:]
    rows[:, 4] = begin_split[:-1]
    is_split = (num_splits > 1).to(torch.int64)
    rows[:, 5], rows[:, 6] = is_split[inside[:-1]], is_split[end_request[1:].clamp(min=0)]
    idle = torch.zeros(ROW, dtype=torch.int64, device=device)
    idle[0:1].fill_(batch)
    idle[1:2].fill_(batch - 1)
    rows = torch.where((moved[1:] > 0)[:, None], rows, idle)
    return rows.to(torch.int32), splits.to(torch.int32)


def check_rows(operation, rows):
    """Rejects rows on the CPU that this layout cannot have; those on a GPU are not read, since that would synchronise."""
    table = rows.tolist()
    if _chained(table, end_request=1, begin_block=2):
        return
    if _chained(table, end_request=2, begin_block=1):
        got = "rows of vLLM's 2025 layout (begin request, begin block, end request, end block, begin split)"
    else:
        got = f"rows that do not follow one another, the first being {table[0]}"
    layout = "begin request, end request, begin block, end block, begin split, first split, last split, pad"
    raise invalid(operation, "tile_scheduler_metadata", got, f"what get_mla_metadata returned ({layout})")


def _chained(table, end_request, begin_block):
    """Whether each row begins where the one before it ended, reading those two columns as told. Lengths may have changed since the rows
    were made, so nothing is compared with them."""
    previous = None  # first request, last request, end block, split of the row before
    for row in table:
        first, last, start, stop, split = row[0], row[end_request], row[begin_block], row[3], row[4]
        if last < first and start == stop == split == 0:
            continue  # an idle worker
        if min(first, start, stop, split) < 0 or (last, stop) < (first, start):
            return False
        if previous is None:
            follows = first == start == split == 0
        elif start == 0:
            follows = split == 0 and first == previous[1] + 1
        else:
            follows = (first, start) == previous[1:3] and split == (previous[3] + 1 if previous[0] == first else 1)
        if not follows:
            return False
        previous = (first, last, stop, split)
    return True
