import flashmla

plan = flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=3, max_q_tokens=2, causal=True, device=q.device)  # once
plan.update(kv_len)  # each step
out, lse = plan.run(q, kv, page_table, kv_len)  # each layer
