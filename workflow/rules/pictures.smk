# Prompts from their official lists, and the pictures that published models draw for them.


# Everything depends on this rule: it fails first, and lists all files that are missing, with size, digest and place.
rule check_assets:
    output:
        "results/{study}/check.json",
    log:
        "results/{study}/logs/check.log",
    benchmark:
        "results/{study}/benchmarks/check_assets/check.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        needs=assets_flags(),
    shell:
        "python -m workflow.check {params.needs} --out {output} 2>&1 | tee {log}"


rule prompt_set:
    input:
        "results/{study}/check.json",
    output:
        prompts="results/{study}/prompts/{prompts}.jsonl",
        record="results/{study}/prompts/{prompts}.json",
    log:
        "results/{study}/logs/prompts/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/prompt_set/{prompts}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        loader=lookup(within=config, dpath="prompts/{prompts}/loader"),
        number=lookup(within=config, dpath="prompts/{prompts}/count"),
        list=list_flags,
        seed=config["seed"],
    shell:
        "python -m evaluation.prompt_sets {params.loader} {params.list} --count {params.number} --seed {params.seed}"
        " --out {output.prompts} > {log} 2>&1"


# A job draws one shard of every prompt set, since to load a model takes long.
rule draw:
    input:
        prompts=collect(f"{STUDY}/prompts/{{prompts}}.jsonl", prompts=config["prompts"]),
    output:
        pictures=collect("results/{{study}}/images/{{model}}/{prompts}/{{shard}}.zip", prompts=config["prompts"]),
        usage=collect("results/{{study}}/images/{{model}}/{prompts}/{{shard}}.usage.json", prompts=config["prompts"]),
    log:
        "results/{study}/logs/images/{model}/{shard}.log",
    benchmark:
        "results/{study}/benchmarks/draw/{model}/{shard}.tsv"
    wildcard_constraints:
        model="|".join(map(re.escape, MODELS)),
    priority: 4
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        cpus_per_task=2,
        mem=memory(24),
        runtime="6h",
        gpu=1,
    params:
        weights=weights_flags,
        sampling=sampling_flags,
        shards=SHARDS,
        seed=config["seed"],
    shell:
        "python -m evaluation.sample --model {wildcards.model} {params.weights} --prompts {input.prompts}"
        " --shard {wildcards.shard} --shards {params.shards} --seed {params.seed} {params.sampling}"
        " --out {output.pictures} > {log} 2>&1"


rule real_shards:
    input:
        "results/{study}/prompts/{prompts}.jsonl",
    output:
        "results/{study}/images/real/{prompts}/{shard}.zip",
    log:
        "results/{study}/logs/images/real/{prompts}/{shard}.log",
    benchmark:
        "results/{study}/benchmarks/real_shards/{prompts}/{shard}.tsv"
    wildcard_constraints:
        prompts="|".join(SETS_WITH_REFERENCE) or "none",
    conda:
        "../../environment.yml"
    resources:
        mem=memory(4),
        runtime="1h",
    params:
        pictures=lookup(within=config, dpath="prompts/{prompts}/reference"),
        prepare=REAL_SHARDS,
        shards=SHARDS,
    shell:
        "python -m evaluation.real_pictures --pictures {params.pictures:q} --prompts {input}"
        " --prepare {params.prepare} --shard {wildcards.shard} --shards {params.shards} --out {output} > {log} 2>&1"
