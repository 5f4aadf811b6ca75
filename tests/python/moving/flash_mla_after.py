from flashmla.compat.flash_mla import flash_mla_with_kvcache, get_mla_metadata

plan, num_splits = get_mla_metadata()  # each step
out, lse = flash_mla_with_kvcache(q, kv, page_table, kv_len, 512, plan, num_splits, causal=True)  # each layer
