"""Networks rewritten for sampling compute what they computed before."""

import copy

import pytest
import torch

from wuerstchen.fused import for_sampling
from wuerstchen.linear import Linear
from wuerstchen.presets import StageAConfig, StageCConfig, UNetConfig
from wuerstchen.stage_a import StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC


def randomise(network: torch.nn.Module) -> torch.nn.Module:
    """Random values everywhere, so that no zero initialisation hides a path."""
    torch.manual_seed(0)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return network.eval()


def stage_a() -> StageA:
    return randomise(StageA(StageAConfig(bottleneck_blocks=2, width=32, codebook_size=8)))


def stage_b(**changed) -> UNet:
    values = dict(widths=(16, 32, 32), heads=(0, 2, 2), levels=("CT", "CTA", "CTA"), down=(1, 2, 1), up=(1, 2, 1))
    values |= dict(inject_image=(False, True, True), c_cond=24, c_text=20) | changed
    return randomise(UNet(UNetConfig(**values)))


def stage_c() -> StageC:
    return randomise(StageC(StageCConfig(width=32, c_text=20, depth=2, heads=4)))


@torch.no_grad()
def compute(network: torch.nn.Module) -> torch.Tensor:
    """What a network gives for the same random inputs."""
    torch.manual_seed(1)
    like = next(network.parameters())

    def noise(*shape):
        return torch.randn(*shape, dtype=torch.float64).to(like)

    if isinstance(network, StageA):
        return network.decode(noise(2, 4, 12, 8))
    text, t = noise(2, 5, 20), torch.tensor([0.3, 0.9], dtype=torch.float64).to(like)
    if isinstance(network, StageC):
        return torch.cat(network(noise(2, 16, 6, 3), t, network.condition(text)))
    image = torch.cat([noise(1, 16, 3, 6), torch.zeros(1, 16, 3, 6).to(like)])  # as guidance has it
    condition = network.condition(text, image, (16, 32))
    return torch.cat(network(noise(2, 4, 16, 32), t, condition))


MAKERS = [stage_a, stage_b, stage_c]


@pytest.mark.parametrize("make", [*MAKERS, lambda: stage_b(image_shuffle=2), lambda: stage_b(objective="ab")])
def test_folding_is_exact(make):
    network = make().double()
    expected = compute(network)
    assert 0.1 < expected.std() < 1000
    found = compute(for_sampling(copy.deepcopy(network)))
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize("make", MAKERS)
def test_packed_matrices_give_the_same_in_float32(make):
    network = make()
    expected, plain = compute(network), compute(for_sampling(copy.deepcopy(network)))
    rewritten = for_sampling(network, pack=True)
    packed = [module.packed is not None for module in rewritten.modules() if isinstance(module, Linear)]
    assert packed and all(packed) == torch.backends.mkldnn.is_available()
    for found in (plain, compute(rewritten)):
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("make", MAKERS)
def test_maps_are_worked_on_in_parts(make, monkeypatch):
    network = for_sampling(make())
    whole = compute(network)
    monkeypatch.setattr("wuerstchen.fused.WORKSET", 500)
    assert torch.allclose(compute(network), whole, atol=1e-5)


@pytest.mark.parametrize("make", MAKERS)
def test_in_bf16_it_is_as_near_as_the_network_itself(make):
    expected = compute(make().double())
    half = make().bfloat16()
    before = (compute(half).double() - expected).abs().mean()
    after = (compute(for_sampling(half, pack=True)).double() - expected).abs().mean()
    assert 0 < after < 1.5 * before
