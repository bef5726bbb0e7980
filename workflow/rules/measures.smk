# Measurements of published models' pictures: features by extractor, one small JSON per score, and beside them what other
# packages make of the same pictures.


rule extract:
    input:
        pictures=shards_of_set,
    output:
        "results/{study}/features/{extractor}/{model}/{prompts}.npz",
    log:
        "results/{study}/logs/features/{extractor}/{model}/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/extract/{extractor}/{model}/{prompts}.tsv"
    wildcard_constraints:
        extractor="inception",
        model="|".join(map(re.escape, MODELS)),
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem=memory(16),
        runtime="6h",
        gpu=1,
    params:
        how=extraction_flags,
    shell:
        "python -m evaluation.features --of {output} {input.pictures} {params.how} > {log} 2>&1"


# What no protocol changes is the same for all sets: one job, since to load a network takes long.
rule extract_of_sets:
    input:
        pictures=lambda wildcards: [
            shard for prompts in SETS_WITH_REFERENCE for shard in shards(wildcards.model, prompts)
        ],
    output:
        collect(
            "results/{{study}}/features/{{extractor}}/{{model}}/{prompts}.npz",
            prompts=SETS_WITH_REFERENCE or ["none"],
        ),
    log:
        "results/{study}/logs/features/{extractor}/{model}.log",
    benchmark:
        "results/{study}/benchmarks/extract_of_sets/{extractor}/{model}.tsv"
    wildcard_constraints:
        extractor="|".join(EXTRACTION),
        model="|".join(map(re.escape, MODELS)),
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem=memory(16),
        runtime="8h",
        gpu=1,
    params:
        of=lambda wildcards: " ".join(
            f"--of {STUDY}/features/{wildcards.extractor}/{wildcards.model}/{prompts}.npz"
            f" {' '.join(shards(wildcards.model, prompts))}"
            for prompts in SETS_WITH_REFERENCE
        ),
        how=lambda wildcards: EXTRACTION[wildcards.extractor],
    shell:
        "python -m evaluation.features {params.of} {params.how} > {log} 2>&1"


# Of the files as they are: those that the prompts name or, where a protocol's reference is all, all of them.
rule extract_reference:
    input:
        prompts="results/{study}/prompts/{prompts}.jsonl",
    output:
        "results/{study}/features/{extractor}/real/{prompts}.npz",
    log:
        "results/{study}/logs/features/{extractor}/real/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/extract_reference/{extractor}/{prompts}.tsv"
    wildcard_constraints:
        prompts="|".join(SETS_WITH_REFERENCE) or "none",
    priority: 3
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem=memory(16),
        runtime="6h",
        gpu=1,
    params:
        pictures=lookup(within=config, dpath="prompts/{prompts}/reference"),
        how=extraction_flags,
    shell:
        "python -m evaluation.features --of {output} {params.pictures:q} --matching {input.prompts} {params.how}"
        " > {log} 2>&1"


rule protocol_scores:
    input:
        features="results/{study}/features/inception/{model}/{prompts}.npz",
        reference="results/{study}/features/inception/real/{prompts}.npz",
        prompts="results/{study}/prompts/{prompts}.jsonl",
        code=code("protocol_scores"),
    output:
        **{
            metric: [f"results/{{study}}/scores/{name}/{{model}}/{{prompts}}.json" for name in names]
            for metric, names in WRITTEN.items()
        },
    log:
        "results/{study}/logs/scores/protocol/{model}/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/protocol_scores/{model}/{prompts}.tsv"
    wildcard_constraints:
        model="|".join(map(re.escape, MODELS)),
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem=memory(32),
        runtime="4h",
    params:
        protocol=lookup(within=config, dpath="prompts/{prompts}/protocol"),
        out=lambda wildcards, output: " ".join(f"--{name} {output.get(name)}" for name in WRITTEN),
        seed=config["seed"],
    shell:
        "python -m evaluation.protocol_scores --protocol {params.protocol} --features {input.features}"
        " --reference {input.reference} --model {wildcards.model} --prompts {wildcards.prompts}"
        " --captions {input.prompts} --seed {params.seed} {params.out} > {log} 2>&1"


rule fd_dinov2:
    input:
        features="results/{study}/features/dinov2/{model}/{prompts}.npz",
        reference="results/{study}/features/dinov2/real/{prompts}.npz",
        code=code("scores"),
    output:
        "results/{study}/scores/fd-dinov2/{model}/{prompts}.json",
    log:
        "results/{study}/logs/scores/fd-dinov2/{model}/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/fd_dinov2/{model}/{prompts}.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        cpus_per_task=2,
        mem=memory(8),
        runtime="1h",
    params:
        seed=config["seed"],
    shell:
        "python -m evaluation.scores --features {input.features} --reference {input.reference}"
        " --model {wildcards.model} --prompts {wildcards.prompts} --seed {params.seed} --fd {output} > {log} 2>&1"


