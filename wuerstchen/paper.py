"""The presets of the paper's size: networks and recipes of appendix E, and what the released code does instead.

paper         Stage C of 0.99B parameters, as in Table 2, with CLIP-H; all else as the paper words it
paper-text    Stage C as E.3 describes it, which makes 0.35B
released-v1   the released networks; its Stage B was another model, so it has no training recipes
released-v2   the released networks and the released code's choices, over the lengths of appendix E
"""

from dataclasses import dataclass, replace

from wuerstchen.presets import (
    CompressorConfig,
    DiffusionRecipe,
    Phase,
    Preset,
    Recipe,
    Sampling,
    StageAConfig,
    StageARecipe,
    StageCConfig,
    TextConfig,
    UNetConfig,
    ranges,
)

CLIP_H, CLIP_BIGG, CLIP_L = TextConfig("clip-h", 1024), TextConfig("clip-bigg", 1280), TextConfig("clip-l", 768)
CLIP_H_SD = TextConfig("clip-h-penultimate", 1024)  # CLIP-H as Stable Diffusion 2.1 takes it


@dataclass(frozen=True)
class BaselineReading:
    """One reading of the baseline LDM: whose first stage and text encoder it has, and its U-Net."""

    first_stage: str
    text: TextConfig
    unet: UNetConfig


def _baseline(first_stage: str, text: TextConfig) -> BaselineReading:
    unet = UNetConfig(
        heads=(5, 10, 20, 20),
        levels=("CtA",) * 4,
        down=(2, 4, 14, 4),
        up=(5, 15, 5, 3),
        c_image=0,
        inject_image=(False,) * 4,
        c_cond=text.dimensions,
        c_text=text.dimensions,
    )
    return BaselineReading(first_stage, text, unet)


# The paper contradicts itself: E.4 has the VAE of SD 1.4 and text of 768 dimensions (and calls it CLIP-H, which has
# 1024: it must be SD 1.4's CLIP-L), section 4 has first stage and text encoder of SD 2.1.
BASELINE_READINGS = {"appendix-e4": _baseline("sd-1.4", CLIP_L), "section-4": _baseline("sd-2.1", CLIP_H_SD)}


def with_baseline(preset: Preset, reading: str | None) -> Preset:
    """The preset with another of `BASELINE_READINGS`, or as it is. Raises ValueError where its baseline has none."""
    if reading is None:
        return preset
    if reading not in BASELINE_READINGS:
        raise ValueError(f"--baseline: {reading!r} is not known; use {' or '.join(BASELINE_READINGS)}")
    if preset.baseline_first_stage == "stage-a":
        raise ValueError(f"--baseline: {reading}; the baseline of preset {preset.name} works on Stage A's latents")
    said = BASELINE_READINGS[reading]
    return replace(preset, baseline_ldm=said.unet, baseline_first_stage=said.first_stage, text_baseline=said.text)


# E.2: the compressor sees 384 and 768 pixels a side.
_B = (Phase(457_000, 512, ((512, 512),)), Phase(300_000, 128, ((1024, 1024),)))
# E.3: latents of 12x12, of 24x24, of three aspect ratios, and of pictures chosen for their beauty. The final model is
# the 50:50 interpolation of what the third and the fourth give.
_C = (
    Phase(500_000, 1536, ((384, 384),)),
    Phase(364_000, 1536, ((768, 768),)),
    Phase(4_000, 768, ((768, 1280), (1280, 768), (768, 768))),
    Phase(50_000, 384, ((768, 768),), data="aesthetic"),
)


def _phased(kind: type[Recipe], *phases: Phase, **more) -> Recipe:
    return kind(steps=sum(p.steps for p in phases), batch_size=phases[0].batch_size, phases=phases, **more)


def _recipes(weight_c: str = "p2-paper", **choices) -> dict[str, Recipe]:
    """Appendix E's training; `choices` are those of the diffusion stages in which the released code differs.

    The paper has a loss weight for Stage C alone, and no warm-up for Stage A.
    """
    choices = {"long_captions": 0.0, **choices}
    return {
        "a": _phased(StageARecipe, Phase(500_000, 256, ((256, 256),)), warmup=0),
        "b": _phased(DiffusionRecipe, *_B, loss_weight="none", **choices),
        "c": _phased(DiffusionRecipe, *_C, loss_weight=weight_c, **choices),
        "baseline-ldm": _phased(DiffusionRecipe, Phase(1_500_000, 1280, ((512, 512),)), loss_weight="none", **choices),
    }


def paper_presets() -> list[Preset]:
    """The four presets of the paper's size."""
    e4 = BASELINE_READINGS["appendix-e4"]
    text = Preset(
        name="paper-text",
        image_size=1024,
        text=CLIP_H,
        stage_a=StageAConfig(),
        compressor=CompressorConfig(),
        stage_b=UNetConfig(dropout=0.0),
        stage_c=StageCConfig(dropout=0.0),
        baseline_ldm=e4.unet,
        text_baseline=e4.text,
        baseline_first_stage=e4.first_stage,
        latent_scaling="none",
        # the paper says everything but the guidance of Stage C; 4 is what the released sampler has
        sampling=Sampling(steps_c=60, guidance_c=4.0, steps_b=12, guidance_b=4.0, start_b="codebook"),
        recipes=_recipes(),
    )
    large = StageCConfig(width=1536, depth=32, heads=24, dropout=0.0)
    released = replace(
        text,
        name="released-v2",
        text=CLIP_BIGG,
        text_b=CLIP_H,
        compressor=CompressorConfig(resize="bilinear-crop"),
        stage_b=UNetConfig(),
        stage_c=replace(large, c_text=CLIP_BIGG.dimensions, dropout=0.1),
        latent_scaling="released",
        # 20 steps to t = 2/3 and 10 to 0
        sampling=Sampling(ranges((2 / 3, 20), (0.0, 10)), guidance_c=4.0, steps_b=12, guidance_b=1.0, start_b="noise"),
        recipes=_recipes("p2-code", timesteps="released", drop_text_per="batch", drop_image_per="batch"),
    )
    return [
        with_baseline(replace(text, name="paper", stage_c=large), "section-4"),
        text,
        replace(
            released,
            name="released-v1",
            text=CLIP_H,
            compressor=CompressorConfig(backbone="efficientnet_v2_l", resize="bilinear-crop"),
            stage_c=replace(large, dropout=0.1),
            sampling=Sampling(steps_c=60, guidance_c=6.0, steps_b=12, guidance_b=1.0, start_b="noise"),
            recipes={},
        ),
        released,
    ]
