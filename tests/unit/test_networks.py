"""Structure, initialisation, gradients and independence of the networks."""

import pytest
import torch

from wuerstchen.blocks import Attention, AttentionBlock, GlobalResponseNorm, ResBlock, TimestepBlock, timestep_embedding
from wuerstchen.diffusion import predicted_noise_b, predicted_noise_c
from wuerstchen.presets import StageAConfig, StageCConfig, UNetConfig, from_dict, preset, presets, to_dict
from wuerstchen.stage_a import Discriminator, MixingBlock, StageA, VectorQuantizer
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC
from wuerstchen.weights import parameters

TINY = preset("tiny")


def randomise(module: torch.nn.Module, std: float = 0.05) -> torch.nn.Module:
    """Random values everywhere, so that no zero initialisation hides a path."""
    for p in module.parameters():
        torch.nn.init.normal_(p, std=std)
    return module


def stage_c() -> tuple[StageC, dict]:
    torch.manual_seed(0)
    net = StageC(StageCConfig(c_in=16, width=32, c_text=24, depth=2, heads=4, dropout=0.0)).eval()
    inputs = {"x": torch.randn(3, 16, 3, 3), "t": torch.tensor([0.1, 0.5, 1.0]), "text": torch.randn(3, 7, 24)}
    return net, inputs


def unet(**changes) -> tuple[UNet, dict]:
    torch.manual_seed(0)
    values = dict(
        widths=(16, 32, 32), heads=(0, 2, 2), levels=("CT", "CTA", "CTA"), down=(1, 2, 1), up=(1, 2, 1), c_image=16,
        inject_image=(False, True, True), c_cond=24, c_text=24, dropout=0.0,
    )  # fmt: skip
    net = UNet(UNetConfig(**{**values, **changes})).eval()
    inputs = {"x": torch.randn(2, 4, 16, 16), "t": torch.tensor([0.2, 0.9]), "text": torch.randn(2, 7, 24)}
    return net, inputs | {"image": torch.randn(2, 16, 3, 3)}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: StageA(StageAConfig()), 18_406_894),  # the paper's 18M
        (lambda: StageA(StageAConfig(bottleneck_blocks=16)), 23_148_550),
        (lambda: UNet(UNetConfig()), 1_055_365_280),  # Stage B as E.2 describes it
        (lambda: StageC(StageCConfig()), 347_037_472),  # Stage C as E.3 describes it
        (lambda: StageC(presets()["released-v1"].stage_c), 993_243_680),  # the paper's 0.99B
        (lambda: StageC(presets()["released-v2"].stage_c), 993_636_896),
    ],
)
def test_parameter_counts_at_paper_size(network, expected):
    with torch.device("meta"):
        assert parameters(network()) == expected


def test_emoji_geometry_is_the_papers():
    assert preset("emoji").compressed_size == 3
    assert preset("emoji").compression == pytest.approx(1024 / 24)
    assert preset("paper-text").compression == pytest.approx(1024 / 24)


def test_configs_survive_json_and_refuse_unknown_keys():
    config = preset("emoji").stage_b
    import json

    assert from_dict(UNetConfig, json.loads(json.dumps(to_dict(config)))) == config
    with pytest.raises(ValueError, match="UNetConfig.*depth"):
        from_dict(UNetConfig, {"depth": 3})
    with pytest.raises(ValueError, match="'emojis'.*emoji"):
        preset("emojis")


def test_stage_c_predicts_its_input_as_noise_at_initialisation():
    """3.2: at first A = B = 0, so the predicted noise is the input."""
    net, given = stage_c()
    a, b = net(given["x"], given["t"], net.condition(given["text"]))
    assert a.abs().max() == b.abs().max() == 0
    assert torch.allclose(predicted_noise_c(given["x"], a, b), given["x"], atol=1e-4)


def test_stage_b_predicts_twice_its_input_at_initialisation():
    net, given = unet()
    a, b = net(given["x"], given["t"], net.condition(given["text"], given["image"], (16, 16)))
    assert torch.allclose(predicted_noise_b(given["x"], a, b), 2 * given["x"], atol=1e-5)


def test_initialisation_follows_the_released_code():
    net, _ = stage_c()
    assert net.projection.weight.std().item() == pytest.approx(0.02, rel=0.15)
    for block in net.blocks:
        if isinstance(block, TimestepBlock):
            assert block.mapper.weight.abs().max() == 0
        if isinstance(block, ResBlock):
            # xavier-uniform of a (32, 128) matrix, scaled by sqrt(1 / depth)
            bound = (6 / (32 + 128)) ** 0.5 * (1 / 2) ** 0.5
            assert block.channelwise[-1].weight.abs().max().item() == pytest.approx(bound, rel=0.02)
    assert all(p.abs().max() == 0 for name, p in StageA(TINY.stage_a).named_parameters() if name.endswith("gammas"))


@pytest.mark.parametrize("make", [stage_c, unet])
def test_every_parameter_gets_a_gradient(make):
    net, given = make()
    randomise(net).train()
    image = (given["image"], (16, 16)) if "image" in given else ()
    a, b = net(given["x"], given["t"], net.condition(given["text"], *image))
    (a.square().mean() + b.square().mean()).backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not missing


