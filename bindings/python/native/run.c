/* The call that Python makes once a layer, as a builtin function of the interpreter: no ctypes and no attribute of a tensor.
 *
 * A call through ctypes converts each argument into an object, and a tensor's shape, strides, dtype, device and address are five more
 * Python calls: 8 us for six tensors, where the launches take 7. Here CPython hands over the six objects as they are (METH_FASTCALL), and
 * the framework's own table of C functions (DLPack's exchange API, torch 2.10 and later) describes them: 0.05 us each.
 *
 * Only the arguments of the common call are known here. Whatever is unusual about one is answered with kNotHandled, and the package then
 * makes the same call the general way, which also words the error. So nothing here reports, and nothing is checked twice: whether the
 * views fit the problem is flashmla_plan_run's business as ever.
 *
 * No header of Python is needed and no version of it compiled in: the names below are of its stable ABI, and the process has them.
 * Nothing links against libflashmla either; the address of flashmla_plan_run comes with the plan.
 */
#include <flashmla/flashmla.h>
#include <string.h>

/* ------------------------------------------------- CPython's stable ABI -- */

typedef void Object; /* a PyObject */
typedef Object* (*FastCall)(Object* self, Object* const* arguments, ptrdiff_t count);
typedef struct MethodDef { /* a PyMethodDef */
  char const* name;
  FastCall call;
  int flags;
  char const* doc;
} MethodDef;
enum { kMethFastCall = 0x0080 };

extern Object* PyCFunction_NewEx(MethodDef* method, Object* self, Object* module);
extern Object* PyCapsule_New(void* pointer, char const* name, void (*destructor)(Object*));
extern void* PyCapsule_GetPointer(Object* capsule, char const* name);
extern Object* PyLong_FromLong(long value);
extern long long PyLong_AsLongLong(Object* number);
extern void* PyLong_AsVoidPtr(Object* number);
extern ptrdiff_t PyTuple_Size(Object* tuple);
extern Object* PyTuple_GetItem(Object* tuple, ptrdiff_t index);
extern Object* PyObject_Type(Object* object);
extern void Py_DecRef(Object* object);
extern void PyErr_Clear(void);
extern Object* PyErr_Occurred(void);
extern void* PyEval_SaveThread(void);
extern void PyEval_RestoreThread(void* state);
extern void* PyMem_Malloc(size_t bytes);
extern void PyMem_Free(void* memory);

/* ---------------------------------------------------------------- DLPack -- */

typedef struct DlTensor {
  void* data;
  int32_t device_kind, device_index;
  int32_t rank;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t const* size;
  int64_t const* stride; /* null: compact, row-major */
  uint64_t byte_offset;
} DlTensor;
enum { kDlCpu = 1, kDlCuda = 2, kDlInt = 0, kDlFloat = 2, kDlBfloat = 4 };

static int32_t dtype_of(DlTensor const* tensor) {
  if (tensor->lanes != 1) return FLASHMLA_DTYPE_NONE;
  switch (tensor->code << 8 | tensor->bits) {
    case kDlBfloat << 8 | 16:
      return FLASHMLA_BF16;
    case kDlFloat << 8 | 16:
      return FLASHMLA_FP16;
    case kDlFloat << 8 | 32:
      return FLASHMLA_FP32;
    case kDlInt << 8 | 32:
      return FLASHMLA_INT32;
    default:
      return FLASHMLA_DTYPE_NONE; /* no argument of a decode call has another */
  }
}

/* ------------------------------------------------------------- the call -- */

/* What does not change between the calls of a plan; _native.py has the same fields. */
typedef struct Runner {
  flashmla_status (*run)(flashmla_plan const*, flashmla_decode_args const*, flashmla_view const*, flashmla_view const*, flashmla_stream);
  flashmla_plan const* plan;
  int (*read)(Object* object, DlTensor* tensor); /* dltensor_from_py_object_no_sync of the exchange API */
  Object* tensor_type;                           /* the only type that `read` is given */
  Object* tuple_type;
  Object* none;
} Runner;

static char const kRunnerName[] = "flashmla.runner";
enum { kNotHandled = -1 };

/* Arguments by position. */
enum { kQ, kCache, kPageTable, kKvLen, kOut, kLse, kBatch, kQTokens, kSchedule, kWorkspace, kStream, kNumArguments };

static int is_exactly(Object* object, Object const* type) {
  Object* const own = PyObject_Type(object);
  Py_DecRef(own); /* the object holds it */
  return own == type;
}

