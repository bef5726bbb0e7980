# The trainings of a study on tar shards, in the phases of its recipes (appendix E), each on all GPUs that it is given.
# What is trained on is chosen once: filtered, deduplicated, and without the pictures that the study measures with; a
# thousandth is held out, to validate on.

# How often a training that ended itself in time is sent again. Snakemake runs in the job too, and would begin the next
# slice there, in what little is left of the job's time.
SLICES = 100 if workflow.is_main_process else 0


# The scans are no output, or Snakemake would delete them with a job that was cut off: the next one goes on from them.
rule scan:
    input:
        "results/{study}/check.json",
    output:
        touch("results/{study}/data/{choice}/scans.done"),
    log:
        "results/{study}/logs/data/{choice}/scan.log",
    benchmark:
        "results/{study}/benchmarks/scan/{choice}.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: 32
    resources:
        cpus_per_task=32,
        mem=memory(64),
        runtime="24h",
    params:
        shards=shards_of_choice,
        out=subpath(output[0], strip_suffix=".done"),
    shell:
        "python -m wuerstchen.selection scan --data {params.shards:q} --out {params.out} > {log} 2>&1"


rule measured_pictures:
    input:
        "results/{study}/check.json",
    output:
        "results/{study}/data/measured.txt",
    log:
        "results/{study}/logs/data/measured.log",
    benchmark:
        "results/{study}/benchmarks/measured_pictures/measured.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    resources:
        mem=memory(8),
        runtime="4h",
    params:
        folder=os.path.dirname(config["data"]["captions"]) or ".",
        state=source_state(config),
    shell:
        "python -m wuerstchen.selection hash --pictures {params.folder:q} --out {output} > {log} 2>&1"


rule select:
    input:
        scans="results/{study}/data/{choice}/scans.done",
        measured="results/{study}/data/measured.txt",
    output:
        selection="results/{study}/data/{choice}/selection.safetensors",
        validation="results/{study}/data/{choice}/validation.safetensors",
    log:
        "results/{study}/logs/data/{choice}/select.log",
    benchmark:
        "results/{study}/benchmarks/select/{choice}.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    resources:
        mem=memory(64),
        runtime="4h",
    params:
        shards=shards_of_choice,
        scans=subpath(input.scans, strip_suffix=".done"),
    shell:
        "python -m wuerstchen.selection select --data {params.shards:q} --scans {params.scans}"
        " --exclude {input.measured} --validation {output.validation} --out {output.selection} > {log} 2>&1"


# A training goes on by the same command, from state/ beside its output. Here it ends itself before its time is over, and
# is tried again (`retries`) until it is done, so that a phase of weeks needs no job of weeks. Each slice counts as an
# attempt, so its memory does not grow with them. That `mpi` is there at all keeps Slurm's plugin from starting the command
# inside a step of one task, which could not have the GPUs of several nodes.
rule train_phase:
    input:
        unpack(phase_inputs),
    output:
        "results/{study}/train/{stage}/phases/{phase}/model.safetensors",
        "results/{study}/train/{stage}/phases/{phase}/history.csv",
        "results/{study}/train/{stage}/phases/{phase}/usage.json",
    log:
        "results/{study}/logs/train/{stage}/{phase}.log",
    benchmark:
        "results/{study}/benchmarks/train_phase/{stage}/{phase}.tsv"
    priority: 10
    retries: SLICES
    conda:
        "../../environment.yml"
    threads: 64
    resources:
        cpus_per_task=64,
        nodes=1,
        gpu=8,
        mpi="",
        mem="512GB",
        runtime="1d",
    params:
        preset=config["preset"],
        shards=shards_of_phase,
        seed=training_seed,
        more=phase_flags,
        out=subpath(output[0], parent=True),
    shell:
        "python -m wuerstchen.distributed --processes {resources.gpu} --nodes {resources.nodes}"
        " -m wuerstchen.train --walltime {resources.runtime}m --stage {wildcards.stage}"
        " --preset {params.preset} --phase {wildcards.phase} --data {params.shards:q} --selection {input.selection}"
        " --validation {input.validation}"
        " --weights results/{wildcards.study}/train --seed {params.seed} {params.more}"
        " --out {params.out} > {log} 2>&1"


# E.3: the final Stage C is halfway between what the third and the fourth training give.
rule interpolate:
    input:
        "results/{study}/train/c/phases/3/model.safetensors",
        "results/{study}/train/c/phases/4/model.safetensors",
    output:
        "results/{study}/train/c/phases/interpolated/model.safetensors",
    log:
        "results/{study}/logs/train/c/interpolate.log",
    benchmark:
        "results/{study}/benchmarks/interpolate/c.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    resources:
        mem=memory(32),
        runtime="1h",
    shell:
        "python -m wuerstchen.interpolate {input} --out {output} > {log} 2>&1"


rule train_stage:
    input:
        phases_of_stage,
        model=final_model,
    output:
        "results/{study}/train/{stage}/model.safetensors",
        "results/{study}/train/{stage}/history.csv",
        "results/{study}/train/{stage}/usage.json",
    log:
        "results/{study}/logs/train/{stage}/stage.log",
    benchmark:
        "results/{study}/benchmarks/train_stage/{stage}.tsv"
    priority: 10
    localrule: True
    conda:
        "../../environment.yml"
    params:
        phases=lambda wildcards: [file.removesuffix("/usage.json") for file in usage_of_phases(wildcards)],
        out=subpath(output[0], parent=True),
    shell:
        "python -m wuerstchen.phases {params.phases} --model {input.model} --out {params.out} > {log} 2>&1"
