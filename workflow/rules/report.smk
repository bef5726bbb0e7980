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
        report(
            "results/{study}/tables/table{number}.csv",
            caption="../report/table.rst",
            category="Tables 1 to 3",
            labels={"table": "Table {number}"},
        ),
        multiext("results/{study}/tables/table{number}", ".md", ".tex"),
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


# All that the report has beside these: energy and carbon, differences, intervals, verdicts, and what the paper lacks.
rule more_tables:
    input:
        summary="results/{study}/summary.json",
        config="results/{study}/config.yaml",
        sweep=glob(SWEPT),
        code=code("more_tables", "evaluation/published/*.csv", "evaluation/differences/*.csv"),
    output:
        report(
            collect("results/{{study}}/tables/{name}.csv", name=MORE_TABLES),
            caption="../report/more_tables.rst",
            category="More tables",
        ),
        collect("results/{{study}}/tables/{name}.{ext}", name=MORE_TABLES, ext=["md", "tex"]),
    log:
        "results/{study}/logs/tables/more.log",
    benchmark:
        "results/{study}/benchmarks/more_tables/tables.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        out=subpath(output[0], parent=True),
        sweep=f"--sweep {SWEPT}",
    shell:
        "python -m evaluation.more_tables --study-dir results/{wildcards.study} --config {input.config}"
        " {params.sweep} --out {params.out} > {log} 2>&1"


# What the paper claims, recomputed from its own inputs: the same for every study.
rule audit:
    input:
        code=code("audit", "evaluation/published/*.csv"),
    output:
        csv=report("results/{study}/tables/audit.csv", caption="../report/audit.rst", category="The paper's arithmetic"),
        tex="results/{study}/tables/audit.tex",
    log:
        "results/{study}/logs/tables/audit.log",
    benchmark:
        "results/{study}/benchmarks/audit/audit.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "python -m evaluation.audit --csv {output.csv} --tex {output.tex} > {log} 2>&1"


rule figure:
    input:
        figure_inputs,
        config="results/{study}/config.yaml",
        code=code("figures", "evaluation/matplotlibrc", "evaluation/published/*.csv"),
    output:
        "results/{study}/figures/{figure}.pdf",
        report(
            "results/{study}/figures/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
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
        code=code("report", "evaluation/templates/*", "evaluation/published/*.csv", "evaluation/differences/*.csv"),
    output:
        report("results/{study}/report.html", caption="../report/report.rst", category="The whole study on one page"),
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
