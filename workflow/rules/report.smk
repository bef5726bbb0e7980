# What people look at: tables, figures, the summary, and one page that holds them all.


# The config that is really used, merged from files and command line, for all that prints parts of it. Training and
# sampling get single values as flags instead, so that they are redone only when one of these changes.
rule settings:
    output:
        "results/{study}/config.yaml",
    log:
        "results/{study}/logs/config.log",
    benchmark:
        "results/{study}/benchmarks/settings/settings.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        settings=lambda wildcards: json.dumps(config),
    shell:
        "python -m workflow.settings --settings {params.settings:q} --out {output} > {log} 2>&1"


rule table:
    input:
        table_inputs,
        config="results/{study}/config.yaml",
        code=code("tables", "evaluation/published/*.csv"),
    output:
        multiext("results/{study}/tables/table{number}", ".csv", ".md", ".tex"),
    log:
        "results/{study}/logs/tables/table{number}.log",
    benchmark:
        "results/{study}/benchmarks/table/table{number}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        prefix=subpath(output[0], strip_suffix=".csv"),
    shell:
        "python -m evaluation.tables --study-dir results/{wildcards.study} --config {input.config}"
        " --table {wildcards.number} --out-prefix {params.prefix} > {log} 2>&1"


# What the paper claims, recomputed from its own inputs: the same for every study.
rule audit:
    input:
        code=code("audit", "evaluation/published/*.csv"),
    output:
        "results/{study}/tables/audit.csv",
    log:
        "results/{study}/logs/tables/audit.log",
    benchmark:
        "results/{study}/benchmarks/audit/audit.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "python -m evaluation.audit --csv {output} > {log} 2>&1"


rule figure:
    input:
        figure_inputs,
        config="results/{study}/config.yaml",
        code=code("figures", "evaluation/matplotlibrc", "evaluation/published/*.csv"),
    output:
        multiext("results/{study}/figures/{figure}", ".pdf", ".png"),
    log:
        "results/{study}/logs/figures/{figure}.log",
    benchmark:
        "results/{study}/benchmarks/figure/{figure}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        prefix=subpath(output[0], strip_suffix=".pdf"),
    shell:
        "python -m evaluation.figures --study-dir results/{wildcards.study} --config {input.config}"
        " --figure {wildcards.figure} --out-prefix {params.prefix} > {log} 2>&1"


rule summary:
    input:
        summary_inputs(),
        config="results/{study}/config.yaml",
        code=code("summary"),
    output:
        "results/{study}/summary.json",
    log:
        "results/{study}/logs/summary.log",
    benchmark:
        "results/{study}/benchmarks/summary/summary.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "python -m evaluation.summary --study-dir results/{wildcards.study} --config {input.config}"
        " --out {output} > {log} 2>&1"


rule report:
    input:
        table_files(),
        figure_files(),
        summary="results/{study}/summary.json",
        config="results/{study}/config.yaml",
        sweep=glob(SWEPT),
        code=code("report", "evaluation/templates/*"),
    output:
        "results/{study}/report.html",
    log:
        "results/{study}/logs/report.log",
    benchmark:
        "results/{study}/benchmarks/report/report.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        sweep=f"--sweep {SWEPT}",
    shell:
        "python -m evaluation.report --study-dir results/{wildcards.study} --config {input.config}"
        " {params.sweep} --out {output} > {log} 2>&1"
