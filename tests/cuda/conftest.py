"""The CUDA tests need a device: without one they are skipped, with the reason."""

from __future__ import annotations

import pytest
from cuda_harness import has_bf16

from op_harness import skip_without_gpu
from rvllm._native import opcall


@pytest.fixture(scope="session")
def cuda() -> opcall.Ops:
    try:
        return opcall.Cuda()
    except ValueError as e:
        skip_without_gpu(e)


@pytest.fixture(scope="session")
def cpu() -> opcall.Cpu:
    return opcall.Cpu()


@pytest.fixture(autouse=True)
def _bf16(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec and "bf16" in callspec.params.values() and "cuda" in request.fixturenames:
        request.getfixturevalue("cuda")
        if not has_bf16():
            pytest.skip("this device has no bfloat16")
