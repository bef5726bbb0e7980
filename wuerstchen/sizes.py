"""How many parameters the presets' networks have, beside what the paper says.

python -m wuerstchen.sizes
"""

import argparse

import torch
from torch import nn

from wuerstchen.compressor import SemanticCompressor
from wuerstchen.paper import BASELINE_READINGS, paper_presets
from wuerstchen.probe import ProbeDecoder
from wuerstchen.stage_a import MixingBlock, StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC
from wuerstchen.weights import parameters


def stage_a_as_worded(c: int = 384, c_latent: int = 4, codebook: int = 8192) -> nn.Module:
    """The layers of Stage A as E.1 words them, to be counted: all blocks of one width, 16 and 1 in the decoder."""
    encoder = [nn.Conv2d(12, c, 1), MixingBlock(c), nn.Conv2d(c, c, 4, stride=2, padding=1), MixingBlock(c)]
    encoder += [nn.Conv2d(c, c_latent, 1, bias=False), nn.BatchNorm2d(c_latent)]
    decoder = [nn.Conv2d(c_latent, c, 1), *(MixingBlock(c) for _ in range(16))]
    decoder += [nn.ConvTranspose2d(c, c, 4, stride=2, padding=1), MixingBlock(c), nn.Conv2d(c, 12, 1)]
    return nn.ModuleList([*encoder, nn.Embedding(codebook, c_latent), *decoder])


def counted() -> list[tuple[str, str, int]]:
    """What it is, what the paper says of it, and its number of parameters. Networks are built without values."""
    presets = {preset.name: preset for preset in paper_presets()}
    paper = presets["paper"]
    with torch.device("meta"):
        networks: list[tuple[str, str, nn.Module]] = [
            ("Stage A", "18M", StageA(paper.stage_a)),
            ("Stage A, as E.1 words it", "18M", stage_a_as_worded()),
            ("Stage B", "1B", UNet(paper.stage_b)),
            *((f"Stage C, {name}", "0.99B", StageC(preset.stage_c)) for name, preset in presets.items()),
            ("Semantic Compressor", "", SemanticCompressor(paper.compressor)),
            *((f"Baseline LDM, {name}", "0.99B", UNet(reading.unet)) for name, reading in BASELINE_READINGS.items()),
            ("Probe decoder", "3.9M", ProbeDecoder()),
        ]
    return [(name, said, parameters(network)) for name, said, network in networks]


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(argv)
    print(f"{'network':<30}{'parameters':>15}   the paper")
    for name, said, count in counted():
        print(f"{name:<30}{count:>15,}   {said}")


if __name__ == "__main__":
    main()
