"""The study at a glance: what is configured, which chapters there are, and what comes out at the end.

snakemake --cores all             the whole study, ending with results/<study>/report.html
snakemake --cores all tables      a part of it: tables, figures, robustness, carbon or speed
snakemake --cores all figure4     no part of it: the paper's models timed at their own size, on a GPU
snakemake --report FILE.html      of a finished study: Snakemake's own report, with jobs, times and the main files
"""

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from workflow.published import is_published
from workflow.settings import problems

min_version("9.1")

if "study" not in config:

    configfile: "config/emoji.yaml"


if wrong := problems(config):
    raise WorkflowError("The config is not valid.", *wrong)

STUDY = f"results/{config['study']}"


# What Snakemake's own report says at its head: snakemake --report results/<study>/snakemake-report.html
report: "workflow/report/workflow.rst"


# Nothing is sent to a cluster beside the jobs of a run that was killed.
onstart:
    refuse_second_writers(Path.cwd(), needed=not workflow.local_exec)


# A workstation shares its GPUs among all jobs (`--resources gpu=1`); a cluster hands each job its own.
resource_scopes:
    gpu="local",


include: "workflow/rules/common.smk"


if is_published(config):

    include: "workflow/rules/published.smk"
    include: "workflow/rules/pictures.smk"
    include: "workflow/rules/measures.smk"
    include: "workflow/rules/parts.smk"

else:

    include: "workflow/rules/trained.smk"
    include: "workflow/rules/data.smk"

    if SHARDED:

        include: "workflow/rules/shards.smk"

    elif "weights" not in config:

        include: "workflow/rules/train.smk"
        include: "workflow/rules/sweep.smk"

    if "weights" in config:

        include: "workflow/rules/weights.smk"

    else:

        include: "workflow/rules/scorer.smk"

    if "long" in config:

        include: "workflow/rules/long.smk"
    include: "workflow/rules/sample.smk"
    include: "workflow/rules/score.smk"

    if "curve" in config:

        include: "workflow/rules/curve.smk"
    include: "workflow/rules/robustness.smk"
    include: "workflow/rules/speed.smk"


include: "workflow/rules/paper_size.smk"
include: "workflow/rules/carbon.smk"


if VOTES:

    include: "workflow/rules/study.smk"


include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        f"{STUDY}/report.html",
        f"{STUDY}/summary.json",
        more_table_files(),


rule tables:
    input:
        table_files(),
        more_table_files(),


rule figures:
    input:
        figure_files(),


rule robustness:
    input:
        robustness_files(),


rule carbon:
    input:
        f"{STUDY}/carbon.json",


rule speed:
    input:
        speed_files(),


rule figure4:
    input:
        f"{STUDY}/speed/figure4.done",


if not is_published(config):

    rule sweep:
        input:
            sweep_files,
