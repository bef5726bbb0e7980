# Pictures: one zip per model, prompt set and shard. The noise of a picture depends on seed and prompt alone.


rule sample:
    input:
        weights,
        prompts=f"{STUDY}/prompts/{{prompts}}.jsonl",
    output:
        pictures="results/{study}/images/{model}/{prompts}/{shard}.zip",
        usage="results/{study}/images/{model}/{prompts}/{shard}.usage.json",
    log:
        "results/{study}/logs/images/{model}/{prompts}/{shard}.log",
    benchmark:
        "results/{study}/benchmarks/sample/{model}/{prompts}/{shard}.tsv"
    wildcard_constraints:
        model="|".join(config["models"]),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem="6GB",
        runtime="4h",
    params:
        sampling=sampling_flags,
        size=config["shard_size"],
        seed=config["seed"],
    shell:
        "python -m evaluation.sample --model {wildcards.model} --weights results/{wildcards.study}/train"
        " --prompts {input.prompts} --shard {wildcards.shard} --shard-size {params.size} --seed {params.seed}"
        " {params.sampling} --out {output.pictures} > {log} 2>&1"


# The real pictures of the prompts, and what the best possible model would draw: handled like any other model.
rule real_pictures:
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
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem="6GB",
        runtime="4h",
    params:
        sampling=sampling_flags,
        size=config["shard_size"],
        seed=config["seed"],
    shell:
        "python -m evaluation.sample --model {wildcards.model} --weights results/{wildcards.study}/train"
        " --prompts {input.prompts} --shard {wildcards.shard} --shard-size {params.size} --seed {params.seed}"
        " {params.sampling} --pictures {input.pictures} --out {output.pictures} > {log} 2>&1"
