"""What the processor can do is asked in one place, and every kind has a path that gives the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from elicitable.models.speed import processor

ROOT = Path(__file__).parents[3]
LOWERED = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
FLOAT32 = {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}  # float32 products are MKL's, which heeds neither of the two
SPEED = ROOT / "tests" / "models" / "speed"


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No limits, and nothing remembered, before and after."""
    for name in (*LOWERED, *FLOAT32, "MKL_CBWR", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    asked = (processor.kind, processor.packs, processor.lays_out, processor.is_mkl_held_back)
    for one in asked:
        one.cache_clear()
    yield
    for one in asked:
        one.cache_clear()


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """An x86 that can everything, whatever this one can."""
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_avx512_supported", "_is_avx2_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: True, raising=False)


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(
    ("isa", "kind"),
    [
        ("", "amx"),
        ("ALL", "amx"),
        ("AVX512_CORE_AMX", "amx"),
        ("AVX10_1_512_AMX", "amx"),
        ("avx512_core_amx_fp16", "amx"),
        ("AVX10_1_512", "avx512-bf16"),
        ("AVX512_CORE_FP16", "avx512-bf16"),
        ("AVX512_CORE_BF16", "avx512-bf16"),
        ("AVX512_CORE_VNNI", "avx512"),
        ("AVX512_CORE", "avx512"),
        ("AVX2_VNNI_2", "avx2+torch-avx512+mkl-avx512"),
        ("AVX2", "avx2+torch-avx512+mkl-avx512"),
        ("AVX", "x86+torch-avx512+mkl-avx512"),
        ("SSE41", "x86+torch-avx512+mkl-avx512"),
    ],
)
@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_the_kind_is_what_onednn_may_use(name: str, isa: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, isa)
    assert processor.kind() == kind
    assert processor.has_fast_bfloat16(torch.device("cpu")) == (kind in ("amx", "avx512-bf16"))


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(
    ("capability", "kind"),
    [("AVX512", "amx"), ("AVX2", "avx2+onednn-amx+mkl-avx512"), ("DEFAULT", "x86+onednn-amx+mkl-avx512")],
)
def test_the_kind_is_what_torch_may_use(capability: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert processor.kind() == kind


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(
    ("name", "asked", "kind"),
    [
        ("MKL_ENABLE_INSTRUCTIONS", "AVX2", "amx+mkl-avx2"),
        ("MKL_ENABLE_INSTRUCTIONS", "AVX512_E4", "amx"),
        ("MKL_CBWR", "AVX2,STRICT", "amx+mkl-avx2"),
        ("MKL_CBWR", "COMPATIBLE", "amx+mkl-x86"),
        ("MKL_CBWR", "AUTO", "amx"),
    ],
)
def test_the_kind_says_what_float32_products_run_on(
    name: str, asked: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MKL heeds limits of its own alone: a record said avx2 of products that AVX-512 had made."""
    monkeypatch.setenv(name, asked)
    assert processor.kind() == kind
    processor.kind.cache_clear()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    level = kind.partition("+mkl-")[2] or "avx512"
    assert processor.kind() == ("avx2" if level == "avx2" else f"avx2+mkl-{level}")


def test_a_gpu_goes_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU had computed was stored under the kind of the CPU beside it."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    cuda = torch.device("cuda", 1)
    assert processor.made_on(cuda) == {"processor": "GPU 1", "device": "cuda:1"}
    assert processor.kind(torch.device("mps")) == "mps"
    assert processor.kind(torch.device("cpu")) == processor.kind()


def test_whether_two_ways_have_the_same_bits_is_asked_in_this_place_alone() -> None:
    assert "torch.equal(" not in Path(processor.__file__).with_name("written_out.py").read_text(encoding="utf-8")
    assert processor.have_same_bits(lambda: [torch.ones(2)], lambda: [torch.ones(2)])
    assert not processor.have_same_bits(lambda: [torch.ones(1)], lambda: [torch.ones(1)], lambda: [torch.zeros(1)])


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(
    ("tiles", "instructions", "kind"),
    [(True, True, "amx"), (False, True, "avx512-bf16"), (False, False, "avx512")],
)
def test_the_kind_is_what_the_processor_can(
    tiles: bool, instructions: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions, raising=False)
    assert processor.kind() == kind


@pytest.mark.usefixtures("amx")
def test_what_is_no_x86_goes_by_its_own_name_and_has_no_fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    assert processor.kind() == "aarch64"
    assert not processor.has_fast_bfloat16(torch.device("cpu"))


def test_a_build_without_the_operations_packs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.torch, "ops", object())
    assert not processor.packs(torch.bfloat16)


def test_bfloat16_is_packed_wherever_the_processor_is_fast_at_it() -> None:
    packs = processor.packs(torch.bfloat16)
    assert packs or not processor.has_fast_bfloat16(torch.device("cpu"))
    if processor.kind() in ("avx512", "avx512-bf16", "amx") and torch.backends.mkldnn.is_available():
        assert packs


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize(
    ("says", "isa", "is_held_back"),
    [
        ({"cpu_name": "AMD EPYC"}, "", True),
        ({"cpu_name": "AMD EPYC"}, "AVX2", False),
        ({"cpu_name": "Intel(R) Xeon(R)"}, "", False),
        ({}, "", False),
    ],
)
def test_float32_is_laid_out_where_mkl_keeps_to_avx2_and_onednn_does_not(
    says: dict[str, str], isa: str, is_held_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: says, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert processor.is_mkl_held_back() == is_held_back
    assert processor.lays_out(torch.float32) == (is_held_back and processor.packs(torch.float32))
    assert processor.lays_out(torch.bfloat16) == processor.packs(torch.bfloat16)
    assert not processor.lays_out(torch.float64)


def test_equal_numbers_of_rows_have_equal_bits_and_unequal_ones_what_was_found() -> None:
    assert processor.rows_stand_alone((7, 7), (64, 64), torch.float32, False)
    for counts in ((1, 16), (16, 304)):
        drawn = torch.Generator().manual_seed(3)
        weight, bias = torch.randn(256, 64, generator=drawn), torch.randn(64, generator=drawn)
        row = torch.randn(1, 256, generator=drawn)
        few, many = (torch.addmm(bias, row.repeat(n, 1), weight) for n in counts)
        if processor.rows_stand_alone(counts, (256, 64), torch.float32, False):
            assert torch.equal(few, many[: counts[0]])


@pytest.mark.parametrize("inputs", [16, 256, 1024])
@pytest.mark.parametrize("first", [1, 64, 70])
def test_columns_multiplied_apart_have_the_bits_that_were_found(inputs: int, first: int) -> None:
    drawn = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(shape, generator=drawn) for shape in ((48, inputs), (inputs, 192), (192,)))
    if processor.columns_stand_alone(48, (inputs, 192), first, torch.float32):
        whole = torch.addmm(bias, x, weight)
        assert torch.equal(whole[:, :first], torch.addmm(bias[:first], x, weight[:, :first]))
        assert torch.equal(whole[:, first:], torch.addmm(bias[first:], x, weight[:, first:]))


@pytest.mark.parametrize("columns", [64, 128])
def test_columns_that_come_out_otherwise_apart_are_found(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    processor.columns_stand_alone.cache_clear()
    multiply = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda b, x, w: multiply(b, x, w) + (w.shape[1] == columns))
    assert not processor.columns_stand_alone(48, (16, 192), 64, torch.float32)
    processor.columns_stand_alone.cache_clear()


@pytest.mark.parametrize("act", ["none", "relu"])
@pytest.mark.parametrize("inputs", [16, 256, 1024])
def test_a_bias_added_last_has_the_bits_that_were_found(inputs: int, act: str) -> None:
    drawn = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(shape, generator=drawn) for shape in ((48, inputs), (inputs, 64), (64,)))
    x[5, 2] = torch.nan
    plain = torch.addmm(bias, x, weight)
    plain = plain.relu_() if act == "relu" else plain
    if processor.bias_adds_last(48, (inputs, 64), torch.float32, act):
        added = processor.bias_added(x @ weight, bias, act)
        assert torch.equal(added.nan_to_num(-1.0), plain.nan_to_num(-1.0))
        assert bool((added[5].isnan() == plain[5].isnan()).all())  # a run that diverges is seen to


def run_lowered(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env={**os.environ, **LOWERED, **FLOAT32, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_variables_lower_the_kind_for_a_whole_process() -> None:
    program = (
        "from elicitable.models.speed import processor as p; import torch; print(p.kind(), p.packs(torch.bfloat16))"
    )
    done = run_lowered("-c", program)
    assert done.returncode == 0, done.stderr
    kind, packs = done.stdout.split()
    if processor.kind() in processor.KINDS:
        assert kind == min("avx2", processor.kind(), key=processor.KINDS.index)
        assert packs == "False" or not processor.has_fast_bfloat16(torch.device("cpu"))


def test_the_bits_hold_without_avx512_too() -> None:
    """A machine with AVX-512 notices here what one without it would."""
    chosen = "(bit_for_bit and kv-prefix and (5-12 or 1-9)) or same_calls or looked_up_and or nobody_reads"
    chosen += " or plain_gradient or context_gets"
    files = [str(SPEED / f"test_{name}.py") for name in ("frozen", "frozen_decoder", "written_out")]
    done = run_lowered("-m", "pytest", "-p", "no:cacheprovider", *files, "-k", chosen)
    assert done.returncode == 0, done.stdout[-4000:]
