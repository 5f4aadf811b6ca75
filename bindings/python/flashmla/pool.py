"""PagePool: hands out the pages of a paged cache."""

import ctypes
import weakref

from flashmla._errors import whole_number
from flashmla._library import check, lib

_INT32, _INT64_MAX = 2**31, 2**63 - 1


class PagePool:
    """Page ids 0 .. num_pages - 1; the same ids serve every layer's cache. Host memory only; may be used from many threads.

    pages = pool.allocate(3); ...; pool.free(pages). Both are all or nothing: an Error (status EXHAUSTED when too few pages are
    free) leaves the pool as it was.
    """

    def __init__(self, num_pages):
        num_pages = whole_number("page_pool_create", "num_pages", num_pages, -_INT64_MAX, _INT64_MAX)
        handle = ctypes.c_void_p()
        check(lib.flashmla_page_pool_create(num_pages, ctypes.byref(handle)))
        self._handle = handle.value
        weakref.finalize(self, lib.flashmla_page_pool_destroy, self._handle)

    def allocate(self, count):
        """`count` page ids that nobody else holds, as a list."""
        count = whole_number("page_pool_allocate", "count", count, -_INT64_MAX, _INT64_MAX)
        # No pool holds more than num_pages, so a larger count fails in the library without needing room here.
        ids = (ctypes.c_int32 * min(max(count, 0), self.num_pages))()
        check(lib.flashmla_page_pool_allocate(self._handle, count, ids))
        return list(ids)

    def free(self, page_ids):
        """Gives pages back. An id that is out of range, free already or named twice is an Error."""
        ids = [whole_number("page_pool_free", f"page_ids[{i}]", n, -_INT32, _INT32 - 1) for i, n in enumerate(page_ids)]
        check(lib.flashmla_page_pool_free(self._handle, len(ids), (ctypes.c_int32 * len(ids))(*ids)))

    @property
    def num_free(self):
        return lib.flashmla_page_pool_num_free(self._handle)

    @property
    def num_pages(self):
        return lib.flashmla_page_pool_num_pages(self._handle)

    def __repr__(self):
        return f"PagePool({self.num_free} of {self.num_pages} pages free)"
