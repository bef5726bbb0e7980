"""What jobs ask a cluster for: as the rules say it, and as a dry-run with the profile does."""

import re
from pathlib import Path

from trees import ROOT, call


def sent_rules() -> dict[str, str]:
    """The text of each rule whose jobs a cluster gets, but for those that take it from another one."""
    texts = {}
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for text in re.split(r"^(?=(?:use )?rule )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            if text.startswith("rule ") and "localrule: True" not in text:
                texts[re.match(r"rule (\w+)", text)[1]] = text
    return texts


def test_every_rule_says_what_its_jobs_need() -> None:
    """Cores beside threads, which the cores of the login node limit; nodes, or Slurm may spread a job's GPUs."""
    for rule, text in sent_rules().items():
        threads, gpus = (re.search(rf" {name}(\d+)", text) for name in ("threads: ", "gpu="))
        if gpus or (threads and int(threads[1]) > 1):
            assert f" cpus_per_task={threads[1]},\n" in text, rule
        if gpus and int(gpus[1]) > 1:
            assert " nodes=1,\n" in text, rule
        hours = re.search(r' runtime="(\d+)([hd])"', text)
        assert int(hours[1]) * {"h": 1, "d": 24}[hours[2]] <= 24, rule
        assert re.search(r" mem=memory\(\S.*\),", text) or rule == "train_phase", rule


def test_what_slurm_is_asked_for(tree: Path) -> None:
    """From a login node of two cores, at the third attempt, with the training on four nodes."""
    more = ("--set-resources", "train_phase:nodes=4", "train_phase:gpu=32", "train_phase:runtime=12h")
    study = ("--cores", "2", "--profile", "slurm", "--configfile", "config/paper.yaml", "--attempt", "3")
    run = call("snakemake", "--dry-run", "--printshellcmds", *study, *more, cwd=tree)
    assert run.returncode == 0, run.stdout

    def needs(rule: str) -> dict[str, str]:
        said = re.search(rf"^rule {rule}:\n(?:    .+\n)*    resources: (.*)$", run.stdout, re.MULTILINE)[1]
        return dict(pair.split("=") for pair in said.split(", "))

    scan, training = needs("scan"), needs("train_phase")
    assert (scan["cpus_per_task"], scan["mem_mb"], scan["runtime"]) == ("32", str(3 * 64_000), "1440")
    assert (training["nodes"], training["gpu"], training["cpus_per_task"]) == ("4", "32", "64")
    assert training["mem_mb"] == "512000"  # its attempts are slices, not failures
    commands = re.findall(r"wuerstchen.distributed (.*) --stage", run.stdout)
    assert len(commands) == 8
    assert set(commands) == {"--processes 32 --nodes 4 -m wuerstchen.train --walltime 720m"}
