"""Where the paper and the released code disagree, each choice has a name and does what it says; presets have theirs."""

import dataclasses

import pytest
import torch

from wuerstchen import train, weights
from wuerstchen.conditions import disturbed
from wuerstchen.diffusion import OBJECTIVES, CosineSchedule, p2_code, p2_paper, predicted_noise_b, predicted_noise_c
from wuerstchen.inputs import Inputs
from wuerstchen.paper import BASELINE_READINGS, with_baseline
from wuerstchen.pipeline import ImageNoise, Wuerstchen, sample_stage_b
from wuerstchen.presets import DiffusionRecipe, Phase, preset
from wuerstchen.scaling import latent_scaling, scale_latents
from wuerstchen.sizes import counted
from wuerstchen.stage_b import UNet
from wuerstchen.tasks import DIFFUSION_TASKS, make_task

TINY = preset("tiny")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("paper", ("bicubic", "p2-paper", "uniform", "sample", "sample", "none", "codebook", 4.0, 0.0)),
        ("paper-text", ("bicubic", "p2-paper", "uniform", "sample", "sample", "none", "codebook", 4.0, 0.0)),
        ("released-v2", ("bilinear-crop", "p2-code", "released", "batch", "batch", "released", "noise", 1.0, 0.1)),
        ("emoji", ("bicubic", "velocity", "uniform", "sample", "sample", "unit", None, None, 0.0)),
    ],
)
def test_each_preset_makes_the_choices_of_its_source(name, values):
    p = preset(name)
    b, c = p.recipes["b"], p.recipes["c"]
    found = (p.compressor.resize, c.loss_weight, c.timesteps, c.drop_text_per, b.drop_image_per, p.latent_scaling)
    found += (p.sampling and p.sampling.start_b, p.sampling and p.sampling.guidance_b, p.stage_c.dropout)
    assert found == values
    assert p.stage_b.objective == "sigmoid"  # the paper gives none for Stage B


def test_appendix_es_trainings():
    recipes = preset("paper").recipes
    assert {stage: recipe.steps for stage, recipe in recipes.items()} == {
        "a": 500_000, "b": 757_000, "c": 918_000, "baseline-ldm": 1_500_000,
    }  # fmt: skip
    assert [(p.steps, p.batch_size, p.data) for p in recipes["c"].phases] == [
        (500_000, 1536, "base"), (364_000, 1536, "base"), (4_000, 768, "base"), (50_000, 384, "aesthetic"),
    ]  # fmt: skip
    # 12x12, 24x24, then three aspect ratios of what the compressor sees
    assert [p.sizes for p in recipes["c"].phases[:2]] == [((384, 384),), ((768, 768),)]
    assert set(recipes["c"].phases[2].sizes) == {(768, 1280), (1280, 768), (768, 768)}
    assert [(p.steps, p.batch_size, p.sizes) for p in recipes["b"].phases] == [
        (457_000, 512, ((512, 512),)), (300_000, 128, ((1024, 1024),)),
    ]  # fmt: skip
    # Table 2 has 1.42B samples of Stage C, which is more than E.3's steps make
    assert sum(p.steps * p.batch_size for p in recipes["c"].phases) == 1_349_376_000
    a = recipes["a"]
    assert (a.batch_size, a.crop, a.adversarial_from, a.adversarial_weight, a.perceptual_weight) == (
        256, 128, 10_000, 0.01, 0.1,
    )  # fmt: skip
    for stage, recipe in recipes.items():
        assert (recipe.optimiser, recipe.learning_rate) == ("adamw", 1e-4)
        assert recipe.warmup == (0 if stage == "a" else 10_000)


def test_a_recipe_in_phases_has_their_length_and_batch():
    recipe = DiffusionRecipe(steps=5, batch_size=8, phases=(Phase(2, 8, ((64, 64),)), Phase(3, 4, ((128, 128),))))
    for changed in ({"steps": 6}, {"batch_size": 4}):
        with pytest.raises(ValueError, match="a recipe in phases has theirs, 2 x 8, 3 x 4"):
            dataclasses.replace(recipe, **changed)


def test_parameters_beside_the_papers():
    counts = {name: count for name, _, count in counted()}
    assert counts["Stage C, paper"] == 993_243_680 and counts["Stage C, paper-text"] == 347_037_472
    assert counts["Semantic Compressor"] == 20_177_488 + 20_512
    assert counts["Probe decoder"] == 3_858_371
    # the paper has 0.99B for the baseline too; what appendix E.4 describes is more in both readings
    assert counts["Baseline LDM, appendix-e4"] == 1_142_274_144
    assert counts["Baseline LDM, section-4"] == 1_157_069_152


