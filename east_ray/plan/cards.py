"""What the work runs on: a table of GPUs, and this machine.

To add a card, or to correct one, write it in a run's YAML file under `plan.cards`; no code changes.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from east_ray.config import InputError
from east_ray.config.base import hint
from east_ray.config.plan import CardConfig, PlanConfig


def _card(memory_gib: float, bf16_tflops: float, bandwidth_gb_s: float) -> CardConfig:
    return CardConfig(memory_gib=memory_gib, bf16_tflops=bf16_tflops, bandwidth_gb_s=bandwidth_gb_s)


#: Name -> figures of NVIDIA's and AMD's data sheets: dense bf16, without sparsity; memory as programs see it.
CARDS: Mapping[str, CardConfig] = {
    "A10G-24GB": _card(22, 70, 600),
    "L4-24GB": _card(22, 121, 300),
    "L40S-48GB": _card(44.5, 362, 864),
    "A100-40GB": _card(39.4, 312, 1555),
    "A100-80GB": _card(79.1, 312, 2039),
    "H100-80GB": _card(79.1, 989, 3350),
    "H100-PCIE-80GB": _card(79.1, 756, 2000),
    "H200-141GB": _card(139.8, 989, 4800),
    "B200-180GB": _card(178, 2250, 8000),
    "MI300X-192GB": _card(191.5, 1307, 5300),
    "RTX-3090-24GB": _card(23.6, 71, 936),
    "RTX-4090-24GB": _card(23.5, 165, 1008),
    "V100-32GB": _card(31.7, 125, 900),
}
#: Words of nvidia-smi's names -> our names; all words must occur. More special ones come first.
_NVIDIA_NAMES = (
    (("H100", "PCIe"), "H100-PCIE-80GB"), (("H100",), "H100-80GB"), (("H200",), "H200-141GB"),
    (("B200",), "B200-180GB"), (("A100", "40GB"), "A100-40GB"), (("A100",), "A100-80GB"), (("L40S",), "L40S-48GB"),
    (("A10G",), "A10G-24GB"), (("L4",), "L4-24GB"), (("3090",), "RTX-3090-24GB"), (("4090",), "RTX-4090-24GB"),
    (("V100", "32GB"), "V100-32GB"),
)  # fmt: skip

#: How far the table's memory may be from what a card of that name tells, relative to it.
_SAME_MEMORY = 0.05

#: Assumed of a CPU core: 2.5 GHz, 32 products and sums of float32 in a cycle (AVX-512), and its share of the bandwidth.
_CORE_FLOPS, _CORE_BYTES_S = 160e9, 10e9


@dataclass(frozen=True)
class Device:
    """One GPU, or this machine's CPU. Bytes, FLOP/s and bytes/s."""

    name: str
    memory: float
    flops: float
    bandwidth: float
    is_gpu: bool
    cores: int = 0  # of a CPU


def card(plan: PlanConfig) -> Device | None:
    """The GPU that the settings name, or that this machine has; None if there is none.

    Raises InputError for a name that is in no table.
    """
    known = {**CARDS, **plan.cards}
    name = plan.gpu or _here(known)
    if name is None:
        return None
    if name not in known:
        near = hint(name.upper(), list(known)) or f"; known: {', '.join(known)}"
        raise InputError(f"plan.gpu: no card {name!r} is known; plan.cards takes one in full{near}")
    one = known[name]
    return Device(name, one.memory_gib * 2**30, one.bf16_tflops * 1e12, one.bandwidth_gb_s * 1e9, is_gpu=True)


def _here(known: Mapping[str, CardConfig]) -> str | None:
    """Name of this machine's first GPU, as nvidia-smi tells it; None without one, or if its figures are not known."""
    if (command := shutil.which("nvidia-smi")) is None:
        return None
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=5).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):  # no driver, or one that does not answer: as good as no GPU here
        return None
    name, _, mebibytes = (told.splitlines() or [""])[0].rpartition(",")
    words, memory = set(re.split(r"[\s-]+", name)), float(mebibytes) / 1024 if mebibytes.strip().isdigit() else 0.0
    cards = (known[card] for parts, card in _NVIDIA_NAMES if card in known and words.issuperset(parts))
    # A card of the same family may have another memory, as in laptops.
    fitting = next((one for one in cards if abs(one.memory_gib - memory) < _SAME_MEMORY * memory), None)
    return next((card for card, one in known.items() if one is fitting), None)


def this_cpu() -> Device:
    """All cores of this machine that the process may use, with assumed speeds, and its memory."""
    cores = len(os.sched_getaffinity(0))
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(limit).is_file() and (text := Path(limit).read_text().strip()).isdigit():
            memory = min(memory, float(text))
    name = f"this machine's {cores} CPU cores"
    return Device(name, memory, cores * _CORE_FLOPS, cores * _CORE_BYTES_S, is_gpu=False, cores=cores)
