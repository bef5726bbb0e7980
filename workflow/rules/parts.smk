# How far simple manipulations of real pictures move the Fréchet distance (the paper's Table 3), of many pictures: each
# job decodes and manipulates one part of a set.


rule robustness_part:
    input:
        "results/{study}/check.json",
        prompts=named_pictures,
    output:
        f"results/{{study}}/robustness/parts/{{set}}/{{part}}-of-{PARTS}.npz",
    log:
        "results/{study}/logs/robustness/{set}/{part}.log",
    benchmark:
        "results/{study}/benchmarks/robustness_part/{set}/{part}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        cpus_per_task=8,
        mem=memory(16),
        runtime="4h",
        gpu=1,
    params:
        pictures=lookup(within=config, dpath="robustness/sets/{set}/pictures"),
        matching=lambda wildcards, input: f"--matching {input.prompts}" if input.prompts else "",
        manipulations=config["robustness"]["manipulations"],
        size=config["robustness"]["size"],
        preprocessing=config["robustness"]["preprocessing"],
        parts=PARTS,
        out=subpath(output[0], parent=True),
    shell:
        "python -m evaluation.robustness_features --pictures {params.pictures:q} {params.matching}"
        " --manipulations {params.manipulations} --crop centre --size {params.size} --extractor inception"
        " --preprocessing {params.preprocessing} --parts {params.parts} --part {wildcards.part} --out {params.out}"
        " > {log} 2>&1"


rule robustness_of_parts:
    input:
        part_files,
        code=code("robustness"),
    output:
        "results/{study}/robustness/{set}.json",
    log:
        "results/{study}/logs/robustness/{set}.log",
    benchmark:
        "results/{study}/benchmarks/robustness_of_parts/{set}.tsv"
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem=memory(32),
        runtime="4h",
    params:
        parts=subpath(input[0], parent=True),
        seed=config["seed"],
    shell:
        "python -m evaluation.robustness --parts {params.parts} --set {wildcards.set} --seed {params.seed}"
        " --out {output} > {log} 2>&1"