rule cmmd:
    input:
        features="results/{study}/features/clip-l14-336/{model}/{prompts}.npz",
        reference="results/{study}/features/clip-l14-336/real/{prompts}.npz",
        code=code("cmmd"),
    output:
        "results/{study}/scores/cmmd/{model}/{prompts}.json",
    log:
        "results/{study}/logs/scores/cmmd/{model}/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/cmmd/{model}/{prompts}.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        cpus_per_task=2,
        mem=memory(8),
        runtime="1h",
    params:
        seed=config["seed"],
    shell:
        "python -m evaluation.cmmd --features {input.features} --reference {input.reference}"
        " --model {wildcards.model} --prompts {wildcards.prompts} --seed {params.seed} --out {output} > {log} 2>&1"


rule prompt_scores:
    input:
        collect(f"{STUDY}/prompts/{{prompts}}.jsonl", prompts=config["prompts"]),
        pictures=shards_of_model,
    output:
        collect("results/{{study}}/preference/{{scorer}}/{{model}}/{prompts}.csv", prompts=config["prompts"]),
        collect("results/{{study}}/scores/{{scorer}}/{{model}}/{prompts}.json", prompts=config["prompts"]),
    log:
        "results/{study}/logs/preference/{scorer}/{model}.log",
    benchmark:
        "results/{study}/benchmarks/prompt_scores/{scorer}/{model}.tsv"
    wildcard_constraints:
        model="|".join(map(re.escape, MODELS)),
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem=memory(16),
        runtime="6h",
        gpu=1,
    params:
        program=lambda wildcards: SCORERS[wildcards.scorer],
        of=lambda wildcards: " ".join(
            f"--of {name} {STUDY}/prompts/{name}.jsonl {STUDY}/preference/{wildcards.scorer}/{wildcards.model}/{name}.csv"
            f" {STUDY}/scores/{wildcards.scorer}/{wildcards.model}/{name}.json {' '.join(shards(wildcards.model, name))}"
            for name in config["prompts"]
        ),
        seed=config["seed"],
    shell:
        "python -m evaluation.{params.program} --model {wildcards.model} {params.of} --seed {params.seed} > {log} 2>&1"


rule preferred:
    input:
        collect("results/{{study}}/preference/pickscore/{model}/{{prompts}}.csv", model=MODELS),
        code=code("preference"),
    output:
        "results/{study}/scores/win-rate/{prompts}.json",
    log:
        "results/{study}/logs/scores/win-rate/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/preferred/{prompts}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem=memory(2),
        runtime="1h",
    params:
        metric=published.PREFERENCE,
        subject="--model {0} --scores results/{{study}}/preference/pickscore/{0}/{{prompts}}.csv".format(MODELS[0]),
        rivals=[f"{rival}=results/{{study}}/preference/pickscore/{rival}/{{prompts}}.csv" for rival in MODELS[1:]],
        seed=config["seed"],
    shell:
        "python -m evaluation.preference win-rate --metric {params.metric} {params.subject} --rivals {params.rivals}"
        " --prompts {wildcards.prompts} --seed {params.seed} --out {output} > {log} 2>&1"


rule power_spectrum:
    input:
        pictures=shards_of_set,
        reference=lambda wildcards: [] if wildcards.model == "real" else real_shards_of_set(wildcards),
        code=code("power_spectrum"),
    output:
        "results/{study}/scores/power-spectrum/{model}/{prompts}.json",
    log:
        "results/{study}/logs/scores/power-spectrum/{model}/{prompts}.log",
    benchmark:
        "results/{study}/benchmarks/power_spectrum/{model}/{prompts}.tsv"
    wildcard_constraints:
        prompts="|".join(SETS_WITH_REFERENCE) or "none",
    conda:
        "../../environment.yml"
    resources:
        mem=memory(8),
        runtime="2h",
    params:
        reference=lambda wildcards, input: f"--reference {input.reference}" if input.reference else "",
        seed=config["seed"],
    shell:
        "python -m evaluation.power_spectrum --pictures {input.pictures} {params.reference}"
        " --model {wildcards.model} --prompts {wildcards.prompts} --seed {params.seed} --out {output} > {log} 2>&1"


rule crosscheck:
    input:
        images=[shard for name in crosschecked() for shard in shards(MODELS[0], name)],
        reference=[shard for name in crosschecked() for shard in shards("real", name)],
    output:
        "results/{study}/crosscheck.json",
    log:
        "results/{study}/logs/crosscheck.log",
    benchmark:
        "results/{study}/benchmarks/crosscheck/crosscheck.tsv"
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        cpus_per_task=4,
        mem=memory(32),
        runtime="12h",
        gpu=1,
    shell:
        "python -m evaluation.crosscheck --images {input.images} --reference {input.reference} --out {output}"
        " > {log} 2>&1"
