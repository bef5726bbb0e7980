# How far simple manipulations of real pictures move the Fréchet distance (the paper's Table 3).


rule robustness_scores:
    input:
        pictures="results/{study}/data/robustness/{set}.zip",
        code=code("robustness"),
    output:
        "results/{study}/robustness/{set}.json",
    log:
        "results/{study}/logs/robustness/{set}.log",
    benchmark:
        "results/{study}/benchmarks/robustness_scores/{set}.tsv"
    priority: 3
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(4),
        runtime="2h",
    params:
        manipulations=config["robustness"]["manipulations"],
        seed=config["seed"],
    shell:
        "python -m evaluation.robustness --pictures {input.pictures} --set {wildcards.set} --seed {params.seed}"
        " --manipulations {params.manipulations} --out {output} > {log} 2>&1"
