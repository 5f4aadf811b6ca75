"""Which workspace a call gets, and when a schedule or workspace is made anew: streams and captures played on the CPU."""

import pytest

torch = pytest.importorskip("torch")

from test_compat import arguments  # noqa: E402

import flashmla  # noqa: E402
from flashmla import _arrays, _scratch  # noqa: E402
from flashmla._abi import FaultCode  # noqa: E402
from flashmla.compat import flash_mla  # noqa: E402


class Captures:
    """Plays the driver: which capture, if any, is going on on a stream."""

    def __init__(self):
        self.going_on = {}

    def __call__(self, stream):
        return self.going_on.get(stream, 0)


@pytest.fixture
def captures(monkeypatch):
    played = Captures()
    monkeypatch.setattr(_scratch, "capture_id", played)
    return played


@pytest.fixture
def plan():
    return flashmla.DecodePlan(h_q=16, kv_format="bf16_576", max_batch=4)


class CountingScratch(_scratch.StreamScratch):
    def __init__(self, plan):
        super().__init__(plan.handle, plan.workspace_bytes, plan.device)
        self.resets = []

    def _reset(self, scratch, capture):
        super()._reset(scratch, capture)
        self.resets.append((scratch.stream, capture))

    def use(self, stream):
        scratch = self.acquire(stream, None)
        self.release(scratch)
        return scratch


def test_one_workspace_a_stream_cleared_once(plan, captures):
    owned = CountingScratch(plan)
    first, second = owned.use(0), owned.use(7)
    assert first is not second and owned.use(0) is first and owned.use(7) is second
    assert owned.resets == [(0, 0), (7, 0)]
    assert first.workspace.view.size[0] == plan.workspace_bytes and first.workspace.view.data % 256 == 0


def test_captures_have_a_workspace_of_their_own_and_clear_it_in_each_graph(plan, captures):
    owned = CountingScratch(plan)
    captures.going_on = {7: 101}
    captured = owned.use(7)
    assert owned.use(7) is captured and owned.resets == [(7, 101)]
    captures.going_on = {}
    eager = owned.use(7)
    assert eager is not captured and owned.resets == [(7, 101), (7, 0)]
    captures.going_on = {7: 102}
    assert owned.use(7) is captured and owned.resets[-1] == (7, 102)
    assert set(owned.all) == {eager, captured}


def test_a_workspace_in_use_makes_the_next_thread_wait(plan, captures):
    owned = CountingScratch(plan)
    scratch = owned.acquire(7, None)
    assert scratch.lock.locked()
    owned.release(scratch)
    assert not scratch.lock.locked()


def test_cpu_calls_at_once_have_a_workspace_each(plan):
    first = plan.scratch.acquire(0, None)
    second = plan.scratch.acquire(0, None)
    assert first is not second
    plan.scratch.release(first)
    assert plan.scratch.acquire(0, None) is first


def test_object_filled_in_a_capture_is_filled_again_make(monkeypatch):
    """A graph fills the schedule when it replays; until then an eager call, or another graph, has to do it itself."""
    now, updates = [5], []
    monkeypatch.setattr(flash_mla, "_current_capture", lambda tensor: now[0])
    real = flashmla.DecodePlan.update
    monkeypatch.setattr(flashmla.DecodePlan, "update", lambda self, *a, **k: (updates.append(now[0]), real(self, *a, **k)))
    args, meta = arguments(), flash_mla.get_mla_metadata()
    expected = flash_mla.flash_mla_with_kvcache(*args, *flash_mla.get_mla_metadata())
    updates.clear()
    for capture, made in ((5, [5]), (5, [5]), (6, [5, 6]), (0, [5, 6, 0]), (0, [5, 6, 0]), (7, [5, 6, 0])):
        now[0] = capture
        out, lse = flash_mla.flash_mla_with_kvcache(*args, *meta)
        assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])
        assert updates == made


def test_a_schedule_that_was_never_made_is_a_fault(plan):
    q, cache, table, seqlens, _ = arguments()
    schedule = plan.new_schedule()  # zeroed memory, as if its update had not run yet
    plan.run(q, cache, table, seqlens, schedule=schedule)
    assert plan.fault().code is FaultCode.SCHEDULE_MISMATCH


def test_device_memory_is_allocated_on_the_plans_device_alone():
    """An array of another device must not lend its allocator, or host memory would pass for the GPU's from then on."""
    make = _arrays.Buffer.make
    with pytest.raises(flashmla.Error, match="decode: q: got device cpu, expected cuda:0, the plan's"):
        make(1024, (flashmla.DeviceKind.CUDA, 0), torch.zeros(1), ("decode", "q"))
    with pytest.raises(flashmla.Error, match="decode: q: got builtins.NoneType"):
        make(1024, (flashmla.DeviceKind.CUDA, 0), None, ("decode", "q"))
    buffer = make(1024, (flashmla.DeviceKind.CPU, 0), None, ("decode", "q"))
    assert buffer.view.data % 256 == 0 and buffer.view.size[0] == 1024


def test_memory_of_the_operators_is_made_outside_the_capture(monkeypatch, captures):
    """CUDA-graph trees redirect what their thread allocates, and let nothing stay but outputs; without a GPU this is played."""
    import threading

    from flashmla import torch as adapter

    made = []

    def allocate(into, device, num_bytes):
        made.append((threading.current_thread(), num_bytes))
        into.append(torch.zeros(num_bytes, dtype=torch.uint8))

    like = torch.zeros(1)
    monkeypatch.setattr(adapter, "_allocate_aside", allocate)
    memory, address = adapter.lasting_buffer(like, 300, ("decode", "q"))
    assert memory.numel() == 300 and address == memory.data_ptr()
    assert len(made) == 1 and made[0][0] is not threading.current_thread() and made[0][1] == 300
    monkeypatch.undo()
    memory, address = adapter.lasting_buffer(like, 100, ("decode", "q"))  # no GPU: as usual
    assert memory.numel() == 100 and address == memory.data_ptr()


def test_only_the_plans_of_operators_last():
    from flashmla import _shared
    from flashmla._arrays import HOST

    fields = {"h_q": 16, "kv_format": "bf16_576"}
    shared, lasting = (_shared.shared_plan(HOST, 3, lasting=kept, **fields) for kept in (False, True))
    assert shared is not lasting and lasting is _shared.shared_plan(HOST, 4, lasting=True, **fields)
    assert not shared.scratch.lasting and lasting.scratch.lasting
