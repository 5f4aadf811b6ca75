from flash_attn_interface import flash_attn_with_kvcache

out, lse, *_ = flash_attn_with_kvcache(
    q_pe, kpe, ckv, qv=q_nope, page_table=page_table, cache_seqlens=kv_len, softmax_scale=scale, causal=True, return_softmax_lse=True
)  # each layer
