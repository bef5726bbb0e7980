"""What one job of a study will cost: time of its devices and disk space, measured where it was, estimated where not.

`measured`   seconds of whole jobs (workflow/seconds.json) for the study that they were taken from, and what
             benchmarks/measured/ holds of the GPU that is asked about;
`estimated`  FLOPs, counted from shapes (`workflow.work`), over a share of the GPU's peak, `MFU`; or, for another study
             of the same preset, the seconds that were measured, `OTHER_STUDY`;
`not known`  all else: there is neither a rate nor a count that would not be invented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from workflow import published
from workflow.dryrun import PlannedJob
from workflow.settings import shard_count
from workflow.timing import TABLE
from wuerstchen.files import read_json
from wuerstchen.paper import with_baseline
from wuerstchen.presets import Preset, preset, presets

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "measured"
MEASURED, ESTIMATED, UNKNOWN = "measured", "estimated", "not known"
# Share of the GPU's dense bf16 peak. By this count of FLOPs the paper's own hours on A100 come to 7 % for Stage B, 10 %
# for Stage C and 12 % for the baseline, hence the lower end; the upper one is what well-tuned trainings of transformers
# reach.
MFU = (0.06, 0.5)
SPREAD = (0.75, 1.25)  # by which one commit's time moves with what else a machine does (README)
OTHER_STUDY = (0.5, 2.0)
BYTES_OF_WEIGHT = 4  # float32
BYTES_OF_STATE = 16  # weights, their average and AdamW's two moments
REAL_SIDE = 256  # px of real pictures that are kept to be shown

Range = tuple[float, float]


@dataclass(frozen=True)
class Gpu:
    """A GPU by torch's name of it, with the power that its maker states."""

    name: str
    watts: float


GPUS = {
    "a100": Gpu("NVIDIA A100-PCIE-40GB", 250.0),  # the paper's, by its calculator of carbon
    "h100": Gpu("NVIDIA H100 80GB HBM3", 700.0),
    "h200": Gpu("NVIDIA H200", 700.0),
}
# dense bf16 FLOP/s in NVIDIA's data sheets, by the name that torch gives the device
PEAKS = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    **dict.fromkeys(("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"), 312e12),
    **dict.fromkeys(("NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"), 312e12),
}


@dataclass(frozen=True)
class Cost:
    """Of one job. Hours are those of all its GPUs, or cores, together; None is not known, and no zero."""

    kind: str = UNKNOWN
    gpu_hours: Range | None = None
    core_hours: Range | None = None
    gigabytes: float | None = None
    basis: str = ""


