# Trainings that were done before: a release's weights and scorer, in the place of this study's own.


# What it refuses stands on the terminal too.
rule unpack:
    input:
        released_inputs("weights"),
        split="results/{study}/data/split.json",
    output:
        unpacked(trained()),
        collect("results/{{study}}/scorer/{name}", name=["config.json", *TRAINED_FILES]),
    log:
        "results/{study}/logs/train/unpack.log",
    benchmark:
        "results/{study}/benchmarks/unpack/unpack.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(2),
        runtime="1h",
    params:
        weights=lambda wildcards: config["weights"],
        preset=config["preset"],
        stages=trained(),
    shell:
        "python -m wuerstchen.unpack --weights {params.weights:q} --preset {params.preset} --split {input.split}"
        " --stages {params.stages} --out results/{wildcards.study}/train --scorer results/{wildcards.study}/scorer"
        " 2>&1 | tee {log}"
