"""The config of a study: is it valid, and what does it ask of the programs?

`problems` says all that is wrong with a config, each in one line that names the key, its value and what would be right.
As a program it writes the config that a run really uses (files and command line merged) beside the results.
"""

import argparse
import contextlib
import difflib
import hashlib
import json
import math
import os
import shlex
import sys
from pathlib import Path

import jsonschema
import yaml

from workflow import published
from workflow.pretrained import pretrained
from workflow.releases import LONG, released_files, trained_before
from wuerstchen import independent
from wuerstchen.files import write_text
from wuerstchen.presets import NAMES, DFGanRecipe, DiffusionRecipe, StageARecipe, preset, settable

SCHEMA = Path(__file__).parent.parent / "config" / "schema.yaml"
PUBLISHED = SCHEMA.with_name("schema-published.yaml")
TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "object": "a group of keys",
    "array": "a list",
    "boolean": "true or false",
}


RECIPES = {"a": StageARecipe, "df-gan": DFGanRecipe}  # of the other stages DiffusionRecipe
BUDGETED = ("baseline-ldm", "df-gan")  # stages whose steps follow from others' training FLOPs
SETTLED = ("df-gan",)  # models that draw in one way only
NO_PART_OF_SHARDS = ("curve", "sweep", "weights", "long")
# Least values of a recipe's fields other than 0.
LEAST = {"steps": 1, "batch_size": 1}


def schema() -> dict:
    """The JSON Schema of a config, with the fields of the training recipes filled in."""
    whole = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    properties = whole["properties"]
    for stage, node in properties["training"]["properties"].items():
        node["properties"] = recipe_schema(stage)
    swept = properties["sweep"]["properties"]
    for stage, node in swept["training"]["properties"].items():
        node["properties"] = {key: values_of(value) for key, value in recipe_schema(stage).items() if key != "steps"}
    for model, node in swept["sampling"]["properties"].items():
        settings = properties["sampling"]["properties"][model]["properties"]
        node["properties"] = {key: values_of(value) for key, value in settings.items()}
    return whole


def published_schema() -> dict:
    """The JSON Schema of a config of published models. A key without a value is the other schema's."""
    whole, common = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")), schema()

    def fill(node: dict, like: dict) -> None:
        for name, value in node["properties"].items():
            if value is None:
                node["properties"][name] = like["properties"][name]

    fill(whole, common)
    fill(whole["properties"]["robustness"], common["properties"]["robustness"])
    return whole


def schema_of(config: dict) -> dict:
    """The JSON Schema that fits a config's kind of study."""
    return published_schema() if published.is_published(config) else schema()


def recipe_schema(stage: str) -> dict[str, dict]:
    """The schema of each field of a stage's training recipe. A rival's steps follow from its budget."""
    found = {}
    for field in settable(RECIPES.get(stage, DiffusionRecipe)):
        about = {"description": f"The recipe's {field.name}."}
        least = {"minimum": LEAST.get(field.name, 0)}
        if field.name in NAMES:
            found[field.name] = about | {"type": "string", "enum": [*NAMES[field.name]]}
        elif field.type in (int, float):
            found[field.name] = about | {"type": {int: "integer", float: "number"}[field.type]} | least
        elif field.type is bool:
            found[field.name] = about | {"type": "boolean"}
        else:  # a pair, such as AdamW's betas
            number = {"description": "A number.", "type": "number", "minimum": 0}
            found[field.name] = about | {"type": "array", "minItems": 2, "maxItems": 2, "items": number}
    return {key: value for key, value in found.items() if key != "steps" or stage not in BUDGETED}


def values_of(value: dict) -> dict:
    """The schema of a list of different values."""
    about = {"description": f"Values to try: {value['description']}"}
    return about | {"type": "array", "minItems": 1, "uniqueItems": True, "items": value}


def problems(config: dict) -> list[str]:
    """All that is wrong with a config, one line each; an empty list for a valid one."""
    whole = schema_of(config)
    validator = jsonschema.Draft202012Validator(whole)
    errors = sorted(validator.iter_errors(config), key=lambda error: list(map(str, error.absolute_path)))
    lines = [line for error in errors for line in explain(error, whole)]
    if lines:
        return lines
    own = published.contradictions if published.is_published(config) else contradictions
    return own(config) + too_many_shards(config)


