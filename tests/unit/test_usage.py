"""wuerstchen.usage: energy sources, accumulation over resumes, and no torch at import."""

import os
import subprocess
import sys
import time

import pytest

from wuerstchen import usage
from wuerstchen.usage import CORE_WATTS, RaplMeter, TdpMeter, Usage


@pytest.fixture
def no_counter(monkeypatch, tmp_path):
    """A processor without readable energy counters."""
    monkeypatch.setattr(usage, "RaplMeter", lambda: RaplMeter(tmp_path))


def package(powercap, name, energy, limit=1_000_000, label="package-0"):
    zone = powercap / name
    zone.mkdir(exist_ok=True)
    (zone / "name").write_text(label)
    (zone / "max_energy_range_uj").write_text(str(limit))
    (zone / "energy_uj").write_text(str(energy))
    return zone / "energy_uj"


def test_contract_keys_and_estimate(no_counter, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Usage.resume(None, device="cpu") as job:
        time.sleep(0.05)
        record = job.snapshot(images=3, steps=2, stage="a")
    assert list(record)[:7] == ["device", "count", "seconds", "kwh", "kwh_source", "images", "steps"]
    assert record["stage"] == "a" and record["images"] == 3 and record["steps"] == 2
    assert record["kwh_source"] == "tdp" and record["count"] == 1 and record["watts"] == CORE_WATTS
    assert 0.05 <= record["seconds"] < 5
    assert record["kwh"] == pytest.approx(CORE_WATTS * record["seconds"] / 3.6e6, rel=0.05)


def test_resume_adds_up(no_counter):
    previous = {"device": usage.cpu_name(), "count": 2, "seconds": 100.0, "kwh": 0.25, "kwh_source": "tdp"}
    record = Usage.resume(previous | {"images": 640, "steps": 20}, device="cpu").snapshot(images=32, steps=1)
    assert record["images"] == 672 and record["steps"] == 21
    assert 100 < record["seconds"] < 105 and 0.25 < record["kwh"] < 0.2501
    assert record["device"] == usage.cpu_name()
    again = Usage.resume(record, device="cpu").snapshot(images=32, steps=1)
    assert again["images"] == 704 and again["seconds"] > record["seconds"] and again["kwh"] > record["kwh"]


def test_a_partly_estimated_energy_is_an_estimate(no_counter):
    previous = {"device": "Some GPU", "count": 1, "seconds": 1.0, "kwh": 0.1, "kwh_source": "nvml"}
    record = Usage.resume(previous, device="cpu").snapshot()
    assert record["kwh_source"] == "tdp"
    assert record["device"] == f"Some GPU; {usage.cpu_name()}"


def test_rapl_counts_packages_once_and_survives_the_wrap(tmp_path):
    package(tmp_path, "intel-rapl:0:0", 5, label="core")
    first = package(tmp_path, "intel-rapl:0", 900_000)
    second = package(tmp_path, "intel-rapl:1", 100_000, label="package-1")
    meter = RaplMeter(tmp_path, interval=60)
    first.write_text("100000")  # wrapped at 1 J: 0.2 J
    second.write_text("400000")  # 0.3 J
    assert meter.joules() == pytest.approx(0.5)
    first.write_text("150000")
    assert meter.joules() == pytest.approx(0.55)
    meter.close()


def test_rapl_reads_between_snapshots(tmp_path):
    counter = package(tmp_path, "intel-rapl:0", 0)
    meter = RaplMeter(tmp_path, interval=0.01)
    for value in (600_000, 200_000):  # two snapshots apart, the second value alone would read as 0.2 J
        replacement = tmp_path / "next"
        replacement.write_text(str(value))
        os.replace(replacement, counter)
        time.sleep(0.2)
    assert meter.joules() == pytest.approx(1.2)
    meter.close()


def test_an_unreadable_counter_is_not_zero_energy(tmp_path):
    with pytest.raises(OSError, match="no processor package"):
        RaplMeter(tmp_path)


def test_cores_follow_omp_num_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert usage.cpu_cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert usage.cpu_cores() == len(os.sched_getaffinity(0))


def test_tdp_meter_grows_with_time():
    meter = TdpMeter(1000.0)
    time.sleep(0.02)
    assert 20 <= meter.joules() < 2000


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="'tpu'"):
        Usage(device="tpu")


def test_import_needs_no_torch():
    code = "import sys, wuerstchen.usage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class FakeNvml:
    """libnvidia-ml as far as it is used: a counter in millijoules, a default limit in milliwatts."""

    def __init__(self, counts: bool = True, limits: bool = True, found: bool = True):
        self.counts, self.limits, self.found, self.millijoules = counts, limits, found, 5_000_000

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        assert uuid.value == b"GPU-1234-abcd"
        return 0 if self.found else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, value):
        value._obj.value = self.millijoules
        return 0 if self.counts else 3

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle, value):
        value._obj.value = 700_000
        return 0 if self.limits else 3


@pytest.fixture
def fake_gpu(monkeypatch):
    """Pretend that torch sees a GPU and that `library` is its NVML."""
    torch = pytest.importorskip("torch")
    properties = type("Properties", (), {"uuid": "1234-abcd"})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Fake H100")

    def use(library):
        def load(name):
            if library is None:
                raise OSError(name)
            return library

        monkeypatch.setattr(usage.ctypes, "CDLL", load)
        return Usage(device="cuda:0")

    return use


def test_nvml_counter_is_measured_in_kwh(fake_gpu):
    library = FakeNvml()
    job = fake_gpu(library)
    library.millijoules += 7_200_000  # 7.2 kJ
    record = job.snapshot()
    assert record["kwh"] == pytest.approx(0.002) and record["kwh_source"] == "nvml"
    assert record["device"] == "Fake H100" and record["count"] == 1 and "watts" not in record


@pytest.mark.parametrize(
    "library, watts",
    [
        (FakeNvml(counts=False), 700.0),
        (FakeNvml(counts=False, limits=False), usage.GPU_WATTS),
        (FakeNvml(found=False), usage.GPU_WATTS),
        (None, usage.GPU_WATTS),
    ],
)
def test_a_gpu_without_a_counter_is_marked_as_an_estimate(fake_gpu, library, watts):
    record = fake_gpu(library).snapshot()
    assert record["kwh_source"] == "tdp" and record["watts"] == watts


def test_gpu_energy_is_the_counters():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    with Usage.resume(None) as job:
        matrix = torch.randn(4096, 4096, device="cuda")
        while job.snapshot()["seconds"] < 1:
            matrix = torch.nn.functional.normalize(matrix @ matrix)
            torch.cuda.synchronize()
        record = job.snapshot()
    assert record["device"] == torch.cuda.get_device_name()
    watts = record["kwh"] * 3.6e6 / record["seconds"]
    assert record["kwh_source"] in {"nvml", "tdp"} and 20 < watts < 1500
