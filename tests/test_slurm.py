"""A study on a real Slurm, and what clusters do to it. Needs root and Debian's slurmctld, slurmd and munge."""

import contextlib
import csv
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from trees import ROOT, call, measurements, study_tree

pytestmark = pytest.mark.slurm
SLURM = ROOT / "tests" / "slurm"
CONF = Path("/etc/slurm/slurm.conf")
COMMAND = [str(Path(sys.executable).with_name("snakemake")), "--cores", "all", "--profile", "slurm"]
AGAIN = [sys.executable, "-m", "workflow.run", "--profile", "slurm"]  # after the head was killed
TINY = ["--configfile", "tests/tiny.yaml"]
# the profile's waits are for clusters with a network between their parts
SOON = ["--jobs", "3", "--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "2"]
RUNS: list[subprocess.Popen] = []  # all that were started
MEASURED = re.compile("hours|kwh|carbon|seconds")  # columns of what a run has used


@dataclass(frozen=True)
class Sent:
    """A job as Slurm remembers it; times are text that sorts."""

    number: str
    state: str
    what: str
    began: str
    ended: str
    node: str
    memory: float  # MB


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of three nodes for all tests of this file."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
    if missing:
        pytest.skip(f"no {', '.join(missing)} on this machine")
    if os.geteuid() or CONF.exists():
        pytest.skip("not root" if os.geteuid() else f"{CONF} is there: this machine has a Slurm of its own")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        subprocess.run([SLURM / "up", folder], check=True)
        yield
    finally:
        for run in RUNS:
            run.kill()
        subprocess.run([SLURM / "down", folder], check=True)


def sent(tree: Path, what: str = "") -> list[Sent]:
    """All jobs of a tree, the ended ones too, or those of one rule, in their order."""
    run = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--sort=i", "--format=%Z|%i|%T|%k|%S|%e|%N|%m"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    jobs = []
    for line in run.stdout.splitlines():
        place, *fields, memory = line.split("|")
        scale = {"M": 1, "G": 1000}[memory[-1]]
        job = Sent(*fields, memory=float(memory[:-1]) * scale)
        if place == str(tree) and (not what or re.match(rf"rule_{what}(_wildcards|$)", job.what)):
            jobs.append(job)
    return jobs


def seen(condition: Callable[[], object], what: str, run: subprocess.Popen | None = None, seconds: float = 300):
    """Wait until a condition is true and return what it said; fails where a run ends before."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert run is None or run.poll() is None, f"the run ended before {what}"
        assert time.monotonic() < until, f"no {what} in {seconds} s"
        time.sleep(0.2)
    return found


def running(tree: Path, rule: str, run: subprocess.Popen) -> Sent:
    """The running job of a rule, as soon as there is one."""
    jobs = seen(lambda: [j for j in sent(tree, rule) if j.state == "RUNNING"], f"running job of {rule}", run)
    return jobs[0]


def processes(tree: Path, words: str) -> list[psutil.Process]:
    """Python processes at work in a tree, by words of their command line; Snakemake's own are none of them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if line and Path(line[0]).name.startswith("python") and "snakemake" not in " ".join(line):
                if words in " ".join(line) and process.cwd() == str(tree):
                    found.append(process)
    return found


def begin(tree: Path, *command: str) -> subprocess.Popen:
    """Start a run; what it prints goes to run.log."""
    # PYTHONPATH stays: a training here runs outside of any tree
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with open(tree / "run.log", "a") as log:
        run = subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=log, start_new_session=True)
    RUNS.append(run)
    return run


def said(tree: Path) -> str:
    """What all runs in a tree have printed."""
    return (tree / "run.log").read_text()


def to_the_end(tree: Path, run: subprocess.Popen) -> str:
    """Wait for a run that should succeed; returns what all runs in this tree have printed."""
    code = run.wait(timeout=900)
    assert code == 0, said(tree)[-20000:]
    return said(tree)


def scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=True).stdout


