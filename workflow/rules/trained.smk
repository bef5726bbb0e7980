# What the chapters of a study that trains its models ask of the config, beside common.smk.

import dataclasses
from os.path import relpath

from wuerstchen.paper import with_baseline
from wuerstchen.presets import overridden, preset

config.setdefault("training_seeds", [config["seed"]])

# Ceilings are what the best possible model could reach; a folder of pictures has no second artist.
RECONSTRUCTED = ["ceiling-stage-a", "ceiling-compressor"]
WITH_PICTURES = ["names", "descriptions"]  # the prompt sets whose prompts have a real picture
REAL = {"real": WITH_PICTURES}  # what needs no trained stage, with its prompt sets
if config["data"]["source"] == "emoji":
    REAL["ceiling-other-artist"] = ["names"]
CEILINGS = [*RECONSTRUCTED, *list(REAL)[1:]]
FIGURES = ["collage", "side-by-side", "speed", "training", "recall-curve", "robustness"]
FIGURES += ["probe"] * ("probe" in config) + ["figure4"] * ("figure4" in config["speed"]) + ["figure5"] * bool(VOTES)
SHARDED = config["data"]["source"] == "webdataset"  # trained on a cluster, which keeps no weights on the way
# What a job that draws needs. With the weights of Stages B and C in float32 on their way to the GPU, and a thousand
# pictures of 1024 px, 6 GB do not suffice.
DRAWING_CORES, DRAWING_GIGABYTES = (2, 32) if SHARDED else (1, 6)
# Of real pictures in memory, for jobs that hold all of them: some 40,000 PNGs of 1024 px.
HELD_GIGABYTES = 48 if SHARDED else 0
if "curve" not in config:
    FIGURES.remove("recall-curve")
CURVES = ["ceiling-compressor", *(model for model in config["models"] if model != LONG)]
# The first training seed's results are the study's own. Each further seed has a folder of the same layout inside it,
# results/<study>/seeds/<seed>/, and the same rules make both: what training decides stands under "results/{study}", and
# what all trainings share (data, prompts, real pictures, the scorer) under STUDY.
STUDIES = [STUDY, *(f"{STUDY}/seeds/{seed}" for seed in config["training_seeds"][1:])]


# What the target `sweep` tries, and the latents that each stage is trained on.
SWEEP = config.get("sweep", {})
SWEPT_LATENTS = {"b": ["a", "trunk"], "c": ["compressor"], "baseline-ldm": ["a"]}
SWEEP_COMMAND = "snakemake sweep --cores all --configfile " + " ".join(map(relpath, workflow.configfiles))


wildcard_constraints:
    study="|".join(folder.removeprefix("results/") for folder in STUDIES),
    model="|".join([*config["models"], "real", *CEILINGS]),
    figure="|".join(FIGURES),
    stage="a|b|c|baseline-ldm",
    phase="[1-9]",
    choice="base|aesthetic",


def training_seed(wildcards):
    """The seed of the trainings in a study's folder."""
    return config["training_seeds"][STUDIES.index(f"results/{wildcards.study}")]


def recipe(stage):
    """What the config says of a stage's training recipe, as texts."""
    given = config.get("training", {}).get(stage, {})
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}


def training_flags(stage, more={}):
    """The flags that override fields of the preset's recipe, where the config (or `more`) gives some."""
    given = recipe(stage) | more
    steps = f"--steps {given.pop('steps')} " if "steps" in given else ""
    pairs = " ".join(shlex.quote(f"{key}={value}") for key, value in given.items())
    return steps + (f"--set {pairs}" if pairs else "")


def budget(*stages):
    """The flag that gives a rival the training FLOPs of some stages, by the recipes that they have in this study."""
    items = []
    for stage in stages:
        pairs = [f"{key}={value}" for key, value in recipe(stage).items() if key in ("steps", "batch_size")]
        items.append(f"{stage}:{','.join(pairs)}" if pairs else stage)
    return "--budget " + " ".join(items)


def snapshot_flags():
    """The flag that keeps weights on the way, for the curve of recall against training time."""
    return f"--snapshots {' '.join(map(str, config['curve']['snapshots']))}"


