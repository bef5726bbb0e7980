# Which values are best on the validation split: only the target `sweep` runs this, with a config that has a sweep.
#     snakemake sweep --cores all --configfile config/emoji.yaml config/emoji-sweep.yaml
# Everything lands in results/<study>/sweep/, its times too: they are no part of what the study took.


rule sweep_training:
    input:
        "results/{study}/data/index.jsonl",
        "results/{study}/data/tokens.safetensors",
        lambda wildcards: [f"{STUDY}/latents/{name}.safetensors" for name in SWEPT_LATENTS[wildcards.stage]],
    output:
        "results/{study}/sweep/train/{stage}/{variant}/model.safetensors",
        "results/{study}/sweep/train/{stage}/{variant}/history.csv",
        "results/{study}/sweep/train/{stage}/{variant}/usage.json",
    log:
        "results/{study}/sweep/logs/train/{stage}/{variant}.log",
    benchmark:
        "results/{study}/sweep/benchmarks/sweep_training/{stage}/{variant}.tsv"
    wildcard_constraints:
        stage="|".join(SWEPT_LATENTS),
        variant="[a-z0-9.-]+",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(8),
        runtime="24h",
    params:
        preset=config["preset"],
        seed=config["training_seeds"][0],
        more=lambda wildcards: swept_flags(wildcards.stage, wildcards.variant),
        out=subpath(output[0], parent=True),
    shell:
        "python -m wuerstchen.train --stage {wildcards.stage} --preset {params.preset}"
        " --data results/{wildcards.study}/data --latents results/{wildcards.study}/latents"
        " --seed {params.seed} {params.more} --out {params.out} > {log} 2>&1"


rule sweep_recall:
    input:
        [f"{folder}/{name}" for *_, folder in swept_trainings() for name in ["model.safetensors", "history.csv"]],
        training_files("model.safetensors"),
        index="results/{study}/data/index.jsonl",
        pictures="results/{study}/data/pictures.zip",
        gallery="results/{study}/features/pictures.npz",
    output:
        multiext("results/{study}/sweep/sweep", ".json", ".csv", ".md"),
    log:
        "results/{study}/sweep/logs/sweep.log",
    benchmark:
        "results/{study}/sweep/benchmarks/sweep_recall/sweep.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(6),
        runtime="8h",
    params:
        of=" ".join(f"--of {model} {sampling_settings(model)}" for model in swept_models()),
        trained=" ".join(
            f"--trained {stage} {key} {shlex.quote(value)} {folder}" for stage, key, value, folder in swept_trainings()
        ),
        varied=" ".join(f"--vary {model} {key} {' '.join(map(str, values))}" for model, key, values in swept_sampling()),
        number=SWEEP.get("prompts"),
        seed=config["seed"],
        command=SWEEP_COMMAND,
        prefix=subpath(output[0], strip_suffix=".json"),
    shell:
        "python -m evaluation.sweep --weights results/{wildcards.study}/train {params.of} {params.trained}"
        " {params.varied} --index {input.index} --pictures {input.pictures} --gallery {input.gallery}"
        " --count {params.number} --seed {params.seed} --command {params.command:q} --out-prefix {params.prefix}"
        " > {log} 2>&1"
