// Opens a target region that lasts to the end of the including file: generic code below it is compiled for AArch64 with
// FEAT_BF16. Templates are compiled at the end of a file, so the region is not closed. No include guard on purpose.
#if defined(__aarch64__)
#pragma GCC target("arch=armv8.2-a+bf16")
#endif
