# The three stages, the two baselines and the GAN, with what each needs computed once beforehand. The stages go first (priority),
# since each waits for the one before; then the rivals; all the rest can run beside them.
# What takes long of that goes first too, so that no core is idle at the end.
# A run that was cut off goes on from train/<stage>/state/, which is no output: Snakemake would delete it. Snapshots are
# kept in there too until the training has ended.


rule tokens:
    input:
        "results/{study}/data/index.jsonl",
    output:
        "results/{study}/data/tokens.safetensors",
    log:
        "results/{study}/logs/data/tokens.log",
    benchmark:
        "results/{study}/benchmarks/tokens/tokens.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(4),
        runtime="2h",
    params:
        preset=config["preset"],
    shell:
        "python -m wuerstchen.precompute --what tokens --preset {params.preset}"
        " --data results/{wildcards.study}/data --out {output} > {log} 2>&1"


rule trunk:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/pictures.zip",
    output:
        "results/{study}/latents/trunk.safetensors",
    log:
        "results/{study}/logs/latents/trunk.log",
    benchmark:
        "results/{study}/benchmarks/trunk/trunk.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(4),
        runtime="2h",
    params:
        data=subpath(input[0], parent=True),
        preset=config["preset"],
    shell:
        "python -m wuerstchen.precompute --what trunk --preset {params.preset}"
        " --data {params.data} --out {output} > {log} 2>&1"


rule train_a:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/pictures.zip",
    output:
        "results/{study}/train/a/model.safetensors",
        "results/{study}/train/a/history.csv",
        "results/{study}/train/a/usage.json",
    log:
        "results/{study}/logs/train/a.log",
    benchmark:
        "results/{study}/benchmarks/train_a/a.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(8),
        runtime="24h",
    params:
        data=subpath(input[0], parent=True),
        stage="a",
        preset=config["preset"],
        seed=training_seed,
        more=training_flags("a"),
        out=subpath(output[0], parent=True),
    shell:
        "python -m wuerstchen.train --stage {params.stage} --preset {params.preset}"
        " --data {params.data} --seed {params.seed} {params.more}"
        " --out {params.out} > {log} 2>&1"


rule latents_a:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/pictures.zip",
        "results/{study}/train/a/model.safetensors",
    output:
        "results/{study}/latents/a.safetensors",
    log:
        "results/{study}/logs/latents/a.log",
    benchmark:
        "results/{study}/benchmarks/latents_a/a.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(4),
        runtime="2h",
    params:
        data=subpath(input[0], parent=True),
        what="a",
        preset=config["preset"],
    shell:
        "python -m wuerstchen.precompute --what {params.what} --preset {params.preset}"
        " --data {params.data} --weights results/{wildcards.study}/train"
        " --out {output} > {log} 2>&1"


rule train_b:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/tokens.safetensors",
        "results/{study}/latents/a.safetensors",
        "results/{study}/latents/trunk.safetensors",
    output:
        "results/{study}/train/b/model.safetensors",
        "results/{study}/train/b/history.csv",
        "results/{study}/train/b/usage.json",
        snapshots("b"),
    log:
        "results/{study}/logs/train/b.log",
    benchmark:
        "results/{study}/benchmarks/train_b/b.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem=memory(8),
        runtime="24h",
    params:
        data=subpath(input[0], parent=True),
        stage="b",
        preset=config["preset"],
        seed=training_seed,
        more=f"{training_flags('b')} {snapshot_flags()}",
        out=subpath(output[0], parent=True),
    shell:
        "python -m wuerstchen.train --stage {params.stage} --preset {params.preset}"
        " --data {params.data} --latents results/{wildcards.study}/latents"
        " --seed {params.seed} {params.more}"
        " --out {params.out} > {log} 2>&1"


use rule latents_a as latents_compressor with:
    input:
        f"{STUDY}/data/index.jsonl",
        "results/{study}/latents/trunk.safetensors",
        "results/{study}/train/b/model.safetensors",
    output:
        "results/{study}/latents/compressor.safetensors",
    log:
        "results/{study}/logs/latents/compressor.log",
    benchmark:
        "results/{study}/benchmarks/latents_compressor/compressor.tsv"
    params:
        what="compressor",
        preset=config["preset"],