def snapshots(stage):
    """The weights of a stage that are kept on the way."""
    return [
        f"results/{{study}}/train/{stage}/snapshots/{percent}.safetensors" for percent in config["curve"]["snapshots"]
    ]


def sampling_flags(wildcards):
    """A model's sampling settings, such as `--set steps_c=20 guidance_c=4.0`, and where it draws."""
    settings, device = sampling_settings(wildcards.model), ["--device auto"] * on_gpu(wildcards)
    return " ".join([*device, f"--set {settings}"] if settings else device)


def on_gpu(wildcards):
    """GPUs of a job that draws: one for networks of the paper's size; none reads real pictures."""
    return int(SHARDED and bool(stages(wildcards.model)))


def sampling_settings(model):
    """How a model draws, such as `steps_c=20 guidance_c=4.0`; ceilings use Stage B's."""
    settings = config["sampling"].get(model, {})
    if model in RECONSTRUCTED:
        settings = {key: config["sampling"]["wuerstchen"][key] for key in ["steps_b", "guidance_b"]}
    return " ".join(f"{key}={value}" for key, value in settings.items())


def stages(model):
    """The trained stages that a model (or a ceiling) draws with."""
    drawn_by = {
        "wuerstchen": ["a", "b", "c"],
        LONG: ["long/a", "long/b", "long/c"],
        "df-gan": ["df-gan"],
        "real": [],
        "ceiling-stage-a": ["a"],
        "ceiling-compressor": ["a", "b"],
        "ceiling-other-artist": [],
    }
    return drawn_by.get(model, [*baseline_needs(), model])


def baseline_needs():
    """The trained stages in whose latents the baseline works: none where it has Stable Diffusion's first stage."""
    chosen = with_baseline(preset(config["preset"]), config.get("baseline"))
    return ["a"] if chosen.baseline_first_stage == "stage-a" else []


def trained():
    """Every stage that the study's models need, in the order of training."""
    return list(dict.fromkeys(stage for model in config["models"] if model != LONG for stage in stages(model)))


def weights(wildcards):
    """The weight files that a model draws with."""
    return [f"results/{wildcards.study}/train/{stage}/model.safetensors" for stage in stages(wildcards.model)]


def weights_folder(wildcards):
    """The folder that a model's stages are loaded from."""
    folder = "train/long" if wildcards.model == LONG else "train"
    return f"results/{wildcards.study}/{folder}"


def training_files(name):
    """One file of every stage, as trained with the first seed."""
    return [f"{STUDY}/train/{stage}/{name}" for stage in trained()]


def long_files(name):
    """One file of every stage that wuerstchen-long draws with, where it is among the models."""
    return [f"{STUDY}/train/{stage}/{name}" for stage in stages(LONG) if LONG in config["models"]]


def released_inputs(key):
    """Those files of the release that a key of the config names which are there; `check` says which are not."""
    return [file for file in released_files(config) if file.startswith(f"{config[key]}/") and Path(file).exists()]


def unpacked(stages):
    """What the trainings of some stages leave."""
    return [f"results/{{study}}/train/{stage}/{name}" for stage in stages for name in TRAINED_FILES]


def shards_of_choice(wildcards):
    """The tar shards of all pictures, or of those that Stage C is trained on last."""
    return config["data"]["shards" if wildcards.choice == "base" else "aesthetic_shards"]


def phase(wildcards):
    """A phase of a stage's training, as its recipe has it."""
    return preset(config["preset"]).recipes[wildcards.stage].phases[int(wildcards.phase) - 1]


def shards_of_phase(wildcards):
    """The tar shards that a phase is trained on."""
    return config["data"]["shards" if phase(wildcards).data == "base" else "aesthetic_shards"]


def phase_inputs(wildcards):
    """What a phase is trained on, the phase before it, and the stages whose latents it is about."""
    train, number = f"results/{wildcards.study}/train", int(wildcards.phase)
    data = f"{STUDY}/data/{phase(wildcards).data}"
    inputs = {name: f"{data}/{name}.safetensors" for name in ("selection", "validation")}
    if number > 1:
        inputs["before"] = f"{train}/{wildcards.stage}/phases/{number - 1}/model.safetensors"
    below = {"a": [], "b": ["a"], "c": ["b"], "baseline-ldm": baseline_needs()}[wildcards.stage]
    return inputs | {stage: f"{train}/{stage}/model.safetensors" for stage in below}


