"""How far a study is: asked of real runs of Snakemake, and of what its executor for Slurm writes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trees import ROOT

from workflow.runlog import DONE, FAILED, RUNNING, last_run
from workflow.status import bar_seconds, main, message
from wuerstchen.files import write_json

SNAKEFILE = """
rule all:
    input: expand("results/m/b{n}", n=range(3)), "results/m/usage.json"
rule a:
    output: "results/m/a"
    log: "results/m/logs/a.log"
    benchmark: "results/m/benchmarks/a/a.tsv"
    shell: "echo begun > {log}; touch {output}"
rule b:
    input: "results/m/a"
    output: "results/m/b{n}"
    log: "results/m/logs/b{n}.log"
    benchmark: "results/m/benchmarks/b/{n}.tsv"
    shell: "if [ {wildcards.n} = 1 ]; then seq 40 > {log}; echo why b failed >> {log}; exit 3; fi; touch {output}"
rule slow:
    input: "results/m/a"
    output: "results/m/usage.json"
    log: "results/m/logs/slow.log"
    retries: 1
    shell: "echo 'stage c: 30 of 40 steps, 00:30 gone, 01:05 left' > {log}; "
           "while [ ! -e go ]; do sleep 0.1; done; cp usage.json {output}"
"""


def start(folder: Path, *flags: str) -> subprocess.Popen:
    (folder / "Snakefile").write_text(SNAKEFILE)
    write_json(folder / "usage.json", {"images": 300, "seconds": 20.0})
    command = [sys.executable, "-m", "snakemake", "--cores", "3", "--keep-going", *flags]
    with open(folder / "head.log", "w") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def cells(text: str, rule: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.split()[:1] == [rule])
    return line.split()[1:]


def test_a_run_is_read_while_it_goes_on_and_after_a_job_has_failed(tmp_path, capsys):
    study, head = tmp_path / "results/m", start(tmp_path)

    def known() -> bool:
        run = last_run(study)
        return run is not None and run.count("b", DONE, FAILED) == 3 and run.count("slow", RUNNING) == 1

    wait_until(known)
    text = message(study)
    assert "goes on, last word 0:0" in text and "3 of 6 jobs done" in text
    assert cells(text, "b")[:2] == ["3", "2"] and cells(text, "slow")[:2] == ["1", "1"]
    assert "  slow, 0:0" in text and ": stage c: 30 of 40 steps, 00:30 gone, 01:05 left" in text
    assert "  b 1 failed after 0:0" in text and "      why b failed\n" in text
    assert "      40\n" in text and "      20\n" not in text  # the end of the log alone
    assert "left: about 1 min" in text  # by what the job's own log says
    (tmp_path / "go").touch()
    head.wait()
    main([str(study)])
    text = capsys.readouterr().out
    assert "has ended; 4 of 6 jobs done" in text and "running:" not in text and "why b failed" in text
    assert cells(text, "slow")[-1] == "15"  # images a second


def test_a_killed_run_is_told_from_one_that_goes_on(tmp_path):
    study, head = tmp_path / "results/m", start(tmp_path)
    wait_until(lambda: (tmp_path / "results/m/logs/slow.log").exists())
    os.killpg(head.pid, 9)
    head.wait()
    later = time.time() + 3600
    assert "has said nothing for about 60 min; where its snakemake is dead, start it again" in message(study, later)
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], cwd=tmp_path, check=True, capture_output=True)
    assert "was ended from outside" in message(study)


def test_the_last_run_is_the_studys_own(tmp_path):
    (tmp_path / "go").touch()
    start(tmp_path).wait()
    found = last_run(tmp_path / "results/m")
    assert found is not None and found.planned.total() == 6
    with pytest.raises(SystemExit, match="has a job of this study"):
        main([str(tmp_path / "results/other")])


# What Snakemake 9 and its executor for Slurm write; a run on a real Slurm is a test of its own.
SLURM = """\
Provided remote nodes: 100
Job stats:
job      count
-----  -------
draw         3
all          1
total        4

Select jobs to execute...
[Mon Nov 23 15:00:00 2026]
rule draw:
    output: results/m/images/sd-xl/0000.zip
    log: results/m/logs/sd-xl/0000.log
    jobid: 2
    wildcards: study=m, model=sd-xl, shard=0000
    threads: 2
    resources: mem_mb=1000, gpu=1
