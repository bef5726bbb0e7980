"""What a study of published models asks of the programs: its models, what its metrics need, all files of others."""

import math

from evaluation.prompt_sets import SETS
from wuerstchen.assets import ASSETS, MODELS, expanded

SOURCE = "published"
# models that draw from assets alone, with these
ASSETS_OF = {
    "sd-1.4": ("sd-1.4",),
    "sd-2.1": ("sd-2.1",),
    "sd-xl": ("sd-xl",),
    "df-gan": ("df-gan/generator", "df-gan/text-encoder", "df-gan/vocabulary"),
    "galip": ("galip/generator", "clip-b32"),
}
RESERVED = ("real",)
TRAINED = ("baseline-ldm", "baseline-ldm-bc")  # were never published; `weights` is a study's folder train/
LOADERS_WITHOUT_PICTURES = ("parti",)
# metrics by what they are made from
WITH_PROTOCOL = ("fid", "kid", "is", "prdc")
WITH_REFERENCE = ("fd-dinov2", "cmmd", "power-spectrum")
OF_PROMPTS = ("clip-score-b32", "clip-score-l14", "pickscore", "hpsv2.1")
PREFERENCE = "pickscore"  # the score behind the win rates, as in the paper
EXTRACTORS = {
    **dict.fromkeys((*WITH_PROTOCOL, "crosscheck"), "inception"),
    "fd-dinov2": "dinov2",
    "cmmd": "clip-l14-336",
}
NETWORKS = {
    **dict.fromkeys((*WITH_PROTOCOL, "crosscheck"), "inception"),
    "fd-dinov2": "dinov2-l14",
    "cmmd": "clip-l14-336",
    "clip-score-b32": "clip-b32",
    "clip-score-l14": "clip-l14",
    "pickscore": "pickscore",
    "hpsv2.1": "hpsv2.1",
}
SIDES = {"df-gan": 256, "galip": 224, "sd-1.4": 512, "sd-2.1": 768}  # px of what each draws; others 1024
BYTES_PER_PIXEL = 1.5  # of a photograph's PNG, about


def is_published(config: dict) -> bool:
    """Whether a config is one of published models, right or wrong as it may be."""
    data = config.get("data")
    return isinstance(data, dict) and data.get("source") == SOURCE


def models(config: dict) -> dict[str, dict[str, str]]:
    """What the config says of each model, by id: {"weights"}, {"folder"} or nothing."""
    entries = [{"id": entry} if isinstance(entry, str) else entry for entry in config["models"]]
    return {entry["id"]: {key: value for key, value in entry.items() if key != "id"} for entry in entries}


def sets_with(config: dict, key: str) -> list[str]:
    """The prompt sets that have a `reference`, or a `protocol`."""
    return [name for name, about in config["prompts"].items() if key in about]


def assets(config: dict) -> list[str]:
    """Every asset that the study reads, once each, in the order of the steps."""
    names = []
    for about in config["prompts"].values():
        names += [] if "file" in about else [SETS[about["loader"]].asset]
        names += [about["reference"]] if about.get("reference") in ASSETS else []
    for model, about in models(config).items():
        if not about:
            names += ASSETS_OF[model]
        elif about.get("weights") in MODELS:
            names += expanded([about["weights"]])
    names += [NETWORKS[metric] for metric in config["metrics"] if metric in NETWORKS]
    names.append("inception")  # of Table 3
    names += [about["pictures"] for about in config["robustness"]["sets"].values() if about["pictures"] in ASSETS]
    return list(dict.fromkeys(names))


def paths(config: dict) -> list[str]:
    """Every file and folder of the user's own that the study reads, once each."""
    names = [about[key] for about in config["prompts"].values() for key in ("file", "reference") if key in about]
    names += [about["folder"] for about in models(config).values() if "folder" in about]
    names += [about["pictures"] for about in config["robustness"]["sets"].values()]
    return [name for name in dict.fromkeys(names) if name not in ASSETS]


def gigabytes(config: dict) -> int:
    """About what the drawn pictures take on the disk."""
    pictures = sum(about["count"] for about in config["prompts"].values())
    pixels = sum(SIDES.get(model, 1024) ** 2 for model in models(config))
    return math.ceil(pictures * pixels * BYTES_PER_PIXEL / 1e9)


def needs(config: dict) -> dict:
    """All that must be there before the study starts, as `workflow.check` takes it."""
    return {"source": SOURCE, "assets": assets(config), "paths": paths(config), "gigabytes": gigabytes(config)}


def contradictions(config: dict) -> list[str]:
    """What a schema cannot say: keys that must agree with each other."""
    return [*_models(config), *_prompts(config), *_metrics(config), *_robustness(config)]


def _models(config: dict) -> list[str]:
    ids = [entry if isinstance(entry, str) else entry["id"] for entry in config["models"]]
    lines = []
    for number, (name, about) in enumerate(zip(ids, (models(config)[name] for name in ids), strict=True)):
        place = f"models[{number}]"
        if ids.index(name) != number:
            lines.append(f"{place}: {name} is there twice; give one another id.")
        elif name in RESERVED:
            lines.append(f"{place}: {name} is what the real pictures are called; give the model another id.")
        elif len(about) > 1:
            lines.append(f"{place}: {name} has both weights and a folder; remove one.")
        elif name == "wuerstchen" and "weights" not in about:
            lines.append(f"{place}.weights: missing; wuerstchen needs a published one's id ({', '.join(MODELS)}).")
        elif not about and name not in ASSETS_OF and name != "wuerstchen":
            lines.append(
                f"{place}: {name} is not known. Give it weights or a folder, {{id: {name}, folder: PICTURES}}, or use "
                f"{', '.join(ASSETS_OF)}."
            )
    lines += [
        f"sampling.{name}.{key}: missing; {name} has no {key} of its own."
        for name in ids
        if name in TRAINED and "weights" in models(config)[name]
        for key in ("steps", "guidance")
        if key not in config["sampling"].get(name, {})
    ]
    return lines + [
        f"sampling.{name}: {name} is not one of the study's models ({', '.join(ids)})."
        for name in config["sampling"]
        if name not in ids
    ]


def _prompts(config: dict) -> list[str]:
    lines = []
    for name, about in config["prompts"].items():
        if "protocol" in about and "reference" not in about:
            lines.append(
                f"prompts.{name}.protocol: {about['protocol']} compares with real pictures; give "
                f"prompts.{name}.reference."
            )
        if "reference" in about and about["loader"] in LOADERS_WITHOUT_PICTURES:
            lines.append(
                f"prompts.{name}.reference: {about['reference']}, but the prompts of loader {about['loader']} name no "
                "real pictures; remove it."
            )
    return lines


def _metrics(config: dict) -> list[str]:
    lines = []
    for key, metrics in (("protocol", (*WITH_PROTOCOL, "crosscheck")), ("reference", WITH_REFERENCE)):
        if not sets_with(config, key):
            lines += [
                f"metrics: {metric} needs a prompt set with a {key}; none of {', '.join(config['prompts'])} has one."
                for metric in config["metrics"]
                if metric in metrics
            ]
    return lines


def _robustness(config: dict) -> list[str]:
    lines = []
    for name, about in config["robustness"]["sets"].items():
        chosen = about.get("prompts")
        if chosen is not None and chosen not in sets_with(config, "reference"):
            lines.append(
                f"robustness.sets.{name}.prompts: {chosen} is not one of the prompt sets with real pictures "
                f"({', '.join(sets_with(config, 'reference')) or 'there are none'})."
            )
    return lines
