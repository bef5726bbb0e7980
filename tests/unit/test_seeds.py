import subprocess
import sys

import torch

from wuerstchen.seeds import derive, generator


def test_derive_depends_on_every_part_and_on_where_it_ends():
    seeds = [
        derive(0, "apple"),
        derive(1, "apple"),
        derive(0, "pear"),
        derive(0, "ap", "ple"),
        derive("0apple"),
        derive(0),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derive_is_the_same_in_another_process():
    code = "from wuerstchen.seeds import derive; print(derive(7, 'names', 'apple'))"
    environment = {"PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(other.stdout) == derive(7, "names", "apple")


def test_derive_spreads_evenly():
    low = sum(derive(0, "spread", number) < 2**62 for number in range(2000))
    assert 900 < low < 1100


def test_generator_gives_the_same_noise_for_the_same_image_only():
    first, again, other = (torch.randn(8, generator=generator(0, name)) for name in ("a", "a", "b"))
    assert torch.equal(first, again) and not torch.equal(first, other)
