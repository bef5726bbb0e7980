# A training over two nodes, as the rule train_phase starts it, at a size for a test.


rule train:
    output:
        "two-nodes/model.safetensors",
    log:
        "two-nodes/train.log",
    retries: 3 if workflow.is_main_process else 0
    resources:
        cpus_per_task=1,
        nodes=2,
        gpu=2,
        mpi="",
        mem="4GB",
        runtime="2m",
    params:
        flags=lambda wildcards: config["flags"],  # the braces of shards are no wildcards
    shell:
        "python -m wuerstchen.distributed --processes {resources.gpu} --nodes {resources.nodes}"
        " -m wuerstchen.train --walltime {resources.runtime}m {params.flags} --out two-nodes >> two-nodes/said 2>&1"
