"""Problem: what does not change between decoding steps, as keywords with the defaults of the C ABI."""

import dataclasses

from flashmla import _abi
from flashmla._abi import DType, EmptyRow, KvFormat, LseBase, LseLayout
from flashmla._errors import invalid, member, whole_number

_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1
_FLOAT_MAX = (2 - 2**-23) * 2.0**127
_ELEMENTS = {KvFormat.FP16_576: DType.FP16, KvFormat.FP32_576: DType.FP32}
_NARROW_VALUES = (KvFormat.BF16_320, KvFormat.BF16_288)


def v_dim_of(kv_format):
    """Numbers in a value of a KvFormat."""
    return 256 if kv_format in _NARROW_VALUES else 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """What does not change between steps. Enums may be given as members or as their names in any case.

    h_q: query heads, 1 .. 128. h_kv: KV heads, divides h_q. kv_format: a `KvFormat`, e.g. "bf16_576". page_tokens: tokens a page.
    max_batch: requests a call; max_q_tokens: query tokens a request; max_kv_len: tokens a request (0: the page table's width rules);
    max_total_kv_tokens: sum over a batch (0: unknown; a hint). q_dtype: "bf16", "fp16" or "fp32", by default that of kv_format. out_dtype: "bf16",
    "fp16" or "fp32" (for partial results that will be merged), by default q_dtype. causal: bottom-right aligned, query token i of s_q
    sees the keys before kv_len - s_q + i + 1. scale: softmax scale, finite and >= 0, by default qk_dim ** -0.5. lse_base, lse_layout,
    empty_row: see those enums; natural logarithm, [batch, h_q, q_tokens] and +inf by default. batch_invariant: a row's bits do not depend
    on its batch mates, on threads, multiprocessors or the schedule; on a GPU max_kv_len must be given. chunk_tokens is then the split
    size, a multiple of 64 (0: the library chooses).
    """

    h_q: int
    kv_format: KvFormat | str
    max_batch: int
    h_kv: int = 1
    page_tokens: int = 64
    max_q_tokens: int = 1
    max_kv_len: int = 0
    max_total_kv_tokens: int = 0
    q_dtype: DType | str = DType.NONE
    out_dtype: DType | str = DType.NONE
    causal: bool = False
    scale: float | None = None
    lse_base: LseBase | str = LseBase.NATURAL
    lse_layout: LseLayout | str = LseLayout.BATCH_HEADS_TOKENS
    empty_row: EmptyRow | str = EmptyRow.PLUS_INF
    batch_invariant: bool = False
    chunk_tokens: int = 0

    def __post_init__(self):
        def put(name, value):
            object.__setattr__(self, name, value)

        for name, kind in _ENUMS.items():
            put(name, member("plan_create", name, getattr(self, name), kind))
        for name, (low, high) in _RANGES.items():
            put(name, whole_number("plan_create", name, getattr(self, name), low, high))
        if self.scale is not None:
            try:
                scale = float(self.scale)
            except (TypeError, ValueError, OverflowError):
                raise invalid("plan_create", "scale", repr(self.scale), "a finite number >= 0") from None
            if not 0 <= scale <= _FLOAT_MAX:  # the C field would hold infinity
                raise invalid("plan_create", "scale", scale, "a finite number >= 0")
            put("scale", scale)

    @property
    def element_of_q(self):
        """The DType of q: q_dtype, or what the format implies."""
        return self.q_dtype or _ELEMENTS.get(self.kv_format, DType.BF16)

    @property
    def element_of_out(self):
        return self.out_dtype or self.element_of_q

    @property
    def v_dim(self):
        """Numbers in a value, hence in a row of `out`."""
        return v_dim_of(self.kv_format)

    def to_abi(self):
        flags = _abi.PROBLEM_CAUSAL if self.causal else 0
        flags |= _abi.PROBLEM_BATCH_INVARIANT if self.batch_invariant else 0
        flags |= 0 if self.scale is None else _abi.PROBLEM_HAS_SCALE
        numbers = {name: getattr(self, name) for name in (*_ENUMS, *_RANGES)}
        return _abi.Problem(flags=flags, scale=self.scale or 0.0, **numbers)


_ENUMS = {"kv_format": KvFormat, "q_dtype": DType, "out_dtype": DType, "lse_base": LseBase, "lse_layout": LseLayout, "empty_row": EmptyRow}
# Only what a C integer can hold is checked here: the library knows the real limits and says so.
_RANGES = {
    "h_q": (-_INT32_MAX, _INT32_MAX), "h_kv": (-_INT32_MAX, _INT32_MAX), "page_tokens": (-_INT32_MAX, _INT32_MAX),
    "chunk_tokens": (-_INT32_MAX, _INT32_MAX), "max_batch": (-_INT64_MAX, _INT64_MAX), "max_q_tokens": (-_INT64_MAX, _INT64_MAX),
    "max_kv_len": (-_INT64_MAX, _INT64_MAX), "max_total_kv_tokens": (-_INT64_MAX, _INT64_MAX),
}  # fmt: skip