def phase_flags(wildcards):
    """What the config changes in a stage's recipe, and the phase to start from."""
    before, number = f"results/{wildcards.study}/train/{wildcards.stage}/phases", int(wildcards.phase)
    flags = training_flags(wildcards.stage) + (f" --continue-from {before}/{number - 1}" if number > 1 else "")
    reads = wildcards.stage == "baseline-ldm" and "baseline" in config
    return flags + (f" --baseline {config['baseline']}" if reads else "")


def usage_of_phases(wildcards):
    """What each phase of a stage's training has used."""
    numbers = range(1, len(preset(config["preset"]).recipes[wildcards.stage].phases) + 1)
    return [f"results/{wildcards.study}/train/{wildcards.stage}/phases/{number}/usage.json" for number in numbers]


def phases_of_stage(wildcards):
    """The history and use of all phases of a stage's training."""
    used = usage_of_phases(wildcards)
    return [*used, *(file.replace("usage.json", "history.csv") for file in used)]


def final_model(wildcards):
    """A stage's weights at the end of its training."""
    phases = f"results/{wildcards.study}/train/{wildcards.stage}/phases"
    last = "interpolated" if wildcards.stage == "c" else len(usage_of_phases(wildcards))
    return f"{phases}/{last}/model.safetensors"


def features_of(sets, study=STUDY):
    """The flags that make the features of some models (keys) on some prompt sets (values), at 128 px."""
    of = [
        f"--of {study}/features/{model}/{prompts}.npz {' '.join(shards(model, prompts, study=study))}"
        for model, names in sets.items()
        for prompts in names
    ]
    return " ".join([*of, *["--preprocessing bicubic-128"] * SHARDED])  # others draw at that size, or are refused


def preferences_of(wildcards):
    """The flags that score one model's pictures of all prompt sets."""
    model, study = wildcards.model, f"results/{wildcards.study}"
    return " ".join(
        f"--of {prompts} {STUDY}/prompts/{prompts}.jsonl {study}/preference/{model}/{prompts}.csv"
        f" {study}/scores/emoji-score/{model}/{prompts}.json {' '.join(shards(model, prompts, study=study))}"
        for prompts in config["prompts"]
    )


def usage_files():
    """What each step of the study has used, over all training seeds: lists of files by step.

    What released weights took is no part of it.
    """
    own = {f"train-{stage}": [f"{study}/train/{stage}/usage.json" for study in STUDIES] for stage in trained()}
    return {
        **({} if "weights" in config else own | {"train-scorer": [f"{STUDY}/scorer/usage.json"]}),
        **({"train-probe": [f"{STUDY}/train/probe/usage.json"]} if "probe" in config else {}),
        **{
            f"sample-{model}": [file for study in STUDIES for file in all_shards(model, ".usage.json", study)]
            for model in config["models"]
        },
    }


def snapshot_features():
    """The features of what each model draws on its way, by model and share of its training."""
    percents = config["curve"]["snapshots"]
    return {(model, p): f"results/{{study}}/features/snapshots/{model}/{p}.npz" for model in CURVES for p in percents}


def curve_points():
    """The same with the finished models: everything that the curve of recall against training time goes through."""
    return snapshot_features() | {(model, 100): f"results/{{study}}/features/{model}/names.npz" for model in CURVES}


def distance_files():
    """FD and KID of models and ceilings, and IS of the models."""
    return [
        *score_files("fd-efficientnet-lite2", config["models"], WITH_PICTURES, STUDIES),
        *score_files("kid-efficientnet-lite2", config["models"], WITH_PICTURES, STUDIES),
        *score_files("fd-efficientnet-lite2", CEILINGS, "names"),
        *score_files("is-efficientnet-lite2", config["models"], config["prompts"], STUDIES),
    ]


def recall_files():
    """Prompt fidelity of models and ceilings."""
    return [*score_files("recall", config["models"], "names", STUDIES), *score_files("recall", CEILINGS, "names")]


def preference_files():
    """Win rates, the scores behind them, and the check whether these mean anything."""
    return [
        *collect("{study}/scores/win-rate/{prompts}.json", study=STUDIES, prompts=config["prompts"]),
        *score_files("emoji-score", config["models"], config["prompts"], STUDIES),
        f"{STUDY}/scores/emoji-score/validity.json",
    ]


