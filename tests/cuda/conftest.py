"""The CUDA tests need a device: without one they are skipped, with the reason."""

from __future__ import annotations

import pytest

from rvllm._native import opcall


@pytest.fixture(scope="session")
def cuda() -> opcall.Ops:
    try:
        return opcall.Cuda()
    except ValueError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def cpu() -> opcall.Cpu:
    return opcall.Cpu()