Job 2 has been submitted with SLURM jobid 17 (log: {root}/results/logs/slurm/rule_draw/17.log).
[Mon Nov 23 15:00:01 2026]
rule draw:
    output: results/m/images/sd-xl/0001.zip
    log: results/m/logs/sd-xl/0001.log
    jobid: 3
    wildcards: study=m, model=sd-xl, shard=0001
Job 3 has been submitted with SLURM jobid 18 (log: {root}/results/logs/slurm/rule_draw/18.log).
[Mon Nov 23 15:00:20 2026]
Error in rule draw:
    message: SLURM-job '18' failed, SLURM status is: 'OUT_OF_MEMORY'. For further error details see the log
    jobid: 3
    output: results/m/images/sd-xl/0001.zip
    log: results/m/logs/sd-xl/0001.log, {root}/results/logs/slurm/rule_draw/18.log (check log file(s) for error details)
    shell:
        python -m evaluation.sample
        (command exited with non-zero exit code)
    external_jobid: 18
"""
AGAIN = """\
Trying to restart job 3.
"""
SECOND_TRY = """\
[Mon Nov 23 15:00:30 2026]
rule draw:
    output: results/m/images/sd-xl/0001.zip
    log: results/m/logs/sd-xl/0001.log
    jobid: 3
    wildcards: study=m, model=sd-xl, shard=0001
Job 3 has been submitted with SLURM jobid 19 (log: {root}/results/logs/slurm/rule_draw/19.log).
"""


def test_a_run_on_slurm(tmp_path):
    log = tmp_path / ".snakemake/log/2026-11-23T150000.snakemake.log"
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    log.parent.mkdir()
    log.write_text(SLURM.format(root=tmp_path))
    study = tmp_path / "results/m"
    now = time.mktime((2026, 11, 23, 15, 1, 0, 0, 0, -1))
    os.utime(log, (now, now))
    text = message(study, now)
    assert cells(text, "draw") == ["3", "1", "1"]  # jobs, queued, failed
    assert "  draw sd-xl 0000, 1:00: job 17 of Slurm; waits in the queue" in text
    assert "  draw sd-xl 0001 failed after 0:19\n    SLURM-job '18' failed, SLURM status is: 'OUT_OF_MEMORY'." in text
    assert "it wrote no log" in text
    slurm_log = tmp_path / "results/logs/slurm/rule_draw/18.log"
    slurm_log.parent.mkdir(parents=True)
    slurm_log.write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    assert f"    the end of {slurm_log}:\n      slurmstepd: error: Detected 1 oom_kill event" in message(study, now)
    for more, said in ((AGAIN, "failed after 0:19, to be tried again"), (SECOND_TRY, "job 19 of Slurm; try 2; waits")):
        log.write_text(log.read_text() + more.format(root=tmp_path))
        assert said in message(study, now)
    mine = tmp_path / "results/m/logs/sd-xl/0000.log"
    mine.parent.mkdir(parents=True)
    mine.write_text("pictures: 100 of 1000 pictures, 00:30 gone, 04:30 left\n")
    assert "1:00: job 17 of Slurm; pictures: 100 of 1000 pictures" in message(study, now)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("text tokens: 380 of 485 batches, 00:10 gone, 00:02 left", 2),
        ("pictures: 3 of 500 batches of 16, 1:00:10 gone, 100:00:02 left", 360_002),
        ("stage c: 0 of 500000 steps, 00:10 gone, ? left", None),
        ("stage b: step 5/12, loss 2.1245, 4 images/s, 20 s", 28),
        ("step 3", None),
    ],
)
def test_seconds_left_by_a_line_of_progress(line, seconds):
    assert bar_seconds(line) == seconds


def test_progress_writes_lines_that_are_understood(tmp_path):
    """The lines of wuerstchen.progress itself, not of this test."""
    program = "import time; from wuerstchen import progress as p; p.EVERY = 0.2\n"
    program += "for _ in p.progress(range(8), what='stage c', unit='steps'): time.sleep(0.15)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    first, *_, last = run.stderr.splitlines()
    assert bar_seconds(first) is not None and bar_seconds(last) == 0