def explain(error: jsonschema.ValidationError, whole: dict) -> list[str]:
    """A schema error in the words of this project; `whole` is the schema."""
    name = key_name(error.absolute_path)
    about = error.schema.get("description", "").rstrip(".")
    match error.validator:
        case "additionalProperties":
            allowed = list(error.schema["properties"])
            place = f"{name}." if name else ""
            return [
                f"{place}{key}: unknown key (its value is {show(error.instance[key])}). "
                f"Allowed {'in ' + name if name else 'at the top'}: {', '.join(allowed)}.{nearest(key, allowed)}"
                for key in error.instance
                if key not in allowed
            ]
        case "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            # jsonschema reports each missing key apart; the message starts with the key.
            key = next(key for key in missing if error.message.startswith(repr(key)))
            what = description([*error.absolute_path, key], whole)
            return [f"{name + '.' if name else ''}{key}: missing; it gives: {what}."]
        case "enum":
            allowed = [str(value) for value in error.validator_value]
            return [
                f"{name}: {show(error.instance)} is not known. Allowed: {', '.join(allowed)}."
                f"{nearest(str(error.instance), allowed)}"
            ]
        case "type":
            return [f"{name}: {show(error.instance)} should be {TYPES[error.validator_value]} ({about})."]
        case "minimum":
            return [f"{name}: {show(error.instance)} should be at least {error.validator_value} ({about})."]
        case "maximum":
            return [f"{name}: {show(error.instance)} should be at most {error.validator_value} ({about})."]
        case "minProperties":
            return [f"{name}: {show(error.instance)} should have at least {error.validator_value} entries ({about})."]
        case "minItems":
            return [f"{name}: {show(error.instance)} should have at least {error.validator_value} entries ({about})."]
        case "maxItems":
            return [f"{name}: {show(error.instance)} should have at most {error.validator_value} entries ({about})."]
        case "uniqueItems":
            return [f"{name}: {show(error.instance)} should name nothing twice ({about})."]
        case "minLength":
            return [f"{name}: should not be empty ({about})."]
        case "pattern":
            return [f"{name}: {show(error.instance)} should match {error.validator_value} ({about})."]
    return [f"{name}: {error.message} ({about})."]


def description(path: list, whole: dict) -> str:
    """What a schema says about a key."""
    node = whole
    for part in path:
        if isinstance(part, int):
            node = node["items"]
        else:
            node = node.get("then", node)  # of an entry that may be a text too
            node = node.get("properties", {}).get(part) or node["additionalProperties"]
    return node.get("description", "").rstrip(".")


def contradictions(config: dict) -> list[str]:
    """What a schema cannot say: keys that must agree with each other."""
    models = config["models"]
    lines = [
        f"sampling.{model}: missing; {model} is one of the models, so this must say how it draws."
        for model in models
        if model not in (*config["sampling"], *SETTLED)
    ]
    lines += [
        f"speed.models: {model} is not one of the study's models ({', '.join(models)})."
        for model in config["speed"]["models"]
        if model not in models
    ]
    if ("long" in config) != (LONG in models):
        lines.append(f"long: the release with which {LONG} draws; name it and {LONG} among the models, or neither.")
    sweep = config.get("sweep", {})
    if config["data"]["source"] == "webdataset":
        lines += trained_on_shards(config)
    elif "weights" in config:
        lines += trained_before(config)
    else:
        if "curve" not in config:
            lines.append("curve: missing; only a study of data.source webdataset or with weights has none.")
        if "baseline" in config:
            lines.append(
                "baseline: only for data.source webdataset, elsewhere it works on Stage A's latents; remove it."
            )
    recipes = preset(config["preset"]).recipes
    lines += [
        f"training.{stage}.{key}: {show(given[key])} contradicts the preset {config['preset']}, which trains stage "
        f"{stage} in {len(recipes[stage].phases)} phase(s) with lengths and batches of their own."
        for stage, given in config.get("training", {}).items()
        for key in ("steps", "batch_size")
        if key in given and recipes[stage].phases
    ]
    lines += [
        f"sweep.{part}.{name}: {name} is not one of the study's models ({', '.join(models)})."
        for part in ("training", "sampling")
        for name in sweep.get(part, {})
        if name not in ("b", "c", *models)
    ]
    return lines