def tables(tree: Path) -> dict[str, list[list[str]]]:
    """The three tables but for columns of what a run has used."""
    found = {}
    for path in sorted((tree / "results/tiny/tables").glob("table?.csv")):
        with open(path, newline="") as file:
            header, *rows = csv.reader(file)
        kept = [i for i, name in enumerate(header) if not MEASURED.search(name)]
        found[path.name] = [[row[i] for i in kept] for row in (header, *rows)]
    return found


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study, run on this machine alone."""
    tree = study_tree(tmp_path_factory.mktemp("home"))
    to_the_end(tree, begin(tree, sys.executable, "-m", "workflow.run", *TINY))
    return tree


@pytest.fixture(scope="module")
def hung(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.Popen]:
    """A training over two nodes that was told to stop, went on in a second job, and hangs until its time is over."""
    tree = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tests" / "unit")
        import cluster_runs

        cluster_runs.build(tree / "shards")
        flags = cluster_runs.arguments(tree / "shards", "c", "OUT", "--steps", "60")
        out = flags.index("--out")
        (tree / "flags.yaml").write_text(yaml.safe_dump({"flags": shlex.join([*flags[:out], *flags[out + 2 :]])}))
        flags[out + 1] = "alone"
        patch.setenv("PYTHONPATH", str(ROOT))
        alone = ["-m", "wuerstchen.distributed", "--processes", "2", "-m", "wuerstchen.train", *flags]
        to_the_end(tree, begin(tree, sys.executable, *alone))
        command = [*COMMAND[:-1], str(ROOT / "slurm"), "--snakefile", str(SLURM / "training.smk"), *SOON]
        head = begin(tree, *command, "--configfile", "flags.yaml")
    text = tree / "two-nodes/said"

    job = running(tree, "train", head)
    assert job.node == "gpu[1-2]"
    seen((tree / "two-nodes/state/last.safetensors").exists, "first checkpoint", head)
    subprocess.run(["scancel", "--signal=TERM", job.number], check=True)
    seen(lambda: "stopped in time" in text.read_text(), "training that stops in time", head)
    seen(lambda: "resuming at step" in text.read_text(), "training that goes on", head)
    for process in processes(tree, "wuerstchen.train --walltime"):
        process.suspend()
    return tree, head


@pytest.fixture(scope="module")
def away(hung: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study on Slurm, with a job cancelled, a node lost, a job out of memory, and the head killed.

    Meanwhile the training in `hung` waits for its time to be over.
    """
    tree = study_tree(tmp_path_factory.mktemp("away"))
    rules = tree / "workflow/rules/train.smk"
    before, rule, after = rules.read_text().partition("rule trunk:")
    rules.write_text(before + rule + after.replace("mem=memory(4)", "mem=memory(0.35)", 1))
    head = begin(tree, *COMMAND, *TINY, *SOON)

    job = running(tree, "train_a", head)
    subprocess.run(["scancel", job.number], check=True)

    job = running(tree, "train_b", head)
    node = job.node
    scontrol("update", f"nodename={node}", "state=down", "reason=test")
    seen(lambda: "Restarts=1" in scontrol("show", "job", job.number), "requeued job", head)
    # it fails where the node has registered again by itself
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"])
    seen(lambda: "State=DOWN" not in scontrol("show", "node", node), "node that is up again", head)

    job = running(tree, "train_c", head)
    (training,) = seen(lambda: processes(tree, "wuerstchen.train --stage c"), "training of Stage C", head)
    training.suspend()  # it has to outlive the head
    head.kill()
    head.wait()
    before = len(sent(tree))
    locked = subprocess.run([*COMMAND, *TINY], cwd=tree, capture_output=True, text=True)
    assert locked.returncode == 1 and "locked" in locked.stderr
    subprocess.run([*COMMAND, *TINY, "--unlock"], cwd=tree, check=True)
    refused = subprocess.run([*COMMAND, *TINY], cwd=tree, capture_output=True, text=True)
    assert refused.returncode == 1 and f"  {job.number} (running): train_c" in refused.stderr, refused.stderr
    assert len(sent(tree)) == before
    head = begin(tree, *AGAIN, *TINY, *SOON)
    seen(lambda: f"Waiting for job {job.number}" in said(tree), "second head that waits", head)
    training.resume()
    to_the_end(tree, head)
    return tree


def test_it_ends_with_the_same_images_scores_and_tables(at_home: Path, away: Path) -> None:
    assert measurements(away) == measurements(at_home)
    assert tables(away) == tables(at_home) and len(tables(away)) == 3
    assert (away / "results/tiny/report.html").stat().st_size > 10_000
    again = call("workflow.run", "--profile", "slurm", *TINY, cwd=away)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout, again.stdout


def test_a_cancelled_job_is_sent_again(away: Path) -> None:
    first, second = sent(away, "train_a")
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")


def test_a_job_that_ran_out_of_memory_gets_more(away: Path) -> None:
    first, *_, last = sent(away, "trunk")
    assert first.state in ("OUT_OF_MEMORY", "FAILED", "CANCELLED") and last.state == "COMPLETED"
    assert last.memory > first.memory == pytest.approx(350)


def test_a_job_whose_node_went_down_is_put_back_by_slurm(away: Path) -> None:
    (job,) = sent(away, "train_b")
    assert job.state == "COMPLETED" and "Restarts=1" in scontrol("show", "job", job.number)


def test_a_killed_head_loses_nothing_and_no_output_has_two_writers(away: Path) -> None:
    (job,) = sent(away, "train_c")
    assert job.state == "COMPLETED"  # what went on without the head was not done again
    last: dict[str, Sent] = {}
    for job in sent(away):
        if job.what in last and job.began != "N/A":
            assert last[job.what].ended <= job.began, (last[job.what], job)
        last[job.what] = job


def test_a_damaged_shard_and_a_full_disk_are_named_and_nothing_half_written_is_left(away: Path) -> None:
    """A crash has cut a shard; when it is made again the disk is full; and then it is not."""
    target = Path("results/tiny/images/real/names/0000.zip")
    whole = (away / target).read_bytes()
    (away / target).write_bytes(whole[:-100])
    command = [*AGAIN, *TINY, *SOON, "--retries", "0", "--", str(target)]
    # Slurm hands the head's limit on the size of files to its jobs
    limit = (len(whole) // 2,) * 2
    full = subprocess.run(
        command,
        cwd=away,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert full.returncode == 1
    named = re.findall(r"^(\S+): not a whole zip file .*; it will be made again$", full.stdout, re.MULTILINE)
    assert named == [str(away / target)], full.stdout
    log = (away / "results/tiny/logs/images/real/names/0000.log").read_text()
    assert f"File too large: '{target}'" in log, log
    assert not [path for path in (away / target).parent.iterdir() if "0000" in path.name]
    to_the_end(away, begin(away, *command))
    assert (away / target).read_bytes() == whole


def test_a_training_over_two_nodes_goes_on_after_its_time_is_over(
    hung: tuple[Path, subprocess.Popen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the weights of a run that was left alone."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "unit")
    import cluster_runs

    tree, head = hung
    to_the_end(tree, head)
    assert [job.state for job in sent(tree, "train")] == ["FAILED", "TIMEOUT", "COMPLETED"]
    assert (tree / "two-nodes/said").read_text().count("resuming at step") == 2
    assert cluster_runs.same_weights(tree / "two-nodes", tree / "alone")
