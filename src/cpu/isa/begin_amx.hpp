// Opens a target region that lasts to the end of the including file: generic code below it is compiled for AVX-512 with
// BF16 and AMX. Templates are compiled at the end of a file, so the region is not closed. No include guard on purpose.
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")
#endif
