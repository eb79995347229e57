"""What `auto` means on which machine."""

import pytest
import torch

from pipeline.models.precision import precision_of


@pytest.mark.parametrize(
    ("capability", "instructions", "expected"),
    [("AVX512", True, "bfloat16"), ("AVX512", False, "float32"), ("AVX2", True, "float32"), ("AVX2", False, "float32")],
)
def test_a_processor_computes_in_bfloat16_only_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, instructions: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    assert precision_of("auto", "cpu") == expected


@pytest.mark.parametrize(
    ("here", "native", "expected"), [(True, True, "bfloat16"), (True, False, "float32"), (False, False, "bfloat16")]
)
def test_an_accelerator_has_bfloat16_unless_this_machine_s_own_has_not(
    monkeypatch: pytest.MonkeyPatch, here: bool, native: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native and not including_emulation)
    assert precision_of("auto", "cuda:1") == expected


def test_what_is_asked_for_is_taken_on_any_machine() -> None:
    assert [precision_of(wanted, "cpu") for wanted in ("bfloat16", "float16", "float32")] == [
        "bfloat16",
        "float16",
        "float32",
    ]
