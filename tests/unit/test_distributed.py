"""How processes of a training are started: on one node, and on those of a Slurm job."""

import sys

import pytest

from wuerstchen.distributed import launch
from wuerstchen.runs import within_walltime

TRAIN = ["-m", "wuerstchen.train", "--steps", "9"]


def test_one_node_is_torchrun_alone():
    arguments = ["--standalone", "--nproc-per-node", "8", "--max-restarts", "0", *TRAIN]
    assert launch(["--processes", "8", "--max-restarts", "0", *TRAIN], {}) == (arguments, None)
    assert launch(["--nproc-per-node", "2", *TRAIN], {}) == (["--nproc-per-node", "2", *TRAIN], None)


def test_several_nodes_of_a_slurm_job_get_a_torchrun_each():
    _, command = launch(["--processes", "32", "--nodes", "4", *TRAIN], {"SLURM_JOB_ID": "17"})
    assert command[0] == "srun" and {"--overlap", "--nodes=4", "--ntasks=4", "--ntasks-per-node=1"} < set(command)
    rest = command[command.index(sys.executable) :]
    assert rest[1:5] == ["-m", "wuerstchen.distributed", "--nnodes", "4"] and rest[-4:] == TRAIN
    assert rest[rest.index("--nproc-per-node") + 1] == "8" and rest[rest.index("--rdzv-id") + 1] == "17"


def test_what_cannot_be_started_is_refused():
    with pytest.raises(ValueError, match="--processes: 6 cannot be spread evenly over --nodes 4"):
        launch(["--processes", "6", "--nodes", "4", *TRAIN], {"SLURM_JOB_ID": "17"})
    with pytest.raises(ValueError, match="--nodes: 4, but this is no job of Slurm"):
        launch(["--processes", "8", "--nodes", "4", *TRAIN], {})


@pytest.mark.parametrize(("text", "seconds"), [("1m", 30), ("4h", 4 * 3600 - 720), ("1440m", 86400 - 900)])
def test_a_walltime_leaves_time_for_start_and_end(text, seconds):
    assert within_walltime(text) == seconds
