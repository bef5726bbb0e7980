# The release with which wuerstchen-long draws, beside what this study trains itself.


rule unpack_long:
    input:
        released_inputs("long"),
        split=f"{STUDY}/data/split.json",
    output:
        unpacked(stages(LONG)),
    log:
        "results/{study}/logs/train/unpack_long.log",
    benchmark:
        "results/{study}/benchmarks/unpack_long/unpack_long.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(2),
        runtime="1h",
    params:
        weights=lambda wildcards: config["long"],
        preset=config["preset"],
    shell:
        "python -m wuerstchen.unpack --weights {params.weights:q} --preset {params.preset} --split {input.split}"
        " --stages a b c --out results/{wildcards.study}/train/long 2>&1 | tee {log}"