use rule train_b as train_c with:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/tokens.safetensors",
        "results/{study}/latents/compressor.safetensors",
    output:
        "results/{study}/train/c/model.safetensors",
        "results/{study}/train/c/history.csv",
        "results/{study}/train/c/usage.json",
        snapshots("c"),
    log:
        "results/{study}/logs/train/c.log",
    benchmark:
        "results/{study}/benchmarks/train_c/c.tsv"
    params:
        stage="c",
        preset=config["preset"],
        seed=training_seed,
        more=f"{training_flags('c')} {snapshot_flags()}",
        out=subpath(output[0], parent=True),


# The paper's rule: the baseline gets as many training FLOPs as Stage C. They are counted, so it need not wait for it.
use rule train_b as train_baseline with:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/tokens.safetensors",
        "results/{study}/latents/a.safetensors",
    output:
        "results/{study}/train/baseline-ldm/model.safetensors",
        "results/{study}/train/baseline-ldm/history.csv",
        "results/{study}/train/baseline-ldm/usage.json",
        snapshots("baseline-ldm"),
    log:
        "results/{study}/logs/train/baseline-ldm.log",
    benchmark:
        "results/{study}/benchmarks/train_baseline/baseline-ldm.tsv"
    priority: 5
    params:
        stage="baseline-ldm",
        preset=config["preset"],
        seed=training_seed,
        more=f"{budget('c')} {training_flags('baseline-ldm')} {snapshot_flags()}",
        out=subpath(output[0], parent=True),


# The same run taken further, until it has had the FLOPs of Stages B and C together.
use rule train_b as train_baseline_bc with:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/tokens.safetensors",
        "results/{study}/latents/a.safetensors",
        "results/{study}/train/baseline-ldm/model.safetensors",
        "results/{study}/train/baseline-ldm/usage.json",
    output:
        "results/{study}/train/baseline-ldm-bc/model.safetensors",
        "results/{study}/train/baseline-ldm-bc/history.csv",
        "results/{study}/train/baseline-ldm-bc/usage.json",
        snapshots("baseline-ldm-bc"),
    log:
        "results/{study}/logs/train/baseline-ldm-bc.log",
    benchmark:
        "results/{study}/benchmarks/train_baseline_bc/baseline-ldm-bc.tsv"
    priority: 5
    params:
        stage="baseline-ldm",
        preset=config["preset"],
        seed=training_seed,
        more=f"{budget('b', 'c')} {training_flags('baseline-ldm')} {snapshot_flags()}"
        " --continue-from results/{study}/train/baseline-ldm",
        out=subpath(output[0], parent=True),


# A small DF-GAN, from text and noise straight to pixels, where the config has it among its models: with the FLOPs of
# Stages B and C too, since it needs neither Stage A nor its latents.
use rule train_b as train_df_gan with:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/pictures.zip",
        f"{STUDY}/data/tokens.safetensors",
    output:
        "results/{study}/train/df-gan/model.safetensors",
        "results/{study}/train/df-gan/history.csv",
        "results/{study}/train/df-gan/usage.json",
        snapshots("df-gan"),
    log:
        "results/{study}/logs/train/df-gan.log",
    benchmark:
        "results/{study}/benchmarks/train_df_gan/df-gan.tsv"
    priority: 5
    params:
        data=subpath(input[0], parent=True),
        stage="df-gan",
        preset=config["preset"],
        seed=training_seed,
        more=f"{budget('b', 'c')} {training_flags('df-gan')} {snapshot_flags()}",
        out=subpath(output[0], parent=True),


# The small decoder of Appendix D, from the compressor's latents straight to pixels. It is no part of any model.
use rule train_b as train_probe with:
    input:
        f"{STUDY}/data/index.jsonl",
        f"{STUDY}/data/pictures.zip",
        "results/{study}/latents/compressor.safetensors",
    output:
        "results/{study}/train/probe/model.safetensors",
        "results/{study}/train/probe/history.csv",
        "results/{study}/train/probe/usage.json",
    log:
        "results/{study}/logs/train/probe.log",
    benchmark:
        "results/{study}/benchmarks/train_probe/probe.tsv"
    priority: 3
    params:
        data=subpath(input[0], parent=True),
        stage="probe",
        preset=config["preset"],
        seed=training_seed,
        more="",
        out=subpath(output[0], parent=True),
