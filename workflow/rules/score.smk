# Measurements of the pictures: features and preferences, one job per model for all prompt sets, since its start takes
# longer than its work; then one small JSON per score.


rule features:
    input:
        pictures=shards_of_model,
        code=code("features"),
    output:
        collect("results/{{study}}/features/{{model}}/{prompts}.npz", prompts=config["prompts"]),
    log:
        "results/{study}/logs/features/{model}.log",
    benchmark:
        "results/{study}/benchmarks/features/{model}.tsv"
    wildcard_constraints:
        model="|".join(config["models"]),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(4 + HELD_GIGABYTES),
        runtime="6h",
    params:
        of=lambda wildcards: features_of({wildcards.model: config["prompts"]}, f"results/{wildcards.study}"),
    shell:
        "python -m evaluation.features {params.of} --extractor efficientnet-lite2 > {log} 2>&1"


# Among them the gallery in which recall looks for the true picture.
use rule features as features_of_real with:
    input:
        "results/{study}/data/pictures.zip",
        pictures=[shard for model, sets in REAL.items() for prompts in sets for shard in shards(model, prompts)],
        code=code("features"),
    output:
        "results/{study}/features/pictures.npz",
        [f"results/{{study}}/features/{model}/{prompts}.npz" for model, sets in REAL.items() for prompts in sets],
    log:
        "results/{study}/logs/features/real.log",
    benchmark:
        "results/{study}/benchmarks/features_of_real/real.tsv"
    priority: 3
    params:
        of=f"--of {STUDY}/features/pictures.npz {STUDY}/data/pictures.zip {features_of(REAL)}",


use rule features as features_of_ceilings with:
    input:
        pictures=[shard for ceiling in RECONSTRUCTED for shard in shards(ceiling, "names")],
        code=code("features"),
    output:
        [f"results/{{study}}/features/{ceiling}/names.npz" for ceiling in RECONSTRUCTED],
    log:
        "results/{study}/logs/features/ceilings.log",
    benchmark:
        "results/{study}/benchmarks/features_of_ceilings/ceilings.tsv"
    params:
        of=features_of({ceiling: ["names"] for ceiling in RECONSTRUCTED}),


rule scores:
    input:
        features="results/{study}/features/{model}/{prompts}.npz",
        reference=f"{STUDY}/features/real/{{prompts}}.npz",
        code=code("scores"),
    output:
        fd="results/{study}/scores/fd-efficientnet-lite2/{model}/{prompts}.json",
        kid="results/{study}/scores/kid-efficientnet-lite2/{model}/{prompts}.json",
        inception="results/{study}/scores/is-efficientnet-lite2/{model}/{prompts}.json",
    log:
        "results/{study}/logs/scores/{model}/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/scores/{model}/{prompts}.tsv"
    wildcard_constraints:
        model="|".join([*config["models"], *CEILINGS]),
        prompts="|".join(WITH_PICTURES),
    conda:
        "../../environment.yml"
    resources:
        mem=memory(4),
        runtime="1h",
    params:
        seed=config["seed"],
    shell:
        "python -m evaluation.scores --features {input.features} --reference {input.reference}"
        " --model {wildcards.model} --prompts {wildcards.prompts} --seed {params.seed}"
        " --fd {output.fd} --kid {output.kid} --is {output.inception} > {log} 2>&1"


# Prompts that nobody drew have no real pictures to compare with.
rule scores_without_reference:
    input:
        features="results/{study}/features/{model}/{prompts}.npz",
        code=code("scores"),
    output:
        "results/{study}/scores/is-efficientnet-lite2/{model}/{prompts}.json",
    log:
        "results/{study}/logs/scores/{model}/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/scores_without_reference/{model}/{prompts}.tsv"
    wildcard_constraints:
        prompts="compositions",
    conda:
        "../../environment.yml"
    resources:
        mem=memory(4),
        runtime="1h",
    params:
        seed=config["seed"],
    shell:
        "python -m evaluation.scores --features {input.features}"
        " --model {wildcards.model} --prompts {wildcards.prompts} --seed {params.seed}"
        " --is {output} > {log} 2>&1"


rule recall:
    input:
        features="results/{study}/features/{model}/{prompts}.npz",
        gallery=f"{STUDY}/features/pictures.npz",
        index=f"{STUDY}/data/index.jsonl",
        prompts=f"{STUDY}/prompts/{{prompts}}.jsonl",
        code=code("recall"),
    output:
        "results/{study}/scores/recall/{model}/{prompts}.json",
    log:
        "results/{study}/logs/scores/recall/{model}/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/recall/{model}/{prompts}.tsv"
    wildcard_constraints:
        prompts="names",
    conda:
        "../../environment.yml"
    resources:
        mem=memory(4),
        runtime="1h",
    params:
        seed=config["seed"],
    shell:
        "python -m evaluation.recall --features {input.features} --gallery {input.gallery} --index {input.index}"
        " --prompts-file {input.prompts} --model {wildcards.model} --prompts {wildcards.prompts}"
        " --seed {params.seed} --out {output} > {log} 2>&1"


