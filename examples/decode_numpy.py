"""Attention of two requests over a paged cache in NumPy arrays, on the CPU; bfloat16 comes from ml_dtypes."""

import flashmla
import ml_dtypes
import numpy as np

batch, heads, pages, page_tokens = 2, 16, 4, 64
rng = np.random.default_rng(0)
q = rng.standard_normal((batch, 1, heads, 576), np.float32).astype(ml_dtypes.bfloat16)
cache = rng.standard_normal((pages, page_tokens, 576), np.float32).astype(ml_dtypes.bfloat16)
page_table = np.array([[0, 2], [3, -1]], np.int32)  # entries past a length may hold anything
kv_len = np.array([100, 64], np.int32)

plan = flashmla.DecodePlan(h_q=heads, kv_format="bf16_576", max_batch=batch)
plan.update(kv_len)  # once a step
out, lse = plan.run(q, cache, page_table, kv_len)  # once a layer

print(plan.describe())
for i in range(batch):  # the same in three lines of NumPy: key = all 576 numbers, value = the first 512
    kv = cache[page_table[i]].reshape(-1, 576)[: kv_len[i]].astype(np.float32)
    p = np.exp(q[i, 0].astype(np.float32) @ kv.T * 576**-0.5)
    expected = p @ kv[:, :512] / p.sum(-1, keepdims=True)
    error = np.linalg.norm(out[i, 0].astype(np.float32) - expected) / np.linalg.norm(expected)
    print(f"request {i}: {kv_len[i]} tokens, relative error {error:.1e}")
    assert error < 1e-2
