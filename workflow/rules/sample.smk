# Pictures: a job draws one shard of every prompt set, since its start takes long; each shard of a set is one zip. The
# noise of a picture depends on seed and prompt alone.


rule sample:
    input:
        weights,
        prompts=collect(f"{STUDY}/prompts/{{prompts}}.jsonl", prompts=config["prompts"]),
    output:
        pictures=collect("results/{{study}}/images/{{model}}/{prompts}/{{shard}}.zip", prompts=config["prompts"]),
        usage=collect("results/{{study}}/images/{{model}}/{prompts}/{{shard}}.usage.json", prompts=config["prompts"]),
    log:
        "results/{study}/logs/images/{model}/{shard}.log",
    benchmark:
        "results/{study}/benchmarks/sample/{model}/{shard}.tsv"
    wildcard_constraints:
        model="|".join(config["models"]),
    priority: 4
    conda:
        "../../environment.yml"
    threads: DRAWING_CORES
    resources:
        cpus_per_task=DRAWING_CORES,
        mem=memory(DRAWING_GIGABYTES),
        runtime="4h",
        gpu=on_gpu,
    params:
        weights=weights_folder,
        sampling=sampling_flags,
        shards=SHARDS,
        seed=config["seed"],
    shell:
        "python -m evaluation.sample --model {wildcards.model} --weights {params.weights}"
        " --prompts {input.prompts} --shard {wildcards.shard} --shards {params.shards} --seed {params.seed}"
        " {params.sampling} --out {output.pictures} > {log} 2>&1"


# The real pictures of the prompts, and what the best possible model would draw: handled like any other model, but one
# prompt set at a time, since not every set has them.
use rule sample as real_pictures with:
    input:
        weights,
        prompts="results/{study}/prompts/{prompts}.jsonl",
        pictures="results/{study}/data/pictures.zip",
    output:
        pictures="results/{study}/images/{model}/{prompts}/{shard}.zip",
        usage="results/{study}/images/{model}/{prompts}/{shard}.usage.json",
    log:
        "results/{study}/logs/images/{model}/{prompts}/{shard}.log",
    benchmark:
        "results/{study}/benchmarks/real_pictures/{model}/{prompts}/{shard}.tsv"
    wildcard_constraints:
        model="|".join(["real", *CEILINGS]),
        prompts="|".join(WITH_PICTURES),
    priority: 3
    params:
        sampling=lambda wildcards, input: f"{sampling_flags(wildcards)} --pictures {input.pictures}",