# Appendix D. What is drawn for it is drawn in this job too, since its start takes as long as that.
rule workload:
    input:
        [f"results/{{study}}/train/{stage}/model.safetensors" for stage in ["a", "b", "c", "probe"]],
        features=[f"results/{{study}}/features/{model}/names.npz" for model in ["wuerstchen", "ceiling-compressor"]],
        drawn=shards("wuerstchen", "names", study="results/{study}"),
        reconstructed=shards("ceiling-compressor", "names", study="results/{study}"),
        prompts="results/{study}/prompts/names.jsonl",
        pictures="results/{study}/data/pictures.zip",
        index="results/{study}/data/index.jsonl",
        gallery="results/{study}/features/pictures.npz",
    output:
        record="results/{study}/workload.json",
        probed="results/{study}/images/wuerstchen-probe/names/0000.zip",
        no_text="results/{study}/images/ceiling-compressor-no-text/names/0000.zip",
    log:
        "results/{study}/logs/workload.log",
    benchmark:
        "results/{study}/benchmarks/workload/workload.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(6),
        runtime="2h",
    params:
        sampling=sampling_settings("wuerstchen"),
        number=config.get("probe", {}).get("prompts"),
        seed=config["seed"],
    shell:
        "python -m evaluation.workload --weights results/{wildcards.study}/train --set {params.sampling}"
        " --prompts-file {input.prompts} --count {params.number} --pictures {input.pictures} --index {input.index}"
        " --gallery {input.gallery} --of wuerstchen {input.features[0]} {input.drawn}"
        " --of ceiling-compressor {input.features[1]} {input.reconstructed} --draw wuerstchen-probe {output.probed}"
        " --draw ceiling-compressor-no-text {output.no_text} --seed {params.seed} --out {output.record} > {log} 2>&1"


rule validity:
    input:
        "results/{study}/data/index.jsonl",
        "results/{study}/data/pictures.zip",
        "results/{study}/scorer/model.safetensors",
        "results/{study}/scorer/config.json",
        code=code("preference"),
    output:
        "results/{study}/scores/emoji-score/validity.json",
    log:
        "results/{study}/logs/scores/emoji-score/validity.log",
    benchmark:
        "results/{study}/benchmarks/validity/validity.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(4 + HELD_GIGABYTES),
        runtime="6h",
    params:
        seed=config["seed"],
    shell:
        "python -m evaluation.preference validity --scorer results/{wildcards.study}/scorer"
        " --data results/{wildcards.study}/data --seed {params.seed} --out {output} > {log} 2>&1"


rule preference:
    input:
        f"{STUDY}/scorer/model.safetensors",
        f"{STUDY}/scorer/config.json",
        collect(f"{STUDY}/prompts/{{prompts}}.jsonl", prompts=config["prompts"]),
        pictures=shards_of_model,
        code=code("preference"),
    output:
        collect("results/{{study}}/preference/{{model}}/{prompts}.csv", prompts=config["prompts"]),
        collect("results/{{study}}/scores/emoji-score/{{model}}/{prompts}.json", prompts=config["prompts"]),
    log:
        "results/{study}/logs/preference/{model}.log",
    benchmark:
        "results/{study}/benchmarks/preference/{model}.tsv"
    wildcard_constraints:
        model="|".join(config["models"]),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(4),
        runtime="2h",
    params:
        scorer=subpath(input[0], parent=True),
        of=preferences_of,
        seed=config["seed"],
    shell:
        "python -m evaluation.preference score --scorer {params.scorer}"
        " --model {wildcards.model} {params.of} --seed {params.seed} > {log} 2>&1"


rule win_rates:
    input:
        collect("results/{{study}}/preference/{model}/{{prompts}}.csv", model=config["models"]),
        validity=f"{STUDY}/scores/emoji-score/validity.json",
        code=code("preference"),
    output:
        "results/{study}/scores/win-rate/{prompts}.json",
    log:
        "results/{study}/logs/scores/win-rate/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/win_rates/{prompts}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem=memory(2),
        runtime="1h",
    params:
        subject="--model {0} --scores results/{{study}}/preference/{0}/{{prompts}}.csv".format(config["models"][0]),
        rivals=[f"{rival}=results/{{study}}/preference/{rival}/{{prompts}}.csv" for rival in config["models"][1:]],
        seed=config["seed"],
    shell:
        "python -m evaluation.preference win-rate {params.subject} --rivals {params.rivals}"
        " --prompts {wildcards.prompts} --validity {input.validity}"
        " --seed {params.seed} --out {output} > {log} 2>&1"