def test_both_readings_of_the_baseline_differ_in_first_stage_and_text():
    e4, section = BASELINE_READINGS["appendix-e4"], BASELINE_READINGS["section-4"]
    assert (e4.first_stage, e4.text.dimensions, e4.unet.c_text) == ("sd-1.4", 768, 768)
    assert (section.first_stage, section.text.dimensions, section.unet.c_text) == ("sd-2.1", 1024, 1024)
    assert dataclasses.replace(e4.unet, c_text=1024, c_cond=1024) == section.unet
    for name, reading in (("paper", section), ("paper-text", e4), ("released-v2", e4)):
        found = preset(name)
        assert (found.baseline_ldm, found.baseline_first_stage) == (reading.unet, reading.first_stage)
        assert found.text_of("baseline-ldm") == reading.text != found.text
        for other, said in BASELINE_READINGS.items():
            read = with_baseline(found, other)
            assert (read.text_of("baseline-ldm"), read.baseline_ldm) == (said.text, said.unet)
            assert dataclasses.replace(read, baseline_ldm=found.baseline_ldm, text_baseline=found.text_baseline,
                                       baseline_first_stage=found.baseline_first_stage) == found  # fmt: skip
    assert with_baseline(TINY, None) == TINY and TINY.baseline_first_stage == "stage-a"
    with pytest.raises(ValueError, match="--baseline: section-4; the baseline of preset tiny works on Stage A"):
        with_baseline(TINY, "section-4")
    with pytest.raises(ValueError, match="--baseline: 'sd' is not known; use appendix-e4 or section-4"):
        with_baseline(found, "sd")


# The A/B objective in Stage B.


def unet(objective: str) -> UNet:
    torch.manual_seed(0)
    net = UNet(dataclasses.replace(TINY.stage_b, objective=objective)).eval()
    return net.requires_grad_(False)


def test_stage_b_can_have_stage_cs_objective():
    """With it the first prediction is the input, as 3.2 wants; with the released code's it is twice that."""
    x, t = torch.randn(2, 4, 16, 16), torch.rand(2)
    given = torch.randn(2, 5, 384), torch.randn(2, 16, 3, 3), (16, 16)
    for objective, factor in (("ab", 1), ("sigmoid", 2)):
        net = unet(objective)
        a, b = net(x, t, net.condition(*given))
        assert torch.allclose(OBJECTIVES[objective](x, a, b), factor * x, atol=1e-4)
    for net in (unet("ab"), unet("sigmoid")):
        net.clf[1].bias.fill_(3.0)
        _, b = net(x, t, net.condition(*given))
        assert b.max().item() == pytest.approx(3.0 if net.config.objective == "ab" else 0.951, abs=1e-3)
    assert OBJECTIVES == {"sigmoid": predicted_noise_b, "ab": predicted_noise_c}
    with pytest.raises(ValueError, match="objective: 'eps' is not known; use one of sigmoid, ab"):
        unet("eps")


@pytest.mark.parametrize(("stage", "field"), [("b", "stage_b"), ("baseline-ldm", "baseline_ldm")])
def test_training_predicts_by_the_objective_of_the_network(stage, field):
    noise = []
    for objective in ("sigmoid", "ab"):
        chosen = dataclasses.replace(TINY, **{field: dataclasses.replace(getattr(TINY, field), objective=objective)})
        torch.manual_seed(0)
        task = DIFFUSION_TASKS[stage](chosen, stage, Inputs.dummy(chosen, 4), 0)
        x = torch.ones(2, 4, 32, 32)
        image = torch.zeros(2, 16, 3, 3) if stage == "b" else None
        with torch.no_grad():
            noise.append(task.predict(task.modules, x, torch.rand(2), task.text(torch.arange(2), None), image, None))
    assert torch.allclose(noise[0], torch.full_like(noise[0], 2.0), atol=1e-4)
    assert torch.allclose(noise[1], torch.ones_like(noise[1]), atol=1e-4)


# Dropping conditions, for each sample or for the whole batch.


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_compressor_latents_are_dropped_and_noised(per):
    recipe = DiffusionRecipe(1, 1, drop_image_per=per, drop_image=0.2, noise_image=0.5)
    image, kinds = torch.full((8, 16, 3, 3), 5.0), []
    for seed in range(200):
        seen = disturbed(image, recipe, CosineSchedule(), torch.Generator().manual_seed(seed))
        kinds.append(["zero" if not x.any() else "kept" if torch.equal(x, image[0]) else "noised" for x in seen])
    assert all(len(set(batch)) == 1 for batch in kinds) == (per == "batch")
    every = [kind for batch in kinds for kind in batch]
    for kind, share in (("zero", 0.2), ("noised", 0.8 * 0.5), ("kept", 0.8 * 0.5)):
        assert every.count(kind) / len(every) == pytest.approx(share, abs=0.08), kind


@pytest.mark.parametrize("per", ["sample", "batch"])
def test_text_is_dropped_for_a_sample_or_for_a_batch(per):
    recipe = dataclasses.replace(TINY.recipes["c"], drop_text_per=per, drop_text=0.3)
    chosen = dataclasses.replace(TINY, recipes=TINY.recipes | {"c": recipe})
    task = DIFFUSION_TASKS["c"](chosen, "c", Inputs.dummy(chosen, 4), 0)
    null = task.places[-1]
    task.places = torch.cat([task.places[:-1].clone().fill_(1), null[None] * 0 + 2])  # captions are 1, the empty one 2
    dropped = torch.stack(
        [task.text(torch.arange(8) % 2, torch.Generator().manual_seed(seed))[:, 0] == 2 for seed in range(300)]
    )
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.07)
    assert bool((dropped == dropped[:, :1]).all()) == (per == "batch")


