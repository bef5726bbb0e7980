"""Sizes: parameters of the networks, counted on networks without values, and the sides of pictures and latents."""

from evaluation import published
from evaluation.claims import Claim, figure, holds, millions
from wuerstchen.sizes import counted

PIXELS = 128  # sides are multiples of it: Stage B halves its latents three times, so Stage C's come in threes


def claims() -> list[Claim]:
    """All claims about parameters and geometry."""
    return [*parameters(), *geometry()]


def parameters() -> list[Claim]:
    """Parameters against the counts of our networks, which load the published weights."""
    count = {name: number for name, _, number in counted()}
    a, b, c, worded = count["Stage A"], count["Stage B"], count["Stage C, paper"], count["Stage C, paper-text"]
    readings = count["Baseline LDM, section-4"], count["Baseline LDM, appendix-e4"]
    both = f"{millions(readings[0])} as section 4 words it, {millions(readings[1])} as E.4 does"
    given = published.inputs()

    def one(name: str, value: float, how: str) -> Claim:
        return figure(name, value, f"Counted on {how}", millions(value))

    return [
        one("stage-a", a, "the published network: 12 blocks and 1 in the decoder, of 384 and 192 channels."),
        one(
            "stage-a-as-worded",
            count["Stage A, as E.1 words it"],
            "the network of E.1's words: 16 blocks and 1 in the decoder, all of 384 channels.",
        ),
        one("stage-b", b, "the network of E.2, which is the published one."),
        one(
            "stage-c-as-worded",
            worded,
            "the network of E.3: width 1280, 16 blocks, 16 heads; the defaults of the released class.",
        ),
        one("stage-c", c, "the network of the released training program: width 1536, 32 blocks, 24 heads."),
        one(
            "whole-model",
            a + b + c,
            f"Stages A, B and C, {millions(a)} + {millions(b)} + {millions(c)}; the printed number is Stage C's.",
        ),
        one("baseline", readings[0], f"E.4's U-Net: {both}."),
        one("baseline-table", readings[0], f"E.4's U-Net: {both}."),
        one("probe", count["Probe decoder"], "the network of appendix D, with layers that double the side."),
        *(
            one(
                f"unet-{model}",
                given[f"unet_{model.replace('-', '_').replace('.', '_')}"],
                "the U-Net of the published config, without text encoder and first stage.",
            )
            for model in ("sd-1.4", "sd-2.1", "sd-xl")
        ),
    ]


def strided(side: int, factor: int) -> int:
    """Side of a map after layers of stride 2 that make it `factor` times smaller, each rounding up."""
    while factor > 1:
        side, factor = -(-side // 2), factor // 2
    return side


def geometry() -> list[Claim]:
    """Sides of pictures, tokens and latents."""
    given = {name: int(value) for name, value in published.inputs().items()}
    image, latent, stride = given["image_side"], given["latent_side"], given["backbone_stride"]
    ratio = image / latent
    b1, b2 = given["compressor_side_b1"], given["compressor_side_b2"]
    largest, b0 = given["largest_side"], given["compressor_side_3_1"]
    allowed = largest // PIXELS * PIXELS
    same = given["image_side_b1"] / strided(b1, stride)
    five = f"Five layers of stride 2 ({stride} in all), each rounding up."
    return [
        figure("compression", ratio, f"{image} px / {latent}. Cut, not rounded.", shown=f"{ratio:.2f}:1"),
        holds(
            "compression-phase-1",
            f"{same:.2f}:1",
            same == ratio,
            f"{given['image_side_b1']} px / {strided(b1, stride)}, as {image} px / {latent}.",
            same,
        ),
        figure("tokens", image / given["stage_a_factor"], f"{image} px / f{given['stage_a_factor']}."),
        figure(
            "flattened",
            latent**2,
            f"{latent} x {latent} positions of {given['latent_channels']} channels.",
            shown=f"{latent**2} x {given['latent_channels']}",
        ),
        figure("latents-384", strided(b1, stride), five),
        figure("latents-768", strided(b2, stride), five),
        figure("latents-786", strided(b0, stride), f"{five} Appendix E and the released code have 768 px."),
        figure(
            "largest-side",
            allowed,
            f"Sides are multiples of {PIXELS} px, 3 latents. {largest} px would be {largest / ratio:.2f} latents.",
        ),
        holds(
            "probe-direction",
            f"{latent} to {latent // 16} px; upsampling: {latent} to {16 * latent} px",
            latent // 16 > latent,
            "Four layers of kernel 2 and stride 2. With upsampling layers its parameters are the printed 3.9M too.",
            latent // 16,
        ),
    ]
