"""Which floating-point type a machine is fast in. Imported only by workers."""


def precision_of(wanted: str, device: str) -> str:
    """The type to compute in, by its name in torch: what is wanted, or for `auto` the one that the device is fast in, bfloat16 or float32.

    device: `cpu`, or `cuda` with or without a number. A processor without instructions for bfloat16 (AVX512-BF16, AMX) emulates it, many
    times slower than float32. An accelerator that isn't in this machine, as where replicas are elsewhere on a cluster, is taken for one
    that has it.
    """
    if wanted != "auto":
        return wanted
    return "bfloat16" if _has_bfloat16(device) else "float32"


def _has_bfloat16(device: str) -> bool:
    import torch

    if device.startswith("cuda"):
        return not torch.cuda.is_available() or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # what torch may use, which ATEN_CPU_CAPABILITY limits, and what the processor has
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(torch.cpu._is_avx512_bf16_supported())
