"""What a job used: wall time and electrical energy, measured where the machine allows it, estimated where not.

Energy in kWh comes from the first of these that the machine offers, and `kwh_source` says which:

`nvml`  the GPU's own energy counter (millijoules since the driver was loaded), the whole board;
`rapl`  the processor packages' energy counters of the Linux powercap interface, which often only root may read. They
        count the whole package, so other work on the machine is included;
`tdp`   an estimate: stated watts x wall time. For a GPU the watts are its default power limit as NVML states it; for a
        processor they are `CORE_WATTS` x the cores the job may use.

A GPU job counts the GPU alone, as the paper does: no host, no cooling, no network. What CodeCarbon makes of the same
time (`wuerstchen.independent`) stands beside it, where it is asked for.
"""

import ctypes
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

from wuerstchen import independent

# What mlco2/codecarbon assumes per core where it knows no better (codecarbon/core/cpu.py, DEFAULT_POWER_PER_CORE).
CORE_WATTS = 4.0
# The A100 PCIe of the paper's calculator (mlco2/impact, data/gpus.csv), for a GPU that states no power limit.
GPU_WATTS = 250.0
JOULES_PER_KWH = 3.6e6
RAPL_SECONDS = 20.0
POWERCAP = Path("/sys/class/powercap")


class TdpMeter:
    """Stated watts times wall time."""

    source = "tdp"

    def __init__(self, watts: float):
        self.watts = watts
        self._start = time.monotonic()

    def joules(self) -> float:
        return self.watts * (time.monotonic() - self._start)

    def close(self) -> None:
        pass


class NvmlMeter:
    """The GPU's counter; `handle` is a device of the loaded library `nvml`."""

    source = "nvml"

    def __init__(self, nvml: ctypes.CDLL, handle: ctypes.c_void_p):
        self._nvml, self._handle = nvml, handle
        self._start = self._read()

    def _read(self) -> float:
        millijoules = ctypes.c_ulonglong()
        code = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules))
        if code:
            raise OSError(f"nvmlDeviceGetTotalEnergyConsumption answered error {code}")
        return millijoules.value / 1000

    def joules(self) -> float:
        return self._read() - self._start

    def close(self) -> None:
        pass


class RaplMeter:
    """Sum over the processor packages. A counter wraps within minutes under load, so a thread reads it meanwhile.

    Raises OSError where there is no counter or it may not be read.
    """

    source = "rapl"

    def __init__(self, powercap: Path = POWERCAP, interval: float = RAPL_SECONDS):
        # "intel-rapl:0" is a package (AMD's too); "intel-rapl:0:0" is a part of one and would be counted twice.
        zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._zones = [zone for zone in zones if (zone / "name").read_text().startswith("package")]
        if not self._zones:
            raise OSError(f"no processor package under {powercap}")
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        self._last = self._read()
        self._microjoules = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        threading.Thread(target=self._watch, args=(interval,), daemon=True).start()

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def _watch(self, interval: float) -> None:
        while not self._stop.wait(interval):
            self.joules()

    def joules(self) -> float:
        with self._lock:
            now = self._read()
            for value, last, limit in zip(now, self._last, self._ranges, strict=True):
                self._microjoules += value - last if value >= last else value - last + limit
            self._last = now
            return self._microjoules / 1e6

    def close(self) -> None:
        self._stop.set()


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cpu_cores() -> int:
    """Cores this process may use: its affinity, or fewer where OMP_NUM_THREADS (which Snakemake sets) says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(threads)) if threads.isdigit() and int(threads) > 0 else cores


def _uuid(index: int) -> str:
    """What NVML knows a CUDA device by: CUDA_VISIBLE_DEVICES renumbers CUDA's devices but not NVML's."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"


def _gpu_meter(index: int) -> NvmlMeter | TdpMeter:
    """The counter of a CUDA device, or an estimate from its power limit (a MIG slice and old GPUs count no energy)."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return TdpMeter(GPU_WATTS)
    handle = ctypes.c_void_p()
    uuid = ctypes.c_char_p(_uuid(index).encode())
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
        return TdpMeter(GPU_WATTS)
    try:
        return NvmlMeter(nvml, handle)
    except OSError:
        milliwatts = ctypes.c_uint()
        code = nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle, ctypes.byref(milliwatts))
        return TdpMeter(GPU_WATTS if code else milliwatts.value / 1000)


def _cpu_meter(cores: int) -> RaplMeter | TdpMeter:
    try:
        return RaplMeter()
    except OSError:
        return TdpMeter(CORE_WATTS * cores)


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()


class Usage:
    """Measures from its creation on; `with Usage.resume(previous) as usage:` ends the measuring thread at the end.

    `device` is "cpu", "cuda" or "cuda:N"; left out, it is the current GPU where torch finds one, else the processor.
    One object measures one GPU: in a distributed run every process has its own.
    """

    def __init__(self, previous: dict[str, Any] | None = None, device: str | None = None):
        self._previous = dict(previous or {})
        if device is None:
            device = "cuda" if _cuda_available() else "cpu"
        kind, _, index = device.partition(":")
        if kind == "cuda":
            import torch

            number = int(index) if index else torch.cuda.current_device()
            self._device, self._count = torch.cuda.get_device_name(number), 1
            self._other = independent.meter(_uuid(number))
            self._meter = _gpu_meter(number)
        elif kind == "cpu":
            self._device, self._count = cpu_name(), cpu_cores()
            self._other = independent.meter()
            self._meter = _cpu_meter(self._count)
        else:
            raise ValueError(f"device: {device!r}, but usage is measured for 'cpu', 'cuda' or 'cuda:N'")
        self._start = time.monotonic()  # CodeCarbon takes a second to start, which is no part of the job

    @classmethod
    def resume(cls, previous: dict[str, Any] | None, device: str | None = None) -> "Usage":
        """Start measuring on top of `previous`, an earlier snapshot of the same job (None: a fresh job)."""
        return cls(previous, device)

    def snapshot(self, images: int = 0, steps: int = 0, **extra: Any) -> dict[str, Any]:
        """Usage so far, in the contract's form, with `extra` keys after it.

        `images` and `steps` count this process's own work; the earlier snapshot's are added here, as its seconds and
        kWh are. `count` is the number of GPUs, or of cores. `watts` stands beside estimates. An energy of which any
        part was estimated has the source "tdp"; devices that took turns are joined by "; ". `codecarbon` is there where
        CodeCarbon was asked for.
        """
        previous, meter = self._previous, self._meter
        source, device = meter.source, self._device
        if previous:
            source = source if previous["kwh_source"] == source else "tdp"
            earlier = previous["device"].split("; ")
            device = "; ".join(earlier if device in earlier else [*earlier, device])
        record = {
            "device": device,
            "count": self._count,
            "seconds": previous.get("seconds", 0.0) + time.monotonic() - self._start,
            "kwh": previous.get("kwh", 0.0) + meter.joules() / JOULES_PER_KWH,
            "kwh_source": source,
            "images": previous.get("images", 0) + images,
            "steps": previous.get("steps", 0) + steps,
        }
        if isinstance(meter, TdpMeter):
            record["watts"] = meter.watts
        if self._other is not None:
            parts = [self._other.record()]
            record["codecarbon"] = independent.added([previous.get("codecarbon"), *parts] if previous else parts)
        return record | extra

    def __enter__(self) -> "Usage":
        return self

    def __exit__(self, *error: object) -> None:
        self._meter.close()
        if self._other is not None:
            self._other.close()
