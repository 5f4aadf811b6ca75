"""The reader of cuobjdump's output and the comparison, on small pieces of real output."""

import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import resources  # noqa: E402

RESOURCE_TEXT = """
Resource usage:
 Common:
  GLOBAL:0
 Function _Z1kPf:
  REG:168 STACK:16 SHARED:1024 LOCAL:0 CONSTANT[0]:536 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS_TEXT = """
\t\tFunction : _Z1kPf
        /*0000*/                   LDC R1, c[0x0][0x28] ;                                  /* 0x00000a00ff017b82 */
        /*0010*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24, !UPT ;   /* 0x03e00000041879f0 */
        /*0020*/              @!P0 STL [R1], R2 ;                                          /* 0x0000000201007387 */
        /*0030*/         @UP0      UTMALDG.4D [UR8], [UR4], desc[UR6] ;                    /* 0x00000608040075b4 */
"""


class Resources(unittest.TestCase):
    def test_parse(self):
        counts = resources.parse(RESOURCE_TEXT, SASS_TEXT)["_Z1kPf"]
        expected = {"registers": 168, "stack_bytes": 16, "local_bytes": 0, "static_shared_bytes": 1024}
        self.assertEqual(counts, {**expected, "wgmma": 1, "spill_stores": 1, "spill_loads": 0, "tma_loads": 1})

    def test_differences_name_kernel_and_count(self):
        golden = {"a": {"registers": 168}, "b": {"registers": 32}}
        self.assertEqual(resources.differences(golden, golden), [])
        lines = resources.differences(golden, {"a": {"registers": 170}, "c": {"registers": 1}})
        self.assertEqual(lines[0], "a: registers: got 170, expected 168")
        self.assertEqual(len(lines), 3)

    @unittest.skipUnless(resources.shutil.which("c++filt"), "no c++filt")
    def test_names_are_readable(self):
        self.assertEqual(resources.demangle(["_ZN8flashmla4cuda6kernelILi2EEEvPf"]), {"_ZN8flashmla4cuda6kernelILi2EEEvPf": "flashmla::cuda::kernel<2>"})


if __name__ == "__main__":
    unittest.main()