def too_many_shards(config: dict) -> list[str]:
    """Whether a prompt set is too small to have a part in every shard."""
    counts = {name: prompts["count"] for name, prompts in config["prompts"].items()}
    fewest = min(counts, key=counts.get)
    if shard_count(config) <= counts[fewest]:
        return []
    return [
        f"shard_size: {config['shard_size']} cuts the {sum(counts.values())} prompts into {shard_count(config)} "
        f"shards, each with a part of every set, but prompts.{fewest}.count is {counts[fewest]}; shard_size should "
        f"be at least {math.ceil(sum(counts.values()) / counts[fewest])}."
    ]


def trained_on_shards(config: dict) -> list[str]:
    """What a study that trains on tar shards must have, and what it cannot have."""
    lines = [
        f"{key}: a study of data.source webdataset has none; remove it." for key in NO_PART_OF_SHARDS if key in config
    ]
    lines += [
        f"models: {model} is not trained on shards; remove it."
        for model in ("baseline-ldm-bc", "df-gan")
        if model in config["models"]
    ]
    lines += [
        f"preset: {config['preset']} is not trained on shards; its recipe for stage {stage} has no phases."
        for stage, recipe in preset(config["preset"]).recipes.items()
        if not recipe.phases
    ]
    return lines


def shard_count(config: dict) -> int:
    """Into how many shards each prompt set is cut: jobs of `shard_size` pictures, over all sets, for each model."""
    return math.ceil(sum(prompts["count"] for prompts in config["prompts"].values()) / config["shard_size"])


def key_name(path) -> str:
    """A place in the config as people write it: robustness.manipulations[3]."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    return name


def show(value: object) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(word: str, allowed: list[str]) -> str:
    """A hint at the allowed word that was probably meant."""
    close = difflib.get_close_matches(word, allowed, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def source_flags(config: dict) -> str:
    """The source of pictures that are held in one file, as flags of wuerstchen.data, quoted for a shell.

    Where training reads shards, these are the pictures to measure with.
    """
    data = config["data"]
    if data["source"] == "emoji":
        return "--source emoji"
    return f"--source folder --captions {shlex.quote(data['captions'])}"


def shards_of(data: dict) -> list[str]:
    """The patterns of tar shards that a study trains on."""
    return [data[key] for key in ("shards", "aesthetic_shards") if key in data]


def check_flags(config: dict) -> str:
    """All data of a study as flags of workflow.check, quoted for a shell."""
    given = {
        "--shards": shards_of(config["data"]),
        "--assets": pretrained(config),
        "--paths": released_files(config),
    }
    flags = [f" {flag} {' '.join(map(shlex.quote, values))}" for flag, values in given.items() if values]
    return source_flags(config) + "".join(flags)


def source_state(config: dict) -> str:
    """A text that changes when a user's captions or pictures do, so that the data are made anew.

    The captions count by content, the pictures by size and time. Files that do not exist do not stop the planning.
    """
    if config["data"]["source"] == "emoji":
        return "emoji"
    captions = Path(config["data"]["captions"])
    if not captions.is_file():
        return "missing"
    digest = hashlib.sha256(captions.read_bytes())
    for line in captions.read_bytes().splitlines():
        # Lines that cannot be read are for wuerstchen.data to refuse, with their numbers.
        with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
            about = (captions.parent / json.loads(line)["image"]).stat()
            digest.update(f"{about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def set_job_environment() -> None:
    """Make `python` in the jobs the Python that runs Snakemake, activated or not, and let it keep its memory.

    glibc hands large arrays back to the system as soon as they are freed, and the system clears each page of 4 KiB
    anew for the next one: for a network's activations that takes up to a fifth of the time of a training step.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20))  # the largest that glibc takes
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # pages of 2 MiB
    os.environ.setdefault(independent.SWITCH, "1")  # energy by CodeCarbon's account too


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the config of a run, merged from files and command line.")
    parser.add_argument("--settings", required=True, type=json.loads, help="the whole config as JSON")
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args(argv)
    if wrong := problems(arguments.settings):
        raise SystemExit("\n".join(wrong))
    write_text(arguments.out, yaml.safe_dump(arguments.settings, sort_keys=False, allow_unicode=True, width=120))


if __name__ == "__main__":
    main()
