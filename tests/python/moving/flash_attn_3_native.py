import flashmla

plan = flashmla.DecodePlan(
    h_q=16, kv_format="bf16_576", max_batch=3, max_q_tokens=2, causal=True, scale=scale, empty_row="minus_inf", device=ckv.device
)  # once
plan.update(kv_len)  # each step
out, lse = plan.run((q_nope, q_pe), (ckv, kpe), page_table, kv_len)  # each layer
