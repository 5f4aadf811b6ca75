"""Plans for callers that have none: one for all calls that ask for the same, and an update and run in one call."""

import threading

from flashmla._abi import DeviceKind
from flashmla._arrays import adapter_of
from flashmla.plan import DecodePlan

_plans = {}  # (device, maximum batch, fields) -> DecodePlan; kept for good, since graphs may use their workspaces
_lock = threading.Lock()


def power_of_two(number):
    """The next one, at least 1: what plans that are looked up again round their maxima to, so that calls of similar sizes share one."""
    return 1 << max(number - 1, 0).bit_length()


def shared_plan(device, batch, *, lasting=False, **fields):
    """The plan of a problem on a device (a pair); batches share one up to the next power of two. lasting: calls are made with torch tensors,
    and what the plan allocates for them belongs to no capture, not even to the first that uses it."""
    max_batch = power_of_two(batch)
    key = (device, max_batch, lasting, *fields.items())
    plan = _plans.get(key)
    if plan is None:
        with _lock:
            plan = _plans.get(key)
            if plan is None:
                plan = DecodePlan(device=device, max_batch=max_batch, **fields)
                plan.scratch.lasting = lasting
                _plans[key] = plan
    return plan


def run_once(plan, q, cache, page_table, kv_len, *, q_offsets=None, **more):
    """`update` and `run` on the current stream, with a schedule in memory that belongs to the stream as the workspace does: the lock that
    keeps runs apart keeps it from being remade under one."""
    main = q[0] if isinstance(q, tuple) else q
    raw = adapter_of(main, ("decode", "q")).stream(plan.device[1]) if plan.device[0] == DeviceKind.CUDA else 0
    scratch = plan.scratch.acquire(raw, main)
    try:
        if scratch.schedule is None:
            scratch.schedule = plan.new_schedule(main)
        plan.update(kv_len, q_tokens=main.shape[1] if q_offsets is None else None, q_offsets=q_offsets, schedule=scratch.schedule)
        more |= {"q_offsets": q_offsets, "schedule": scratch.schedule, "workspace": scratch.workspace}
        return plan.run(q, cache, page_table, kv_len, **more)
    finally:
        plan.scratch.release(scratch)
