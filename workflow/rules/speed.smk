# Sampling time against batch size (the shape of the paper's Figure 4).


rule sampling_time:
    input:
        weights,
    output:
        "results/{study}/speed/{model}.json",
    log:
        "results/{study}/logs/speed/{model}.log",
    benchmark:
        "results/{study}/benchmarks/sampling_time/{model}.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem="6GB",
        runtime="2h",
    params:
        sampling=sampling_flags,
        batch_sizes=config["speed"]["batch_sizes"],
    shell:
        "python -m evaluation.speed --model {wildcards.model} --weights results/{wildcards.study}/train"
        " --batch-sizes {params.batch_sizes} {params.sampling} --out {output} > {log} 2>&1"


# The paper's models at their own size, on a GPU; only when asked for. The file is no output: a run that was cut off goes
# on from it, and Snakemake would delete it.
rule paper_size_times:
    output:
        touch("results/{study}/speed/figure4.done"),
    log:
        "results/{study}/logs/speed/figure4.log",
    benchmark:
        "results/{study}/benchmarks/paper_size_times/figure4.tsv"
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem="24GB",
        runtime="4h",
        gpu=1,
    params:
        out=lambda wildcards: config["speed"].get("figure4", f"results/{wildcards.study}/speed/figure4.json"),
    shell:
        "python -m evaluation.speed --figure4 --out {params.out} > {log} 2>&1"
