"""Drop-in for flashinfer.mla's BatchMLAPagedAttentionWrapper (FlashInfer 0.6.1): `from flashmla.compat import flashinfer`.

A run is one call of the library, whatever the query lengths. ckv_cache and kpe_cache may be views of one tensor, kv[..., :512] and kv[...,
512:] with kv [num_pages, page, 576], or two. float_workspace_buffer only says on which device things are: a plan brings its own.
"""

import torch

from flashmla._errors import Error, invalid, unsupported, whole_number
from flashmla._shared import power_of_two, shared_plan
from flashmla.compat._ragged import host_offsets, longest
from flashmla.compat._words import renamed, tensor_text
from flashmla.torch import device as device_of

__all__ = ["BatchMLAPagedAttentionWrapper"]

_PLAN, _RUN = "flashinfer_plan", "flashinfer_run"
_FORMATS = {torch.bfloat16: "bf16_576", torch.float16: "fp16_576"}
_ARGUMENTS = {
    "ckv": "ckv_cache", "kpe": "kpe_cache", "ckv, kpe": "ckv_cache, kpe_cache", "cache": "ckv_cache", "q": "q_nope",
    "page_table": "kv_indices", "kv_len": "kv_len_arr", "lengths.kv_len": "kv_len_arr", "q_offsets": "qo_indptr", "h_q": "num_heads", "page_tokens": "page_size",
    "scale": "sm_scale",
}  # fmt: skip
_BACKENDS = ("auto", "fa2", "fa3")
_TABLE_ENTRIES = 1 << 24  # of a table that a graph replays from; as many pages as a request of 16M / batch entries has


class _Step:
    """What a run needs of a step: query offsets, lengths, pages and schedule, in memory that stays where it is. Requests of one query
    length, q_tokens, need no offsets; with lengths of their own (0) none has more than `most`."""

    def __init__(self, offsets, width, device):
        counts = {end - begin for begin, end in zip(offsets, offsets[1:])}
        self.batch = len(offsets) - 1
        self.q_tokens = counts.pop() if len(counts) == 1 and counts != {0} else 0
        self.most = self.q_tokens or power_of_two(longest(offsets))
        self.q_offsets = None if self.q_tokens else torch.zeros(self.batch + 1, dtype=torch.int32, device=device)
        self.kv_len = torch.zeros(self.batch, dtype=torch.int32, device=device)
        self.page_table = torch.zeros(self.batch, width, dtype=torch.int32, device=device)
        self.schedule = None

    def fits(self, offsets):
        if len(offsets) != self.batch + 1:
            return False
        if self.q_tokens:
            return offsets == list(range(0, self.q_tokens * self.batch + 1, self.q_tokens))
        return longest(offsets) <= self.most

    def fill(self, offsets, kv_len, page_table):
        if self.q_offsets is not None:
            self.q_offsets.copy_(torch.tensor(offsets, dtype=torch.int32))
        self.kv_len.copy_(kv_len)
        self.page_table[:, : page_table.shape[1]].copy_(page_table)

    def rows(self, tensor):
        """[tokens, ..] as the library takes it."""
        return tensor.unflatten(0, (self.batch, self.q_tokens)) if self.q_tokens else tensor


