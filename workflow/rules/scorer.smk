# The small CLIP behind the EmojiScore, trained on the study's own training pictures.


rule scorer:
    input:
        "results/{study}/data/index.jsonl",
        "results/{study}/data/pictures.zip",
    output:
        "results/{study}/scorer/model.safetensors",
        "results/{study}/scorer/config.json",
        "results/{study}/scorer/history.csv",
        "results/{study}/scorer/usage.json",
    log:
        "results/{study}/logs/scorer.log",
    benchmark:
        "results/{study}/benchmarks/scorer/scorer.tsv"
    priority: 4
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(6 + HELD_GIGABYTES),
        runtime="6h",
    params:
        epochs=lookup(within=config, dpath="scorer/epochs"),
        seed=config["seed"],
    shell:
        "python -m evaluation.scorer --data results/{wildcards.study}/data --seed {params.seed}"
        " --epochs {params.epochs} --out results/{wildcards.study}/scorer > {log} 2>&1"
