# The paper's models at their own size, on a GPU; only when asked for. The file is no output: a run that was cut off goes
# on from it, and Snakemake would delete it.
rule paper_size_times:
    input:
        # a study of published models runs it unasked, and first says what is missing
        ["results/{study}/check.json"] if is_published(config) else [],
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
        cpus_per_task=4,
        mem=memory(24),
        runtime="4h",
        gpu=1,
    params:
        out=lambda wildcards: config.get("speed", {}).get("figure4", f"results/{wildcards.study}/speed/figure4.json"),
    shell:
        "python -m evaluation.speed --figure4 --out {params.out} > {log} 2>&1"