/* Whether the view now describes the object; false leaves no Python error behind. */
static int read_view(Runner const* runner, Object* object, flashmla_view* view) {
  if (!is_exactly(object, runner->tensor_type)) return 0;
  DlTensor tensor;
  if (runner->read(object, &tensor) != 0) {
    PyErr_Clear();
    return 0;
  }
  view->dtype = dtype_of(&tensor);
  if (tensor.rank < 1 || tensor.rank > 4 || view->dtype == FLASHMLA_DTYPE_NONE || tensor.stride == NULL) return 0;
  if (tensor.device_kind != kDlCpu && tensor.device_kind != kDlCuda) return 0;
  view->device.kind = tensor.device_kind == kDlCpu ? FLASHMLA_CPU : FLASHMLA_CUDA;
  view->device.index = tensor.device_kind == kDlCpu ? 0 : tensor.device_index;
  view->rank = tensor.rank;
  memcpy(view->size, tensor.size, (size_t)tensor.rank * sizeof view->size[0]);
  memcpy(view->stride, tensor.stride, (size_t)tensor.rank * sizeof view->stride[0]);
  view->data = tensor.data == NULL ? NULL : (char*)tensor.data + tensor.byte_offset;
  return 1;
}

/* One tensor, or a tuple of the two that it consists of. */
static int read_parts(Runner const* runner, Object* object, flashmla_view* fused, flashmla_view* first, flashmla_view* second) {
  if (!is_exactly(object, runner->tuple_type)) return read_view(runner, object, fused);
  return PyTuple_Size(object) == 2 && read_view(runner, PyTuple_GetItem(object, 0), first) &&
         read_view(runner, PyTuple_GetItem(object, 1), second);
}

/* Whether q is of the batch and the query tokens that the schedule was made for; -1 for a schedule in the caller's own memory. */
static int rows_fit(flashmla_view const* q, Object* batch, Object* q_tokens) {
  long long const wanted = PyLong_AsLongLong(batch);
  return wanted < 0 || (wanted == q->size[0] && PyLong_AsLongLong(q_tokens) == q->size[1]);
}

static int fill_args(Runner const* runner, Object* const* arguments, flashmla_decode_args* args) {
  memset(args, 0, sizeof *args);
  args->struct_size = sizeof *args;
  args->lengths.struct_size = sizeof args->lengths;
  if (!read_parts(runner, arguments[kQ], &args->q, &args->q_nope, &args->q_pe)) return 0;
  flashmla_view const* const q = args->q.rank != 0 ? &args->q : &args->q_nope;
  if (q->rank != 4 || !rows_fit(q, arguments[kBatch], arguments[kQTokens]) || q->size[1] > INT32_MAX) return 0;
  args->lengths.q_tokens = (int32_t)q->size[1];
  return read_parts(runner, arguments[kCache], &args->cache, &args->ckv, &args->kpe) &&
         read_view(runner, arguments[kPageTable], &args->page_table) && read_view(runner, arguments[kKvLen], &args->lengths.kv_len) &&
         read_view(runner, arguments[kOut], &args->out) &&
         (arguments[kLse] == runner->none || read_view(runner, arguments[kLse], &args->lse));
}

/* (q, cache, page_table, kv_len, out, lse or None, batch, q_tokens, schedule, workspace, stream) -> a flashmla_status, or kNotHandled when
 * nothing was called. */
static Object* run(Object* self, Object* const* arguments, ptrdiff_t count) {
  Runner const* const runner = PyCapsule_GetPointer(self, kRunnerName);
  flashmla_decode_args args;
  if (runner == NULL) return NULL;
  if (count != kNumArguments || !fill_args(runner, arguments, &args)) return PyLong_FromLong(kNotHandled);
  flashmla_view const* const schedule = PyLong_AsVoidPtr(arguments[kSchedule]);
  flashmla_view const* const workspace = PyLong_AsVoidPtr(arguments[kWorkspace]);
  flashmla_stream const stream = PyLong_AsVoidPtr(arguments[kStream]);
  if ((schedule == NULL || workspace == NULL || stream == NULL) && PyErr_Occurred() != NULL) return NULL;
  /* The CPU computes inside, and a launch waits where the queue is full: other threads go on meanwhile. */
  void* const thread = PyEval_SaveThread();
  flashmla_status const status = runner->run(runner->plan, &args, schedule, workspace, stream);
  PyEval_RestoreThread(thread);
  return PyLong_FromLong((long)status);
}

static void drop_runner(Object* capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, kRunnerName)); }

/* A new reference to the builtin function of a plan, or null with a Python error set. Called with the GIL held (ctypes.PyDLL). */
FLASHMLA_API Object* flashmla_python_runner(Runner const* given) {
  static MethodDef method = {"run", run, kMethFastCall, "flashmla_plan_run for plain tensors"};
  Runner* const runner = PyMem_Malloc(sizeof *runner);
  if (runner == NULL) return NULL;
  *runner = *given;
  Object* const capsule = PyCapsule_New(runner, kRunnerName, drop_runner);
  if (capsule == NULL) {
    PyMem_Free(runner);
    return NULL;
  }
  Object* const function = PyCFunction_NewEx(&method, capsule, NULL);
  Py_DecRef(capsule);
  return function;
}
