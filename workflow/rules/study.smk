# What people's votes say (section 4.2): from exports of the preference study, whose store is no part of results/.


rule votes:
    input:
        votes=config["votes"],
        digests=[f"{export}.sha256" for export in config["votes"]],
        code=sources("study_app.analysis"),
    output:
        "results/{study}/study/votes.json",
    log:
        "results/{study}/logs/study/votes.log",
    benchmark:
        "results/{study}/benchmarks/votes/votes.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(2),
        runtime="1h",
    params:
        model=list(published.models(config))[0] if is_published(config) else config["models"][0],
        seed=config["seed"],
    shell:
        "python -m study_app.analysis --votes {input.votes:q} --model {params.model} --seed {params.seed}"
        " --out {output} > {log} 2>&1"


rule preferences:
    input:
        "results/{study}/study/votes.json",
        config="results/{study}/config.yaml",
        code=code("people"),
    output:
        report(
            "results/{study}/tables/preferences.csv",
            caption="../report/preferences.rst",
            category="What people prefer",
        ),
        multiext("results/{study}/tables/preferences", ".md", ".tex"),
    log:
        "results/{study}/logs/tables/preferences.log",
    benchmark:
        "results/{study}/benchmarks/preferences/preferences.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        prefix=subpath(output[0], strip_suffix=".csv"),
    shell:
        "python -m evaluation.people --study-dir results/{wildcards.study} --config {input.config}"
        " --out-prefix {params.prefix} > {log} 2>&1"
