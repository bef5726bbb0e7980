"""What a config may say of released weights (wuerstchen/release.py), and which files of a release a study reads."""

LONG = "wuerstchen-long"  # draws with released weights
RELEASED_MODELS = ("wuerstchen", "baseline-ldm")
TRAINED_FILES = ("model.safetensors", "history.csv", "usage.json")


def trained_before(config: dict) -> list[str]:
    """What a study whose weights are a release's cannot have, since it trains nothing."""
    lines = [
        f"{key}: a study with weights trains nothing, so it has none; remove it."
        for key in ("curve", "probe", "sweep", "training", "scorer", "baseline", "long")
        if key in config
    ]
    lines += [
        f"models: {model} is in no release; remove it." for model in config["models"] if model not in RELEASED_MODELS
    ]
    if len(config.get("training_seeds", [])) > 1:
        lines.append(f"training_seeds: {config['training_seeds']}, but a release is of one training; remove it.")
    return lines


def released_files(config: dict) -> list[str]:
    """The files of releases that a study reads."""
    found = []
    if "weights" in config:
        stages = ["a", "b", "c", *(model for model in config["models"] if model == "baseline-ldm")]
        found += [f"{config['weights']}/train/{stage}/{name}" for stage in stages for name in TRAINED_FILES]
        found += [f"{config['weights']}/scorer/{name}" for name in ("config.json", *TRAINED_FILES)]
    if "long" in config:
        found += [f"{config['long']}/train/{stage}/{name}" for stage in "abc" for name in TRAINED_FILES]
    return found
