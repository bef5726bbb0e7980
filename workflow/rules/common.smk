# What the chapters ask of the config: names, flags, and which files belong together. Nothing here computes results.

import json
from glob import glob
from math import ceil

from workflow.code import sources
from workflow.settings import source_flags, source_state, use_this_python

use_this_python()

# Ceilings are what the best possible model could reach; a folder of pictures has no second artist.
RECONSTRUCTED = ["ceiling-stage-a", "ceiling-compressor"]
WITH_PICTURES = ["names", "descriptions"]  # the prompt sets whose prompts have a real picture
REAL = {"real": WITH_PICTURES}  # what needs no trained stage, with its prompt sets
if config["data"]["source"] == "emoji":
    REAL["ceiling-other-artist"] = ["names"]
CEILINGS = [*RECONSTRUCTED, *list(REAL)[1:]]
FIGURES = ["collage", "side-by-side", "speed", "training", "robustness"]
# The first training seed's results are the study's own. Each further seed has a folder of the same layout inside it,
# results/<study>/seeds/<seed>/, and the same rules make both: what training decides stands under "results/{study}", and
# what all trainings share (data, prompts, real pictures, the scorer) under STUDY.
STUDIES = [STUDY, *(f"{STUDY}/seeds/{seed}" for seed in config["training_seeds"][1:])]


wildcard_constraints:
    study="|".join(folder.removeprefix("results/") for folder in STUDIES),
    model="|".join([*config["models"], "real", *CEILINGS]),
    prompts="|".join(config["prompts"]),
    shard="[0-9]{4}",
    set="|".join(config["robustness"]["sets"]),
    number="[1-3]",
    figure="|".join(FIGURES),


def code(program, *patterns):
    """Source files of a cheap step, and files that it reads beside them: to change one redoes that step.

    Training and sampling depend on none: a comment must not cost a training.
    """
    return [*sources(f"evaluation.{program}"), *sorted(file for pattern in patterns for file in glob(pattern))]


def training_seed(wildcards):
    """The seed of the trainings in a study's folder."""
    return config["training_seeds"][STUDIES.index(f"results/{wildcards.study}")]


def training_steps(stage):
    """The flag that overrides the preset's number of training steps, where the config gives one."""
    given = config.get("training", {}).get(stage, {}).get("steps")
    return "" if given is None else f"--steps {given}"


def budget(*stages):
    """The flag that gives a baseline the training FLOPs of some stages, at the length that they have in this study."""
    given = {stage: config.get("training", {}).get(stage, {}).get("steps") for stage in stages}
    return "--budget " + " ".join(f"{stage}={steps}" if steps else stage for stage, steps in given.items())


def sampling_flags(wildcards):
    """A model's sampling settings, such as `--set steps_c=20 guidance_c=4.0`; ceilings use Stage B's."""
    settings = config["sampling"].get(wildcards.model, {})
    if wildcards.model in RECONSTRUCTED:
        settings = {key: config["sampling"]["wuerstchen"][key] for key in ["steps_b", "guidance_b"]}
    return "--set " + " ".join(f"{key}={value}" for key, value in settings.items()) if settings else ""


def stages(model):
    """The trained stages that a model (or a ceiling) draws with."""
    drawn_by = {
        "wuerstchen": ["a", "b", "c"],
        "real": [],
        "ceiling-stage-a": ["a"],
        "ceiling-compressor": ["a", "b"],
        "ceiling-other-artist": [],
    }
    return drawn_by.get(model, ["a", model])


def trained():
    """Every stage that the study's models need, in the order of training."""
    return list(dict.fromkeys(stage for model in config["models"] for stage in stages(model)))


def weights(wildcards):
    """The weight files that a model draws with."""
    return [f"results/{wildcards.study}/train/{stage}/model.safetensors" for stage in stages(wildcards.model)]


