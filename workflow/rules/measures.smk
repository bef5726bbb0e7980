# Measurements of published models' pictures: features by extractor, one small JSON per score, and beside them what other
# packages make of the same pictures.

METRICS = config["metrics"]
# How pictures become features where no protocol says it: FD-DINOv2 as dgm-eval, CMMD as its authors have it.
EXTRACTION = {
    "dinov2": "--extractor dinov2 --preprocessing pil-uint8-224 --prepare none-bicubic-224",
    "clip-l14-336": "--extractor clip-l14-336 --preprocessing square-crop-336 --prepare centre-square-bicubic-336",
}
PROTOCOL_SCORES = {
    metric: ["precision", "recall", "density", "coverage"] if metric == "prdc" else [metric]
    for metric in METRICS
    if metric in published.WITH_PROTOCOL
}
WRITTEN = PROTOCOL_SCORES or {"fid": ["fid"]}  # a rule has to write something, needed or not
SCORERS = {
    "clip-score-b32": "clip_score --clip clip-b32",
    "clip-score-l14": "clip_score --clip clip-l14",
    "pickscore": "preference score --scorer pickscore",
    "hpsv2.1": "preference score --scorer hpsv2.1",
}
PREFERRED = published.PREFERENCE in METRICS and len(MODELS) > 1


wildcard_constraints:
    extractor="inception|" + "|".join(EXTRACTION),
    scorer="|".join(map(re.escape, SCORERS)),


def extraction_flags(wildcards):
    """How pictures become the features of an extractor."""
    if wildcards.extractor in EXTRACTION:
        return EXTRACTION[wildcards.extractor]
    return f"--protocol {config['prompts'][wildcards.prompts]['protocol']}"


def shards_of_set(wildcards):
    """The shards of a rule's model and prompt set."""
    return shards(wildcards.model, wildcards.prompts, study=f"results/{wildcards.study}")


def real_shards_of_set(wildcards):
    """The shards of the real pictures of a rule's prompt set."""
    return shards("real", wildcards.prompts, study=f"results/{wildcards.study}")


def crosschecked():
    """The prompt set whose pictures other packages are run on: the first with a protocol."""
    return published.sets_with(config, "protocol")[:1]


def distance_files():
    """FID and its like under their protocols, FD-DINOv2 and CMMD, of every model."""
    found = []
    for names in PROTOCOL_SCORES.values():
        for name in names:
            found += score_files(name, MODELS, published.sets_with(config, "protocol"))
    for name in ("fd-dinov2", "cmmd"):
        if name in METRICS:
            found += score_files(name, MODELS, SETS_WITH_REFERENCE)
    return found


def preference_files():
    """CLIPScore, PickScore and HPS of every model, and the win rates by PickScore."""
    found = []
    for scorer in SCORERS:
        if scorer in METRICS:
            found += score_files(scorer, MODELS, config["prompts"])
    if PREFERRED:
        found += collect(f"{STUDY}/scores/win-rate/{{prompts}}.json", prompts=config["prompts"])
    return found


def spectrum_files():
    """Power spectra of the models' pictures and of the real ones."""
    if "power-spectrum" not in METRICS:
        return []
    return score_files("power-spectrum", [*MODELS, "real"], SETS_WITH_REFERENCE)


def crosscheck_files():
    """What other packages make of the first model's pictures, where that is asked for."""
    return [f"{STUDY}/crosscheck.json"] if "crosscheck" in METRICS else []


def speed_files():
    """The paper's models timed at their own size, where that is asked for."""
    return [f"{STUDY}/speed/figure4.done"] if "speed" in METRICS else []


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
        model="|".join(map(re.escape, MODELS)),
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem="16GB",
        runtime="6h",
        gpu=1,
    params:
        how=extraction_flags,
    shell:
        "python -m evaluation.features --of {output} {input.pictures} {params.how} > {log} 2>&1"


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
        mem="16GB",
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
        mem="32GB",
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
        mem="8GB",
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
        mem="8GB",
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
        mem="16GB",
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
        mem="2GB",
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
        mem="8GB",
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
        mem="32GB",
        runtime="12h",
        gpu=1,
    shell:
        "python -m evaluation.crosscheck --images {input.images} --reference {input.reference} --out {output}"
        " > {log} 2>&1"


FIGURES = ["collage", "side-by-side", "robustness"]
FIGURES += ["power-spectrum"] * bool(spectrum_files()) + ["figure4"] * bool(speed_files())


wildcard_constraints:
    figure="|".join(FIGURES),


def picture_files():
    """Everything that can be shown: prompts, drawn pictures and real pictures."""
    return [
        *collect(f"{STUDY}/prompts/{{prompts}}.jsonl", prompts=config["prompts"]),
        *[shard for model in MODELS for shard in all_shards(model)],
        *[shard for prompts in SETS_WITH_REFERENCE for shard in shards("real", prompts)],
    ]


def table_inputs(wildcards):
    """What a table shows."""
    return {
        "1": preference_files(),
        "2": [*distance_files(), *preference_files(), *crosscheck_files()],
        "3": robustness_files(),
    }[wildcards.number]


def figure_inputs(wildcards):
    """What a figure shows."""
    return {
        "collage": picture_files(),
        "side-by-side": picture_files(),
        "robustness": robustness_files(),
        "power-spectrum": spectrum_files(),
        "figure4": speed_files(),
    }[wildcards.figure]


def summary_inputs():
    """Every measurement of the study."""
    return [
        *collect(f"{STUDY}/prompts/{{prompts}}.json", prompts=config["prompts"]),
        *distance_files(),
        *preference_files(),
        *spectrum_files(),
        *crosscheck_files(),
        *robustness_files(),
        *speed_files(),
        f"{STUDY}/carbon.json",
    ]
