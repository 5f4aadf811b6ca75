"""PagePool: hands out the pages of a paged cache, and counts who holds them."""

import ctypes
import weakref
from typing import NamedTuple

from flashmla._abi import PageCopy
from flashmla._errors import invalid, sequence, whole_number
from flashmla._library import check, lib

_INT32, _INT64_MAX = 2**31, 2**63 - 1


def _page_ids(operation, page_ids):
    listed = sequence(operation, "page_ids", page_ids, "a sequence of page ids")
    ids = [whole_number(operation, f"page_ids[{i}]", n, -_INT32, _INT32 - 1) for i, n in enumerate(listed)]
    return (ctypes.c_int32 * len(ids))(*ids)


class Fork(NamedTuple):
    """What `PagePool.fork` gives. `copies` goes to `flashmla.copy_pages` before either holder writes."""

    pages: list  # of the new holder
    copies: list  # (source, target): one pair, or none when the tokens end with a page


class PagePool:
    """Page ids 0 .. num_pages - 1; the same ids serve every layer's cache. Host memory only; may be used from many threads.

    pages = pool.allocate(3); ...; pool.free(pages). A page in use has a number of references, so that requests with a common prefix
    can share it. Every call is all or nothing: an Error (status EXHAUSTED when too few pages are free) leaves the pool as it was.
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

    def retain(self, page_ids):
        """One reference more for each page. An id that is out of range or free is an Error."""
        ids = _page_ids("page_pool_retain", page_ids)
        check(lib.flashmla_page_pool_retain(self._handle, len(ids), ids))

    def free(self, page_ids):
        """One reference less for each page; without any it is free. An id that is out of range, free already or named more often than
        it has references is an Error."""
        ids = _page_ids("page_pool_free", page_ids)
        check(lib.flashmla_page_pool_free(self._handle, len(ids), ids))

    def fork(self, page_ids, tokens, page_tokens):
        """A second holder of the first `tokens` tokens of a request with these pages, as a `Fork`.

        Full pages are shared; a last page that is not full, which both holders are going to write, is a new one. Raises Error: status
        EXHAUSTED when that one is missing, else for too few pages, and for ids out of range or free.
        """
        operation = "page_pool_fork"
        ids = _page_ids(operation, page_ids)
        tokens = whole_number(operation, "tokens", tokens, 0, _INT64_MAX)
        page_tokens = whole_number(operation, "page_tokens", page_tokens, 1, _INT64_MAX)
        needed = -(-tokens // page_tokens)
        if len(ids) < needed:
            raise invalid(operation, "page_ids", len(ids), f"at least {needed} (the pages of {tokens} tokens)")
        forked, copy = (ctypes.c_int32 * needed)(), PageCopy()
        check(lib.flashmla_page_pool_fork(self._handle, tokens, page_tokens, ids, forked, ctypes.byref(copy)))
        return Fork(list(forked), [(copy.source, copy.target)] if copy.target >= 0 else [])

    def references(self, page_id):
        """References of a page: 0 when it is free, or no page of this pool."""
        page_id = whole_number("page_pool_references", "page_id", page_id, -_INT32, _INT32 - 1)
        return lib.flashmla_page_pool_references(self._handle, page_id)

    @property
    def num_free(self):
        return lib.flashmla_page_pool_num_free(self._handle)

    @property
    def num_pages(self):
        return lib.flashmla_page_pool_num_pages(self._handle)

    def __repr__(self):
        return f"PagePool({self.num_free} of {self.num_pages} pages free)"
