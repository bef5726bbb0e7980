# Energy and carbon: the paper's own numbers recomputed, and what this run has used.


rule carbon_account:
    input:
        *usage_files().values(),
        code=code("carbon", "evaluation/published/*.csv"),
    output:
        "results/{study}/carbon.json",
    log:
        "results/{study}/logs/carbon.log",
    benchmark:
        "results/{study}/benchmarks/carbon_account/carbon.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        usages=[f"{step}={file}" for step, files in usage_files().items() for file in files],
        kg_per_kwh=config["carbon"]["kg_per_kwh"],
        source=config["carbon"]["source"],
        pue=config["carbon"].get("pue", 1),
        gpu_watts=config["carbon"].get("gpu_watts", 250),
    shell:
        "python -m evaluation.carbon --usage {params.usages} --kg-per-kwh {params.kg_per_kwh}"
        " --pue {params.pue} --gpu-watts {params.gpu_watts} --source {params.source:q} --out {output} > {log} 2>&1"
