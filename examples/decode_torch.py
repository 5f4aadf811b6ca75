"""Attention of two requests over a paged cache in torch tensors, on the GPU where flashmla can use one, else on the CPU."""

import sys

import flashmla

try:
    import torch
except ImportError:
    print("skipped: torch is not installed")
    sys.exit(77)

usable = [d.device for d in flashmla.devices() if d.usable]
device = "cuda" if torch.cuda.is_available() and any(name.startswith("cuda") for name in usable) else "cpu"
batch, heads, pages, page_tokens = 2, 16, 4, 64
torch.manual_seed(0)
q = torch.randn(batch, 1, heads, 576, dtype=torch.bfloat16, device=device)
cache = torch.randn(pages, page_tokens, 1, 576, dtype=torch.bfloat16, device=device)
page_table = torch.tensor([[0, 2], [3, -1]], dtype=torch.int32, device=device)
kv_len = torch.tensor([100, 64], dtype=torch.int32, device=device)

plan = flashmla.DecodePlan(h_q=heads, kv_format="bf16_576", max_batch=batch, device=device)
plan.update(kv_len)  # once a step
out, lse = plan.run(q, cache, page_table, kv_len)  # once a layer; enqueued on the current stream

keys = cache[page_table[0]].reshape(-1, 576)[:100].float()
p = torch.softmax(q[0, 0].float() @ keys.T * 576**-0.5, -1)
error = (out[0, 0].float() - p @ keys[:, :512]).norm() / (p @ keys[:, :512]).norm()
print(f"{device}: out {tuple(out.shape)}, lse {tuple(lse.shape)}, relative error {error:.1e}")
assert error < 1e-2
