"""The energy of a job by somebody else's account: CodeCarbon, without network, beside our own of `usage`.

It counts the job's own processor time at the processor's rated power (or all that the processor's energy counter
says, where it may read that), a model of the memory's power, and the GPU's own counter. Grid and data centre are the
study's business, so it is given neither. Nothing that it does may stop a job: what fails is said and left out.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

# Set by the workflow for its jobs; a program that is called by hand measures with CodeCarbon where this is 1.
SWITCH = "WUERSTCHEN_CODECARBON"
PARTS = ("kwh", "cpu_kwh", "gpu_kwh", "ram_kwh")
MEASURE_SECONDS = 15.0


class CodeCarbonMeter:
    """Measures from its creation on; `gpu` is the UUID of the one GPU to count, such as "GPU-6f9c...", or None."""

    def __init__(self, gpu: str | None = None):
        self._start, self._tracker, self._reason = time.monotonic(), None, "it gave no reading"
        self._readings: list[Any] = []
        try:
            self._tracker = _tracker(gpu, self._readings)
            self._tracker.start()
        except Exception as error:
            self._reason = f"{type(error).__name__}: {error}"
        # CodeCarbon keeps most of its own errors to itself, after logging them
        if not self._read():
            print(f"CodeCarbon: {self._reason}; this job goes on without it", file=sys.stderr)

    def _read(self) -> Any:
        try:
            self._readings.clear()
            self._tracker.flush()
        except Exception as error:
            self._reason = f"{type(error).__name__}: {error}"
        return self._readings and self._readings[-1]

    def record(self) -> dict[str, Any]:
        """`version`, `seconds`, and PARTS in kWh: all, and of it processor, GPU and memory. Or `absent`: why not."""
        reading = self._read()
        if not reading:
            return {"absent": f"CodeCarbon: {self._reason}"}
        values = (reading.energy_consumed, reading.cpu_energy, reading.gpu_energy, reading.ram_energy)
        seconds = time.monotonic() - self._start
        return {"version": reading.codecarbon_version, "seconds": seconds, **dict(zip(PARTS, values, strict=True))}

    def close(self) -> None:
        if self._tracker is not None:
            self._tracker.stop()


def meter(gpu: str | None = None) -> CodeCarbonMeter | None:
    """A running meter where SWITCH asks for one."""
    return CodeCarbonMeter(gpu) if os.environ.get(SWITCH) == "1" else None


def _tracker(gpu: str | None, readings: list[Any]) -> Any:
    """A tracker that hands each reading to `readings`, and neither writes nor sends anything.

    What a person's own settings of CodeCarbon say of output, network or data centre does not count here; what they say
    of the processor's power does.
    """
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output_methods.base_output import BaseOutput

    class Kept(BaseOutput):
        def out(self, total: Any, delta: Any) -> None:
            readings.append(total)

    # only what went wrong, not that there are other jobs or no energy counter
    logging.getLogger("codecarbon").addFilter(_went_wrong)
    return OfflineEmissionsTracker(
        country_iso_code="USA",  # it asks for one; with the intensity given, nothing depends on it
        force_carbon_intensity_g_co2e_kwh=0.0,
        cloud_provider=None,
        pue=1.0,
        wue=0.0,
        tracking_mode="process",
        gpu_ids=[] if gpu is None else [gpu],
        measure_power_secs=MEASURE_SECONDS,
        api_call_interval=-1,
        allow_multiple_runs=True,
        output_methods=[],
        output_handlers=[Kept()],
        emissions_endpoint=None,
        electricitymaps_api_token=None,
        logging_logger=None,
        log_level="warning",
    )


def _went_wrong(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or bool(record.exc_info)


def added(records: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """The records of several parts of one job, or of several jobs, together; None: of one without CodeCarbon.

    One absent part makes the whole absent: a partial sum would look like less energy.
    """
    for record in records:
        if record is None or "absent" in record:
            reason = "CodeCarbon did not run" if record is None else record["absent"]
            return {"absent": reason if len(records) == 1 else f"{reason} in a part of it"}
    sums = {key: sum(record[key] for record in records) for key in ("seconds", *PARTS)}
    return {"version": "; ".join(dict.fromkeys(record["version"] for record in records)), **sums}
