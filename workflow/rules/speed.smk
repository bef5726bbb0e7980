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
        cpus_per_task=2,
        mem=memory(DRAWING_GIGABYTES),
        runtime="2h",
        gpu=on_gpu,
    params:
        weights=weights_folder,
        sampling=sampling_flags,
        batch_sizes=config["speed"]["batch_sizes"],
    shell:
        "python -m evaluation.speed --model {wildcards.model} --weights {params.weights}"
        " --batch-sizes {params.batch_sizes} {params.sampling} --out {output} > {log} 2>&1"
