# What the chapters of a study of published models ask of the config, beside common.smk. Nothing is trained.

from workflow import published

MODELS = list(published.models(config))
SETS_WITH_REFERENCE = published.sets_with(config, "reference")
STUDIES = [STUDY]
# Pictures drawn to be looked at, and for what reads no other files than shards; distances have their own preparation.
REAL_SHARDS = "centre-square-bicubic-256"
METRICS = config["metrics"]
# How pictures become features where no protocol says it: FD-DINOv2 as dgm-eval, CMMD as its authors have it.
EXTRACTION = {
    "dinov2": "--extractor dinov2 --preprocessing pil-uint8-224 --prepare none-bicubic-224",
    "clip-l14-336": "--extractor clip-l14-336 --preprocessing square-crop-336 --prepare centre-square-bicubic-336",
}
PROTOCOL_SCORES = {
    metric: ["precision", "recall", "density", "coverage"] if metric == "prdc" else [metric]
    for metric in METRICS
    if metric in published.WITH_PROTOCOL
}
WRITTEN = PROTOCOL_SCORES or {"fid": ["fid"]}  # a rule has to write something, needed or not
SCORERS = {
    "clip-score-b32": "clip_score --clip clip-b32",
    "clip-score-l14": "clip_score --clip clip-l14",
    "pickscore": "preference score --scorer pickscore",
    "hpsv2.1": "preference score --scorer hpsv2.1",
}
PREFERRED = published.PREFERENCE in METRICS and len(MODELS) > 1
PARTS = config["robustness"]["parts"]
FIGURES = ["collage", "side-by-side", "robustness"]
FIGURES += ["power-spectrum"] * ("power-spectrum" in METRICS) + ["figure4"] * ("speed" in METRICS)
FIGURES += ["figure5"] * bool(VOTES)


wildcard_constraints:
    study=config["study"],
    model="|".join(map(re.escape, [*MODELS, "real"])),
    extractor="inception|" + "|".join(EXTRACTION),
    scorer="|".join(map(re.escape, SCORERS)),
    part="[0-9]+",
    figure="|".join(FIGURES),


def weights_flags(wildcards):
    """Where a model's weights are, or a folder of its pictures; nothing for one whose files are assets."""
    about = published.models(config)[wildcards.model]
    flags = {"weights": "--weights", "folder": "--pictures"}
    return " ".join(f"{flags[key]} {shlex.quote(value)}" for key, value in about.items())


def sampling_flags(wildcards):
    """A model's sampling settings, such as `--sampling paper --set guidance_c=6`."""
    settings = dict(config["sampling"].get(wildcards.model, {}))
    name = f"--sampling {settings.pop('sampling')} " if "sampling" in settings else ""
    return name + ("--set " + " ".join(f"{key}={value}" for key, value in settings.items()) if settings else "")


def list_flags(wildcards):
    """The official list that a prompt set is read from, where it is not the loader's asset."""
    about = config["prompts"][wildcards.prompts]
    option = published.SETS[about["loader"]].option
    return f"--{option} {shlex.quote(about['file'])}" if "file" in about else ""


def assets_flags():
    """All files that must be there before the study starts."""
    needs = published.needs(config)
    names = " ".join(map(shlex.quote, needs["assets"]))
    paths = f" --paths {' '.join(map(shlex.quote, needs['paths']))}" if needs["paths"] else ""
    return f"--source {needs['source']} --assets {names}{paths} --gigabytes {needs['gigabytes']}"


def usage_files():
    """What each step of the study has used: lists of files by step."""
    return {f"sample-{model}": all_shards(model, ".usage.json") for model in MODELS}


def extraction_flags(wildcards):
    """How pictures become the features of an extractor."""
    if wildcards.extractor in EXTRACTION:
        return EXTRACTION[wildcards.extractor]
    return f"--protocol {config['prompts'][wildcards.prompts]['protocol']}"


def shards_of_set(wildcards):
    """The shards of a rule's model and prompt set."""
    return shards(wildcards.model, wildcards.prompts, study=f"results/{wildcards.study}")


def real_shards_of_set(wildcards):
    """The shards of the real pictures of a rule's prompt set."""
    return shards("real", wildcards.prompts, study=f"results/{wildcards.study}")


def crosschecked():
    """The prompt set whose pictures other packages are run on: the first with a protocol."""
    return published.sets_with(config, "protocol")[:1]


def distance_files():
    """FID and its like under their protocols, FD-DINOv2 and CMMD, of every model."""
    found = []
    for names in PROTOCOL_SCORES.values():
        for name in names:
            found += score_files(name, MODELS, published.sets_with(config, "protocol"))
    for name in ("fd-dinov2", "cmmd"):
        if name in METRICS:
            found += score_files(name, MODELS, SETS_WITH_REFERENCE)
    return found


def preference_files():
    """CLIPScore, PickScore and HPS of every model, and the win rates by PickScore."""
    found = []
    for scorer in SCORERS:
        if scorer in METRICS:
            found += score_files(scorer, MODELS, config["prompts"])
    if PREFERRED:
        found += collect(f"{STUDY}/scores/win-rate/{{prompts}}.json", prompts=config["prompts"])
    return found


def spectrum_files():
    """Power spectra of the models' pictures and of the real ones."""
    if "power-spectrum" not in METRICS:
        return []
    return score_files("power-spectrum", [*MODELS, "real"], SETS_WITH_REFERENCE)


def crosscheck_files():
    """What other packages make of the first model's pictures, where that is asked for."""
    return [f"{STUDY}/crosscheck.json"] if "crosscheck" in METRICS else []


def speed_files():
    """The paper's models timed at their own size, where that is asked for."""
    return [f"{STUDY}/speed/figure4.done"] if "speed" in METRICS else []


def part_files(wildcards):
    """The features of all parts of a set."""
    digits = len(str(PARTS - 1))
    return [
        f"results/{wildcards.study}/robustness/parts/{wildcards.set}/{part:0{digits}d}-of-{PARTS}.npz"
        for part in range(PARTS)
    ]


def named_pictures(wildcards):
    """The prompts of a set, where only the pictures that they name are taken."""
    chosen = config["robustness"]["sets"][wildcards.set].get("prompts")
    return [f"results/{wildcards.study}/prompts/{chosen}.jsonl"] if chosen else []


def picture_files():
    """Everything that can be shown: prompts, drawn pictures and real pictures."""
    return [
        *collect(f"{STUDY}/prompts/{{prompts}}.jsonl", prompts=config["prompts"]),
        *[shard for model in MODELS for shard in all_shards(model)],
        *[shard for prompts in SETS_WITH_REFERENCE for shard in shards("real", prompts)],
    ]


def table_inputs(wildcards):
    """What a table shows."""
    return {
        "1": preference_files(),
        "2": [*distance_files(), *preference_files(), *crosscheck_files()],
        "3": robustness_files(),
    }[wildcards.number]


def figure_inputs(wildcards):
    """What a figure shows."""
    return {
        "collage": picture_files(),
        "side-by-side": picture_files(),
        "robustness": robustness_files(),
        "power-spectrum": spectrum_files(),
        "figure4": speed_files(),
        "figure5": VOTES,
    }[wildcards.figure]


def summary_inputs():
    """Every measurement of the study."""
    return [
        *collect(f"{STUDY}/prompts/{{prompts}}.json", prompts=config["prompts"]),
        *distance_files(),
        *preference_files(),
        *spectrum_files(),
        *crosscheck_files(),
        *robustness_files(),
        *speed_files(),
        f"{STUDY}/carbon.json",
        *VOTES,
    ]
