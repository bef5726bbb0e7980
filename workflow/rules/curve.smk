# Recall against training time, from weights that are kept on the way.


# What each model draws on its way: one job, since the models share what is compiled for them.
rule curve_features:
    input:
        training_files("model.safetensors"),
        [snapshot for model in CURVES for snapshot in snapshots(stages(model)[-1])],
        prompts="results/{study}/prompts/names.jsonl",
        pictures="results/{study}/data/pictures.zip",
    output:
        list(snapshot_features().values()),
    log:
        "results/{study}/logs/features/snapshots.log",
    benchmark:
        "results/{study}/benchmarks/curve_features/curve.tsv"
    priority: 3
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(6),
        runtime="4h",
    params:
        of=" ".join(f"--of {model} {sampling_settings(model)}" for model in CURVES),
        percents=config["curve"]["snapshots"],
        number=config["curve"]["prompts"],
        seed=config["seed"],
    shell:
        "python -m evaluation.curve draw --weights results/{wildcards.study}/train {params.of}"
        " --snapshots {params.percents} --pictures {input.pictures} --prompts-file {input.prompts}"
        " --count {params.number} --seed {params.seed} --out results/{wildcards.study}/features/snapshots > {log} 2>&1"


rule curve:
    input:
        training_files("history.csv"),
        curve_points().values(),
        gallery="results/{study}/features/pictures.npz",
        index="results/{study}/data/index.jsonl",
        prompts="results/{study}/prompts/names.jsonl",
        code=code("curve"),
    output:
        "results/{study}/curve.json",
    log:
        "results/{study}/logs/curve.log",
    benchmark:
        "results/{study}/benchmarks/curve/curve.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem=memory(4),
        runtime="1h",
    params:
        points=" ".join(f"--point {model} {percent} {file}" for (model, percent), file in curve_points().items()),
        number=config["curve"]["prompts"],
        seed=config["seed"],
    shell:
        "python -m evaluation.curve score --train results/{wildcards.study}/train {params.points}"
        " --gallery {input.gallery} --index {input.index} --prompts-file {input.prompts}"
        " --count {params.number} --seed {params.seed} --out {output} > {log} 2>&1"
