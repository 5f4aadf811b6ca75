import flashmla

plan = flashmla.DecodePlan(
    h_q=16,
    kv_format="bf16_576",
    max_batch=3,
    max_q_tokens=2,
    causal=True,
    scale=scale,
    lse_base="base_2",
    lse_layout="tokens_heads",
    empty_row="minus_inf",
    device=ckv.device,
)  # once
plan.update(kv_len)  # each step
q_parts = q_nope.view(3, 2, 16, 512), q_pe.view(3, 2, 16, 64)
out, lse = plan.run(q_parts, (ckv, kpe), page_table, kv_len)  # each layer; page_table [batch, max_pages] instead of two lists