def training_files(name):
    """One file of every stage, as trained with the first seed."""
    return [f"{STUDY}/train/{stage}/{name}" for stage in trained()]


def shards(model, prompts, suffix=".zip", study=STUDY):
    """The shards of one model's pictures of one prompt set, in prompt order."""
    number = ceil(config["prompts"][prompts]["count"] / config["shard_size"])
    return [f"{study}/images/{model}/{prompts}/{shard:04d}{suffix}" for shard in range(number)]


def all_shards(model, suffix=".zip", study=STUDY):
    """The shards of one model over all prompt sets."""
    return [shard for prompts in config["prompts"] for shard in shards(model, prompts, suffix, study)]


def shards_of_model(wildcards):
    """The shards of a rule's model."""
    return all_shards(wildcards.model, study=f"results/{wildcards.study}")


def features_of(sets, study=STUDY):
    """The flags that make the features of some models (keys) on some prompt sets (values)."""
    return " ".join(
        f"--of {study}/features/{model}/{prompts}.npz {' '.join(shards(model, prompts, study=study))}"
        for model, names in sets.items()
        for prompts in names
    )


def preferences_of(wildcards):
    """The flags that score one model's pictures of all prompt sets."""
    model, study = wildcards.model, f"results/{wildcards.study}"
    return " ".join(
        f"--of {prompts} {STUDY}/prompts/{prompts}.jsonl {study}/preference/{model}/{prompts}.csv"
        f" {study}/scores/emoji-score/{model}/{prompts}.json {' '.join(shards(model, prompts, study=study))}"
        for prompts in config["prompts"]
    )


def usage_files():
    """What each step of the study has used, over all training seeds: lists of files by step."""
    return {
        **{f"train-{stage}": [f"{study}/train/{stage}/usage.json" for study in STUDIES] for stage in trained()},
        "train-scorer": [f"{STUDY}/scorer/usage.json"],
        **{
            f"sample-{model}": [file for study in STUDIES for file in all_shards(model, ".usage.json", study)]
            for model in config["models"]
        },
    }


def score_files(metric, models, prompts, studies=STUDY):
    """One metric of some models on some prompt sets."""
    pattern = f"{{study}}/scores/{metric}/{{model}}/{{prompts}}.json"
    return collect(pattern, study=studies, model=models, prompts=prompts)


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


def robustness_files():
    """How far manipulations move the Fréchet distance, one file per set of pictures."""
    return collect(f"{STUDY}/robustness/{{set}}.json", set=config["robustness"]["sets"])


def speed_files():
    """Sampling times, one file per model."""
    return collect(f"{STUDY}/speed/{{model}}.json", model=config["speed"]["models"])


def picture_files():
    """Everything that can be shown: prompts, drawn pictures and real pictures."""
    return [
        *collect(f"{STUDY}/prompts/{{prompts}}.jsonl", prompts=config["prompts"]),
        *[shard for model in config["models"] for shard in all_shards(model)],
        *[shard for prompts in WITH_PICTURES for shard in shards("real", prompts)],
    ]


def table_inputs(wildcards):
    """What a table shows."""
    return {
        "1": preference_files(),
        "2": [
            *distance_files(),
            *recall_files(),
            *training_files("usage.json"),
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
        "robustness": robustness_files(),
    }[wildcards.figure]


def summary_inputs():
    """Every measurement of the study."""
    return [
        *distance_files(),
        *recall_files(),
        *preference_files(),
        *robustness_files(),
        *speed_files(),
        *training_files("usage.json"),
        f"{STUDY}/carbon.json",
    ]


def table_files():
    """The three tables in their three formats."""
    return collect(f"{STUDY}/tables/table{{number}}.{{ext}}", number=[1, 2, 3], ext=["csv", "md", "tex"])


def figure_files():
    """The figures in their two formats."""
    return collect(f"{STUDY}/figures/{{figure}}.{{ext}}", figure=FIGURES, ext=["pdf", "png"])