def test_training_refuses_a_name_that_it_does_not_know(study, tmp_path):
    for key in ("drop_text_per", "drop_image_per"):
        with pytest.raises(SystemExit, match=f"stage b: {key}: 'pair' is not known; use one of sample, batch"):
            train.main(
                ["--stage", "b", "--preset", "tiny", "--data", str(study / "data"), "--latents",
                 str(study / "latents"), "--seed", "0", "--set", f"{key}=pair", "--out", str(tmp_path)]
            )  # fmt: skip


# Loss weight, latent scaling.


def test_p2_of_paper_and_code_weigh_a_loss_differently():
    losses = []
    for weight in ("p2-paper", "p2-code"):
        recipe = dataclasses.replace(TINY.recipes["c"], loss_weight=weight)
        chosen = dataclasses.replace(TINY, recipes=TINY.recipes | {"c": recipe})
        torch.manual_seed(0)
        task = DIFFUSION_TASKS["c"](chosen, "c", Inputs.dummy(chosen, 4), 0)
        random = torch.Generator().manual_seed(0)
        losses.append(task.losses(task.modules, torch.zeros(256, dtype=torch.long), random, 0)["loss"].item())
    # untrained, what is noised (here -1) is its own prediction: the error is sqrt(ab) + (1 - sqrt(1 - ab)) noise
    alpha_bar = CosineSchedule().alpha_bar(torch.linspace(0.0005, 0.9995, 1000))
    error = alpha_bar + (1 - (1 - alpha_bar).sqrt()).square()
    for loss, weight in zip(losses, (p2_paper, p2_code), strict=True):
        assert loss == pytest.approx((weight(alpha_bar) * error).mean().item(), rel=0.2)
    assert losses[1] > 1.2 * losses[0]


def test_latents_without_scaling_are_what_the_compressor_gives():
    x = torch.randn(2, 16, 3, 3)
    assert torch.equal(scale_latents(x, latent_scaling("none", {})), x)
    assert torch.allclose(scale_latents(x, latent_scaling("released", {})), (x + 1) / 42)


# What Stage B starts from, and its guidance.


def test_tokens_to_start_from_are_entries_of_the_codebook_and_depend_on_the_image_alone():
    codebook = torch.randn(64, 4)
    drawn = ImageNoise(0, ["a", "b"], "stage-b").tokens(codebook, (8, 8))
    assert drawn.shape == (2, 4, 8, 8)
    same = (drawn.permute(0, 2, 3, 1).reshape(-1, 1, 4) == codebook).all(-1)
    assert same.any(1).all() and same.any(0).sum() > 30
    assert torch.equal(ImageNoise(0, ["b"], "stage-b").tokens(codebook, (8, 8))[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[1])


def test_sampling_starts_from_the_codebook_where_it_is_given():
    net, seen = unet("sigmoid"), []
    net.embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    codebook = torch.randn(64, 4)
    for book in (None, codebook):
        sample_stage_b(
            net, CosineSchedule(), (4, 32, 32), torch.zeros(1, 16, 3, 3), torch.zeros(1, 5, 384),
            torch.zeros(1, 5, 384), ["a"], 0, 2, 1.0, book,
        )  # fmt: skip
    assert torch.equal(seen[2], ImageNoise(0, ["a"], "stage-b").tokens(codebook, (32, 32)))
    assert torch.equal(seen[0], ImageNoise(0, ["a"], "stage-b")((1, 4, 32, 32)))


def test_guidance_of_stage_b_needs_a_second_prediction_without_conditions():
    net, seen = unet("sigmoid"), []
    net.embedding.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    image, text = torch.randn(2, 16, 3, 3), torch.randn(2, 5, 384)
    for guidance in (1.0, 4.0):
        sample_stage_b(net, CosineSchedule(), (4, 32, 32), image, text, text[:1], ["a", "b"], 0, 1, guidance)
    assert seen == [2, 4]


def test_a_trained_model_starts_stage_b_as_its_preset_says(study, trained, tmp_path):
    """The start is kept with Stage B's weights."""
    files = {stage: weights.load(trained / "train" / stage / "model.safetensors") for stage in "abc"}
    assert files["b"][1]["start"] == "noise"
    pictures = []
    for start in ("noise", "codebook"):
        for stage, (tensors, metadata) in files.items():
            about = metadata | ({"start": start} if stage == "b" else {})
            weights.save(tmp_path / start / stage / "model.safetensors", tensors, about)
        model = Wuerstchen(tmp_path / start, compiled=False)
        pictures.append(model.generate(["a thing"], ["p"], 0, steps_c=2, guidance_c=1.0, steps_b=2, guidance_b=1.0))
    assert (pictures[0] != pictures[1]).any()
    chosen = dataclasses.replace(TINY, sampling=preset("paper").sampling)
    task = make_task("b", chosen, study / "data", study / "latents", 0)
    assert task.metadata(task.modules)["start"] == "codebook"