def steps_and_scales(chosen: Preset, given: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of steps and guidance scales of a published Würstchen, which a config may name or leave to the model."""
    from wuerstchen.sampling import settings  # torch: seconds

    how = settings(chosen, given.get("sampling"), **{key: value for key, value in given.items() if key != "sampling"})
    steps = {key: getattr(how, key) for key in ("steps_c", "steps_b")}
    counts = {key: value if isinstance(value, int) else len(value) - 1 for key, value in steps.items()}
    return counts | {"guidance_c": how.guidance_c, "guidance_b": how.guidance_b}


class Costs:
    """The costs of a study's jobs. records: folder of measured rates, one folder per device in it."""

    def __init__(self, config: Mapping[str, Any], gpu: Gpu, records: Path = RECORDS):
        self.config, self.gpu = config, gpu
        self.measured = [read_json(path) for path in sorted(records.glob("*/*.json"))]
        self.shards = shard_count(config)
        self.is_published = published.is_published(config)

    @cached_property
    def preset(self) -> Preset:
        """What is trained, as the study reads it."""
        return with_baseline(preset(self.config["preset"]), self.config.get("baseline"))

    @cached_property
    def paper_size(self) -> bool:
        """Whether networks are of the paper's size: only of those FLOPs are counted."""
        return self.is_published or any(recipe.phases for recipe in self.preset.recipes.values())

    @cached_property
    def table(self) -> dict[str, Any]:
        """Seconds of a study's whole jobs, and whose."""
        return read_json(TABLE)

    @cached_property
    def differs(self) -> bool:
        """Whether the study asks for other work than the one that the table is of."""
        same = yaml.safe_load((ROOT / "config" / f"{self.table['study']}.yaml").read_text(encoding="utf-8"))
        about = ("study", "seed", "training_seeds", "carbon", "assumptions", "sweep")  # which change no job's length
        return any(self.config.get(key) != same.get(key) for key in {*self.config, *same} - set(about))

    @property
    def peak(self) -> float:
        """Dense bf16 FLOP/s of the GPU."""
        return PEAKS[self.gpu.name]

    def cost(self, job: PlannedJob) -> Cost:
        """What a job will cost."""
        if not self.paper_size:
            return self.cost_of_small(job)
        if job.rule == "train_phase":
            return self.cost_of_phase(job.wildcards["stage"], int(job.wildcards["phase"]))
        if job.rule in ("draw", "sample", "real_pictures"):
            sets = [job.wildcards["prompts"]] if "prompts" in job.wildcards else list(self.config["prompts"])
            return self.cost_of_drawing(job.wildcards["model"], sets)
        if job.rule == "real_shards":
            pictures = self.config["prompts"][job.wildcards["prompts"]]["count"] / self.shards
            return Cost(gigabytes=pictures * REAL_SIDE**2 * published.BYTES_PER_PIXEL / 1e9)
        return Cost()

    def cost_of_small(self, job: PlannedJob) -> Cost:
        """A job of a study that trains on two cores, by the seconds of the emoji study's whole jobs."""
        seconds, study = self.table["seconds"], self.table["study"]
        if self.preset.name != study or job.rule not in seconds:
            return Cost()
        low, high = OTHER_STUDY if self.differs else SPREAD
        hours = seconds[job.rule] * job.threads / 3600
        basis = f"whole jobs of the {study} study on {self.table['machine']}, {low:g} to {high:g} times as long"
        return Cost(ESTIMATED if self.differs else MEASURED, core_hours=(low * hours, high * hours), basis=basis)

    def cost_of_phase(self, stage: str, number: int) -> Cost:
        """A phase of a training at the paper's size."""
        from workflow.work import phase_flops, training_sample

        flops = phase_flops(self.preset, stage, number)
        gigabytes = training_sample(self.preset, stage, number).parameters * (BYTES_OF_WEIGHT + BYTES_OF_STATE) / 1e9
        for record in self.measured:
            ours = record.get("ours") or {}
            if (record.get("name"), record.get("size"), stage) == ("training", self.preset.name, "c"):
                if record["device"] == self.gpu.name and ours.get("mfu"):
                    hours = flops / (self.peak * ours["mfu"]) / 3600
                    basis = f"{100 * ours['mfu']:.0f} % of the peak in a training of Stage C on one {self.gpu.name}"
                    return Cost(MEASURED, gpu_hours=(hours, hours), gigabytes=gigabytes, basis=basis)
        return self.from_flops(flops, gigabytes)

    def cost_of_drawing(self, model: str, sets: Sequence[str]) -> Cost:
        """A job that draws one shard of some prompt sets."""
        from workflow.work import picture_flops

        pictures = sum(self.config["prompts"][name]["count"] for name in sets) / self.shards
        chosen = None if self.is_published else self.preset
        if self.is_published and model == "wuerstchen":
            chosen = presets().get(published.models(self.config)[model]["weights"])  # none: a folder, of any sizes
        side = published.SIDES.get(model, chosen.image_size if chosen else 1024)
        if model == "baseline-ldm":
            side = chosen.recipes[model].phases[-1].sizes[0][0]
        gigabytes = pictures * side**2 * published.BYTES_PER_PIXEL / 1e9
        drawn_by = "wuerstchen" if model.startswith("ceiling-") else model
        settings = self.config["sampling"].get(drawn_by, {})
        if self.is_published and chosen:
            settings = steps_and_scales(chosen, settings)
        for record in self.measured:
            if record.get("figure") == 4 and record["device"] == self.gpu.name and model in record["models"]:
                steps = record["models"][model]["steps"]
                cells = [cell for cell in record["cells"] if cell["model"] == model and not cell["compiled"]]
                each = [cell["seconds_per_batch"] / cell["batch_size"] for cell in cells if "failed" not in cell]
                if each and side == record["image_size"] and steps == {key: settings.get(key) for key in steps}:
                    hours = pictures * min(each) / 3600
                    basis = f"Figure 4's times on one {self.gpu.name}, at the batch size that is fastest"
                    return Cost(MEASURED, gpu_hours=(hours, hours), gigabytes=gigabytes, basis=basis)
        flops = picture_flops(model, chosen, settings)
        return Cost(gigabytes=gigabytes) if flops is None else self.from_flops(pictures * flops, gigabytes)

    def from_flops(self, flops: float, gigabytes: float | None) -> Cost:
        """By FLOPs over the GPU's peak."""
        low, high = MFU
        hours, peak = flops / self.peak / 3600, f"{self.peak / 1e12:.0f} TFLOP/s of one {self.gpu.name}"
        basis = f"FLOPs, counted from shapes, at {100 * low:.0f} to {100 * high:.0f} % of the {peak}"
        return Cost(ESTIMATED, gpu_hours=(hours / high, hours / low), gigabytes=gigabytes, basis=basis)