def speed_files():
    """Sampling times, one file per model."""
    return collect(f"{STUDY}/speed/{{model}}.json", model=config["speed"]["models"])


def workload_files():
    """How Stages B and C share the work, where the config asks for it."""
    return [f"{STUDY}/workload.json"] if "probe" in config else []


def picture_files():
    """Everything that can be shown: prompts, drawn pictures and real pictures."""
    return [
        *collect(f"{STUDY}/prompts/{{prompts}}.jsonl", prompts=config["prompts"]),
        *[shard for model in config["models"] for shard in all_shards(model)],
        *[shard for prompts in WITH_PICTURES for shard in shards("real", prompts)],
    ]


def swept_trainings():
    """(stage, key, value, folder) of every value of a training recipe that the sweep tries, the study's own with it."""
    tried = []
    for stage, keys in SWEEP.get("training", {}).items():
        pairs = [f"{key}={value}" for key, value in recipe(stage).items()]
        own = dataclasses.asdict(overridden(preset(config["preset"]), stage, pairs).recipes[stage])
        for key, values in keys.items():
            mine = list(own[key]) if isinstance(own[key], tuple) else own[key]
            for value in values if mine in values else [mine, *values]:
                said = value if isinstance(value, str) else json.dumps(value)
                variant = f"{STUDY}/sweep/train/{stage}/{variant_name(key, said)}"
                tried.append((stage, key, said, f"{STUDY}/train/{stage}" if value == mine else variant))
    return tried


def variant_name(key, value):
    """The folder of a variant, such as learning-rate-0.0005."""
    return re.sub(r"[^a-z0-9.]+", "-", f"{key} {value}").strip("-")


def swept_flags(stage, variant):
    """The flags that train a variant of a stage: the study's own with one field changed."""
    changed = {variant_name(key, said): {key: said} for s, key, said, _ in swept_trainings() if s == stage}
    length = budget("c") if stage == "baseline-ldm" else ""
    return f"{length} {training_flags(stage, changed[variant])}"


def swept_sampling():
    """(model, key, values) of every sampling setting that the sweep tries."""
    return [(model, key, values) for model, keys in SWEEP.get("sampling", {}).items() for key, values in keys.items()]


def swept_models():
    """What draws in the sweep: Stage B is judged by what comes back from its compressor's latents."""
    shown_by = {"b": "ceiling-compressor", "c": "wuerstchen", "baseline-ldm": "baseline-ldm"}
    trained_ = [shown_by[stage] for stage in SWEEP.get("training", {})]
    return list(dict.fromkeys([*trained_, *SWEEP.get("sampling", {})]))


def sweep_files(wildcards):
    """The sweep's table, where the config has a sweep."""
    if not SWEEP:
        raise WorkflowError(
            "The config has no sweep; lay one over it: --configfile config/emoji.yaml config/emoji-sweep.yaml"
        )
    return collect(f"{STUDY}/sweep/sweep.{{ext}}", ext=["json", "csv", "md"])


def table_inputs(wildcards):
    """What a table shows."""
    return {
        "1": preference_files(),
        "2": [
            *distance_files(),
            *recall_files(),
            *training_files("usage.json"),
            *long_files("usage.json"),
            *speed_files(),
            f"{STUDY}/carbon.json",
        ],
        "3": robustness_files(),
    }[wildcards.number]


def figure_inputs(wildcards):
    """What a figure shows."""
    return {
        "collage": picture_files(),
        "side-by-side": picture_files(),
        "speed": speed_files(),
        "training": training_files("history.csv"),
        "recall-curve": f"{STUDY}/curve.json",
        "robustness": robustness_files(),
        "probe": [*workload_files(), *picture_files()],
        "figure4": glob(config["speed"].get("figure4", "")),
        "figure5": VOTES,
    }[wildcards.figure]


def summary_inputs():
    """Every measurement of the study."""
    return [
        *distance_files(),
        *recall_files(),
        *preference_files(),
        *robustness_files(),
        *speed_files(),
        *workload_files(),
        *training_files("usage.json"),
        f"{STUDY}/carbon.json",
        f"{STUDY}/data/split.json",
        *VOTES,
    ]