class BatchMLAPagedAttentionWrapper:
    """`plan` once a step, `run` once a layer. The arguments are FlashInfer's; what is not there is named in an Error when set."""

    def __init__(self, float_workspace_buffer, use_cuda_graph=False, qo_indptr=None, kv_indptr=None, kv_indices=None, kv_len_arr=None,
                 backend="auto"):  # fmt: skip
        """use_cuda_graph: `run` may be captured, and the graph replayed after a `plan` of the same batch. Where all requests of the first
        plan have one query length, that stays; else query lengths may change, up to the first plan's longest. kv_indices then tells by its
        length how many pages there are at most. The other buffers are taken and not used: a plan has its own."""
        if backend not in _BACKENDS:
            raise unsupported("flashinfer_init", "backend", repr(backend), " or ".join(map(repr, _BACKENDS)))
        if not isinstance(float_workspace_buffer, torch.Tensor):
            raise invalid("flashinfer_init", "float_workspace_buffer", tensor_text(float_workspace_buffer), "a torch.Tensor")
        if use_cuda_graph and kv_indices is None:
            raise invalid("flashinfer_init", "kv_indices", "None", "a tensor as long as the largest list of pages (use_cuda_graph)")
        self.device = float_workspace_buffer.device
        self._most_pages = kv_indices.numel() if use_cuda_graph else None  # None: nothing has to stay where it is
        self._fields = self._tokens = self._step = None

    def plan(self, qo_indptr, kv_indptr, kv_indices, kv_len_arr, num_heads, head_dim_ckv, head_dim_kpe, page_size, causal, sm_scale,
             q_data_type, kv_data_type, use_profiler=False):  # fmt: skip
        """qo_indptr, kv_indptr: int32 [batch + 1]; kv_indices: int32, the pages of all requests one after another; kv_len_arr: int32
        [batch]. On any device: like FlashInfer's, this reads qo_indptr, kv_indptr and kv_len_arr on the host. Raises flashmla.Error."""
        dims = {"head_dim_ckv": (head_dim_ckv, 512), "head_dim_kpe": (head_dim_kpe, 64), "use_profiler": (use_profiler, False)}
        for name, (got, only) in dims.items():
            if got != only:
                raise unsupported(_PLAN, name, got, only)
        if kv_data_type not in _FORMATS:
            raise unsupported(_PLAN, "kv_data_type", kv_data_type, "torch.bfloat16 or torch.float16")
        if q_data_type != kv_data_type:
            raise unsupported(_PLAN, "q_data_type", q_data_type, f"{kv_data_type}, that of the cache")
        if sm_scale is None:
            raise invalid(_PLAN, "sm_scale", None, "a number >= 0")
        page_size = whole_number(_PLAN, "page_size", page_size, 1, 2**31 - 1)
        offsets = host_offsets(_PLAN, "qo_indptr", qo_indptr)
        table = self._page_table(kv_indptr, kv_indices, kv_len_arr, page_size, len(offsets) - 1)
        kv_len = kv_len_arr.to(self.device, torch.int32)
        fields = {"h_q": num_heads, "kv_format": _FORMATS[kv_data_type], "page_tokens": page_size, "causal": bool(causal), "scale": sm_scale,
                  "lse_layout": "tokens_heads", "empty_row": "minus_inf"}  # fmt: skip
        try:
            step = self._step_for(offsets, table.shape[1], fields)
            step.fill(offsets, kv_len, table)
            lengths = {"q_tokens": step.most, "q_offsets": step.q_offsets}
            self._decode_plan(step, fields, False).update(step.kv_len, **lengths, schedule=step.schedule)
        except Error as error:
            raise renamed(error, _PLAN, _ARGUMENTS) from None
        self._fields, self._tokens, self._step = fields, offsets[-1], step

    def _page_table(self, kv_indptr, kv_indices, kv_len_arr, page_size, batch):
        """int32 [batch, most pages of a request] on the wrapper's device. Checks the lists: the device would mask what is wrong."""
        starts = host_offsets(_PLAN, "kv_indptr", kv_indptr)
        if len(starts) != batch + 1:
            raise invalid(_PLAN, "kv_indptr", f"{len(starts)} offsets", f"{batch + 1}, as many as qo_indptr has")
        for name, tensor, least in (("kv_indices", kv_indices, starts[-1]), ("kv_len_arr", kv_len_arr, batch)):
            if not isinstance(tensor, torch.Tensor) or tensor.dim() != 1 or tensor.is_floating_point() or len(tensor) < least:
                raise invalid(_PLAN, name, tensor_text(tensor), f"at least {least} integers in one dimension")
        if kv_len_arr.numel() != batch:
            raise invalid(_PLAN, "kv_len_arr", f"{kv_len_arr.numel()} lengths", f"{batch}, the requests of qo_indptr")
        counts = [end - begin for begin, end in zip(starts, starts[1:])]
        for i, (count, length) in enumerate(zip(counts, kv_len_arr.tolist())):
            if not 0 <= length <= count * page_size:
                raise invalid(_PLAN, f"kv_len_arr[{i}]", length, f"0 .. {count * page_size} ({count} pages of {page_size} tokens)")
        width = max(counts, default=0) or 1
        if starts[-1] == 0:
            return torch.zeros(batch, width, dtype=torch.int32, device=self.device)
        places = kv_indptr[:-1].to(self.device, torch.int64)[:, None] + torch.arange(width, device=self.device)
        return kv_indices.to(self.device, torch.int32)[places.clamp_(max=starts[-1] - 1)]

    def _step_for(self, offsets, width, fields):
        if self._most_pages is not None:
            if self._step is None:
                capacity = min(self._most_pages, max(_TABLE_ENTRIES // max(len(offsets) - 1, 1), 1))
                self._width = max(capacity, 1)
            elif not self._step.fits(offsets) or fields != self._fields:
                raise invalid(_PLAN, "qo_indptr", "other query lengths, or another problem, than in the first plan",
                              "the same (use_cuda_graph: a graph that was captured keeps them)")  # fmt: skip
            if width > self._width:
                raise invalid(_PLAN, "kv_indptr", f"a request of {width} pages", f"at most {self._width} (use_cuda_graph)")
            if self._step is not None:
                return self._step
            width = self._width
        step = _Step(offsets, width, self.device)
        step.schedule = self._decode_plan(step, fields, False).new_schedule(step.kv_len)
        return step

    def run(self, q_nope, q_pe, ckv_cache, kpe_cache, out=None, lse=None, return_lse=False, profiler_buffer=None, kv_len=None,
            page_table=None, return_lse_base_on_e=False):  # fmt: skip
        """out [tokens, heads, 512] of q_nope's dtype, and with return_lse lse float32 [tokens, heads] to base 2, or to base e with
        return_lse_base_on_e. A row that sees no key gives 0 and -inf. Work is enqueued on the current stream. Raises flashmla.Error."""
        for name, value in (("profiler_buffer", profiler_buffer), ("kv_len", kv_len), ("page_table", page_table)):
            if value is not None:
                raise unsupported(_RUN, name, tensor_text(value), "None (what `plan` was given counts)")
        if self._step is None:
            raise invalid(_RUN, "plan", "none", "plan(...) before the first run")
        for name, tensor in (("q_nope", q_nope), ("q_pe", q_pe), ("ckv_cache", ckv_cache), ("kpe_cache", kpe_cache)):
            if not isinstance(tensor, torch.Tensor):
                raise invalid(_RUN, name, tensor_text(tensor), "a torch.Tensor")
        expected = (self._tokens, self._fields["h_q"])
        # In a graph q has room for the tokens of any step.
        if self._step.q_offsets is not None and self._most_pages is not None and q_nope.dim() == 3:
            expected = (max(self._tokens, q_nope.shape[0]), expected[1])
        for name, tensor in (("q_nope", q_nope), ("q_pe", q_pe)):
            if tensor.dim() != 3 or tensor.shape[:2] != expected:
                raise invalid(_RUN, name, f"shape {list(tensor.shape)}", f"[{expected[0]}, {expected[1]}, dim] (those of the plan)")
        if out is None:
            out = q_nope.new_empty((*expected, 512))
        if lse is None and return_lse:
            lse = q_nope.new_empty(expected, dtype=torch.float32)
        _check_output("out", out, (*expected, 512))
        if lse is not None:
            _check_output("lse", lse, expected)
        try:
            step, plan = self._step, self._decode_plan(self._step, self._fields, return_lse_base_on_e)
            into = {"out": step.rows(out), "lse": False if lse is None else lse, "q_offsets": step.q_offsets}
            parts = (step.rows(q_nope), step.rows(q_pe))
            plan.run(parts, (ckv_cache, kpe_cache), step.page_table, step.kv_len, schedule=step.schedule, **into)
        except Error as error:
            raise renamed(error, _RUN, _ARGUMENTS) from None
        return (out, lse) if return_lse else out

    def _decode_plan(self, step, fields, natural):
        return shared_plan(
            device_of(step.kv_len), step.batch, max_q_tokens=step.most, lse_base="natural" if natural else "base_2", **fields
        )


def _check_output(name, tensor, shape):
    if not isinstance(tensor, torch.Tensor) or tensor.shape != shape:
        raise invalid(_RUN, name, tensor_text(tensor), f"a tensor {list(shape)}")
