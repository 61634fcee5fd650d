"""What keep_memory promises, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pretrain_mlip.memory import keep_memory

SCRIPT = """
import resource, sys
import torch
import pretrain_mlip
if sys.argv[1] == "keep":
    assert pretrain_mlip.keep_memory()
def work():
    tensors = [torch.ones(10_000_000) for _ in range(5)]  # above 32 MiB glibc gives back whatever it has learned
for _ in range(4):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of Linux")
def test_freed_memory_is_used_again() -> None:
    def faults(mode: str) -> int:
        found = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
        return int(found.stdout)

    # 5 tensors of 40 MB are 49,000 pages, which the system otherwise hands out anew, or most of them
    assert faults("keep") < 0.25 * faults("leave")


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_memory() is False
