"""CodeCarbon's account of a job: without network and files, added over parts, and never in a job's way."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wuerstchen import independent
from wuerstchen.independent import PARTS, SWITCH, CodeCarbonMeter, added
from wuerstchen.usage import CORE_WATTS, Usage, cpu_name

RECORD = {"version": "1", "seconds": 2.0, "kwh": 6.0, "cpu_kwh": 1.0, "gpu_kwh": 2.0, "ram_kwh": 3.0}

# A whole job with CodeCarbon in it, where nothing may open a connection, whatever a person's own settings ask for.
JOB = """
import socket, sys, time
def refuse(*arguments): sys.exit(f"a connection to {arguments[-1]}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from wuerstchen.usage import Usage
with Usage(device="cpu") as usage:
    until = time.process_time() + 1
    while time.process_time() < until: pass
    usage.snapshot()
    print(usage.snapshot()["codecarbon"])
"""
SETTINGS = """[codecarbon]
save_to_api = true
emissions_endpoint = http://192.0.2.1/
co2_signal_api_token = abc
output_methods = csv,api
cloud_provider = aws
cloud_region = us-east-1
pue = 3
allow_multiple_runs = false
"""


def test_it_opens_no_connection_and_writes_no_file(tmp_path: Path) -> None:
    (tmp_path / ".codecarbon.config").write_text(SETTINGS)
    environment = os.environ | {SWITCH: "1", "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-B", "-c", JOB], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0 and run.stderr == "", run.stderr
    record = eval(run.stdout)
    assert set(record) == {"version", "seconds", *PARTS} and record["seconds"] > 1
    assert record["kwh"] == pytest.approx(record["cpu_kwh"] + record["gpu_kwh"] + record["ram_kwh"])
    assert record["cpu_kwh"] > 0 and record["ram_kwh"] > 0 and record["gpu_kwh"] == 0
    assert [path.name for path in tmp_path.iterdir()] == [".codecarbon.config"]


def test_it_counts_the_jobs_own_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """At our own watts where neither knows the processor better; asleep, the job costs nothing."""
    meter = CodeCarbonMeter()
    try:
        before, cpu = meter.record()["cpu_kwh"], time.process_time()
        time.sleep(1)
        asleep = meter.record()["cpu_kwh"] - before
        start = time.process_time()
        while time.process_time() < start + 1:
            pass
        busy = meter.record()["cpu_kwh"] - before - asleep
        spent = time.process_time() - start
    finally:
        meter.close()
    assert start - cpu < 0.5 and busy > 3 * asleep > 0
    if "EPYC" in cpu_name() and not Path("/sys/class/powercap/intel-rapl:0").exists():
        assert busy == pytest.approx(CORE_WATTS * spent / 3.6e6, rel=0.25)


def test_it_runs_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    with Usage(device="cpu") as usage:
        assert "codecarbon" not in usage.snapshot()


@pytest.mark.parametrize("broken", ["OfflineEmissionsTracker.__init__", "OfflineEmissionsTracker.start", "BaseOutput"])
def test_a_failing_tracker_is_said_and_stops_nothing(broken, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    import codecarbon
    from codecarbon.output_methods import base_output

    def fail(*arguments, **named):
        raise RuntimeError("no such hardware")

    owner, _, name = broken.rpartition(".")
    monkeypatch.setattr(getattr(codecarbon, owner) if owner else base_output, name, fail)
    monkeypatch.setenv(SWITCH, "1")
    with Usage(device="cpu") as usage:
        record = usage.snapshot(steps=1)
    assert record["steps"] == 1 and record["kwh"] > 0
    assert record["codecarbon"]["absent"].startswith("CodeCarbon: ")
    assert "this job goes on without it" in capfd.readouterr().err


def test_parts_add_up_and_one_absent_part_makes_the_whole_absent() -> None:
    whole = added([RECORD, RECORD | {"version": "2"}])
    assert whole == {key: 2 * value for key, value in RECORD.items() if key != "version"} | {"version": "1; 2"}
    assert added([RECORD, None]) == {"absent": "CodeCarbon did not run in a part of it"}
    assert added([None]) == {"absent": "CodeCarbon did not run"}
    assert added([{"absent": "CodeCarbon: x"}, RECORD]) == {"absent": "CodeCarbon: x in a part of it"}


def test_a_resumed_job_adds_to_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed:
        def record(self):
            return RECORD

        def close(self):
            pass

    monkeypatch.setattr(independent, "meter", lambda gpu=None: Fixed())
    first = Usage.resume(None, "cpu").snapshot()
    assert first["codecarbon"] == RECORD
    assert Usage.resume(first, "cpu").snapshot()["codecarbon"]["kwh"] == 2 * RECORD["kwh"]
    del first["codecarbon"]
    assert "absent" in Usage.resume(first, "cpu").snapshot()["codecarbon"]
