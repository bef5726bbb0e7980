# What the chapters ask of the config: names, flags, and which files belong together. Nothing here computes results.

import json
import re
import shlex
from glob import glob
from pathlib import Path

from workflow.code import sources
from workflow.releases import LONG, TRAINED_FILES, released_files
from workflow.settings import check_flags, set_job_environment, shard_count, source_flags, source_state
from workflow.slurm import refuse_second_writers

set_job_environment()

SHARDS = shard_count(config)
# What people's votes say, where the config names exports of them.
VOTES = [f"{STUDY}/study/votes.json"] if "votes" in config else []
MORE_TABLES = [f"carbon-{part}" for part in ("paper", "equal", "sensitivity", "run")]
MORE_TABLES += ["differences", "intervals", "verdicts"]
MORE_TABLES += [] if is_published(config) else ["recall", "scores", "workload", "choices"]
SWEPT = f"config/{config['study']}-sweep.json"  # what came of a sweep, kept in git for the report


wildcard_constraints:
    prompts="|".join(config["prompts"]),
    shard="[0-9]{4}",
    set="|".join(config["robustness"]["sets"]),
    number="[1-3]",


def memory(gigabytes):
    """A job's memory: as much again for each further attempt, since the last may have been killed for want of it."""
    return lambda wildcards, attempt: f"{gigabytes * attempt}GB"


def code(program, *patterns):
    """Source files of a cheap step, and files that it reads beside them: to change one redoes that step.

    Training and sampling depend on none: a comment must not cost a training.
    """
    return [*sources(f"evaluation.{program}"), *sorted(file for pattern in patterns for file in glob(pattern))]


def shards(model, prompts, suffix=".zip", study=STUDY):
    """The shards of one model's pictures of one prompt set, in prompt order."""
    return [f"{study}/images/{model}/{prompts}/{shard:04d}{suffix}" for shard in range(SHARDS)]


def all_shards(model, suffix=".zip", study=STUDY):
    """The shards of one model over all prompt sets."""
    return [shard for prompts in config["prompts"] for shard in shards(model, prompts, suffix, study)]


def shards_of_model(wildcards):
    """The shards of a rule's model."""
    return all_shards(wildcards.model, study=f"results/{wildcards.study}")


def score_files(metric, models, prompts, studies=STUDY):
    """One metric of some models on some prompt sets."""
    pattern = f"{{study}}/scores/{metric}/{{model}}/{{prompts}}.json"
    return collect(pattern, study=studies, model=models, prompts=prompts)


def robustness_files():
    """How far manipulations move the Fréchet distance, one file per set of pictures."""
    return collect(f"{STUDY}/robustness/{{set}}.json", set=config["robustness"]["sets"])


def table_files():
    """The three tables and that of the votes, and what the paper's own numbers add up to."""
    names = [*(f"table{number}" for number in (1, 2, 3)), *(["preferences"] if VOTES else [])]
    tables = collect(f"{STUDY}/tables/{{name}}.{{ext}}", name=names, ext=["csv", "md", "tex"])
    return [*tables, *collect(f"{STUDY}/tables/audit.{{ext}}", ext=["csv", "tex"])]


def more_table_files():
    """The further tables of the report, which it makes for itself."""
    return collect(f"{STUDY}/tables/{{name}}.{{ext}}", name=MORE_TABLES, ext=["csv", "md", "tex"])


def figure_files():
    """The figures in their two formats."""
    return collect(f"{STUDY}/figures/{{figure}}.{{ext}}", figure=FIGURES, ext=["pdf", "png"])
