from flashmla.compat.flashinfer import BatchMLAPagedAttentionWrapper

wrapper = BatchMLAPagedAttentionWrapper(float_workspace_buffer, backend="fa3")  # once
wrapper.plan(qo_indptr, kv_indptr, kv_indices, kv_len, 16, 512, 64, 64, True, scale, torch.bfloat16, torch.bfloat16)  # each step
out, lse = wrapper.run(q_nope, q_pe, ckv, kpe, return_lse=True)  # each layer; lse to base 2
