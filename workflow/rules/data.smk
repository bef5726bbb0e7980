# Pictures with captions, their split, and the prompt sets drawn from them.


# Everything depends on this rule: it fails first, and lists all that is missing at once (on the terminal too).
rule check:
    output:
        "results/{study}/check.json",
    log:
        "results/{study}/logs/check.log",
    benchmark:
        "results/{study}/benchmarks/check/check.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        # a function, or the braces of shards were wildcards
        source=lambda wildcards: check_flags(config),
    shell:
        "python -m workflow.check {params.source} --out {output} 2>&1 | tee {log}"


rule data:
    input:
        "results/{study}/check.json",
    output:
        index="results/{study}/data/index.jsonl",
        pictures="results/{study}/data/pictures.zip",
        split="results/{study}/data/split.json",
    log:
        "results/{study}/logs/data/pictures.log",
    benchmark:
        "results/{study}/benchmarks/data/pictures.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        cpus_per_task=2,
        mem=memory(4 + HELD_GIGABYTES),
        runtime="6h",
    params:
        source=source_flags(config),
        state=source_state(config),
        size=preset(config["preset"]).image_size,
        seed=config["seed"],
    shell:
        "python -m wuerstchen.data {params.source} --size {params.size} --seed {params.seed}"
        " --out results/{wildcards.study}/data > {log} 2>&1"


rule robustness_pictures:
    input:
        "results/{study}/data/pictures.zip",
        index="results/{study}/data/index.jsonl",
    output:
        "results/{study}/data/robustness/{set}.zip",
    log:
        "results/{study}/logs/data/robustness/{set}.log",
    benchmark:
        "results/{study}/benchmarks/robustness_pictures/{set}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem=memory(4),
        runtime="1h",
    params:
        source=source_flags(config),
        number=config["robustness"]["count"],
        seed=config["seed"],
    shell:
        "python -m wuerstchen.data {params.source} --index {input.index} --robustness {wildcards.set}"
        " --count {params.number} --size 256 --seed {params.seed} --out {output} > {log} 2>&1"


rule prompts:
    input:
        "results/{study}/data/index.jsonl",
    output:
        "results/{study}/prompts/{prompts}.jsonl",
    log:
        "results/{study}/logs/prompts/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/prompts/{prompts}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        number=lookup(within=config, dpath="prompts/{prompts}/count"),
        seed=config["seed"],
    shell:
        "python -m evaluation.prompts --index {input} --set {wildcards.prompts}"
        " --count {params.number} --seed {params.seed} --out {output} > {log} 2>&1"
