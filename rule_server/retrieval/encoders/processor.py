"""Whether the processor is fast with int8 weights."""

from __future__ import annotations

from pathlib import Path

INT8_FLAGS = frozenset({"avx2", "avx512_vnni", "avx_vnni", "asimddp"})
"""Features of processors with fast products of int8: AVX2 multiplies and adds them in two instructions, VNNI
(x86-64) and dotprod (ARM) in one."""


def has_int8_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Returns whether the processor multiplies int8 fast. False where Linux does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not INT8_FLAGS.isdisjoint(flags.split())
    return False