@pytest.mark.parametrize("make", [stage_c, unet])
def test_conditions_matter_and_samples_do_not_mix(make):
    net, given = make()
    randomise(net)
    with torch.no_grad():

        def run(**changed):
            values = given | changed
            image = (values["image"], (16, 16)) if "image" in values else ()
            return net(values["x"], values["t"], net.condition(values["text"], *image))[0]

        reference = run()
        for key in given:
            other = given[key].clone()
            other[0] = other[0] * 0.5 + 0.3
            changed = run(**{key: other})
            assert (changed[0] - reference[0]).abs().max() > 1e-4, key
            assert torch.allclose(changed[1:], reference[1:], atol=1e-5), key


def test_stage_c_repeats_what_guidance_shares():
    net, given = stage_c()
    randomise(net)
    text, t = torch.randn(6, 7, 24), torch.cat([given["t"]] * 2)
    with torch.no_grad():
        condition = net.condition(text)
        both = torch.cat(net(torch.cat([given["x"]] * 2), t, condition))
        assert torch.allclose(torch.cat(net(given["x"], t, condition)), both, atol=1e-5)
        assert (both[:3] - both[3:6]).abs().max() > 1e-4


def test_text_condition_is_the_same_computed_once_or_within_the_block():
    torch.manual_seed(0)
    block = randomise(AttentionBlock(16, 8, 4), 0.3).eval()
    x, text = torch.randn(2, 16, 3, 3), torch.randn(2, 5, 8)
    tokens = block.norm(x).flatten(2).transpose(1, 2)
    both = torch.cat([tokens, block.kv_mapper(text)], dim=1)
    attention = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    attention.in_proj_weight.data = block.attention.in_proj.weight.data
    attention.in_proj_bias.data = block.attention.in_proj.bias.data
    attention.out_proj.load_state_dict(block.attention.out_proj.state_dict())
    theirs = x + attention(tokens, both, both)[0].transpose(1, 2).reshape(x.shape)
    assert torch.allclose(block(x, block.keys_values(text)), theirs, atol=1e-5)


def test_attention_refuses_a_width_that_heads_do_not_divide():
    with pytest.raises(ValueError, match="width 10.*4"):
        Attention(10, 4)


def test_timestep_embedding_keeps_neighbours_apart():
    t = torch.linspace(0, 1, 1001)
    embedding = timestep_embedding(t, 64)
    assert embedding.shape == (1001, 64)
    assert torch.cdist(embedding[:-1, None], embedding[1:, None]).min() > 0.1
    assert torch.equal(timestep_embedding(torch.zeros(1), 64)[0], torch.tensor([0.0] * 32 + [1.0] * 32))


def test_global_response_norm_is_the_identity_at_first_and_then_convnext_v2s():
    torch.manual_seed(0)
    x, norm = torch.randn(2, 3, 3, 8), GlobalResponseNorm(8)
    assert torch.equal(norm(x), x)
    from timm.layers.grn import GlobalResponseNorm as Theirs

    theirs = Theirs(8, channels_last=True)
    theirs.weight.data, theirs.bias.data = torch.randn(8), torch.randn(8)
    norm.gamma.data, norm.beta.data = theirs.weight.data.view(1, 1, 1, 8), theirs.bias.data.view(1, 1, 1, 8)
    assert torch.allclose(norm(x), theirs(x), atol=1e-5)


def test_stage_a_shapes_and_identity_blocks():
    net, images = StageA(TINY.stage_a), torch.rand(2, 3, 64, 64)
    latents = net.encode(images)
    assert latents.shape == (2, 4, 16, 16)
    assert net.decode(latents).shape == images.shape
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(MixingBlock(16)(x), x)


def test_quantiser_takes_the_nearest_code_and_passes_gradients_through():
    torch.manual_seed(0)
    quantiser, x = VectorQuantizer(4, 16), torch.randn(2, 4, 5, 5, requires_grad=True)
    quantiser.codebook.weight.data = torch.randn(16, 4)
    quantised, indices, loss = quantiser(x)
    flat = x.permute(0, 2, 3, 1).reshape(-1, 4)
    assert torch.equal(indices.flatten(), torch.cdist(flat, quantiser.codebook.weight).argmin(1))
    chosen = quantiser.codebook.weight[indices].permute(0, 3, 1, 2)
    assert torch.allclose(quantised, chosen, atol=1e-6)
    assert loss.item() == pytest.approx(1.25 * (chosen - x).square().mean().item(), rel=1e-5)
    quantised.sum().backward()
    assert torch.allclose(x.grad, torch.ones_like(x))


def test_dropping_quantisation_is_per_sample():
    torch.manual_seed(0)
    net, images = StageA(TINY.stage_a).eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        mixed, _, _ = net(images, torch.tensor([True, False]))
        plain = net.decode(net.encode(images))
    assert torch.allclose(mixed[1], plain[1], atol=1e-6)
    assert not torch.allclose(mixed[0], plain[0], atol=1e-4)


def test_discriminator_gives_a_map_of_logits():
    assert Discriminator(32, 4)(torch.rand(2, 3, 64, 64)).shape == (2, 1, 4, 4)
    assert parameters(Discriminator()) == 6_271_105
