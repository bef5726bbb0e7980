"""Between the compressor's latents and those that Stage C works on."""

import torch
from torch import Tensor


def latent_scaling(name: str, measured: dict) -> dict:
    """Offset and scale per channel of Stage C's targets, (x + offset) / scale.

    "none" leaves what the compressor's normalisation gives, as the paper says; "released" is the released code's
    (x + 1) / 42; "unit" standardises each channel by the `mean` and `std` measured over the training pictures.

    Raises ValueError for another name, or where a channel is constant.
    """
    if name == "none":
        return {"name": name, "offset": [0.0], "scale": [1.0]}
    if name == "released":
        return {"name": name, "offset": [1.0], "scale": [42.0]}
    if name == "unit":
        if min(measured["std"]) < 1e-3:
            raise ValueError(
                f"a channel of the compressor's latents is constant (standard deviations {measured['std']}): Stage B's"
                " training has collapsed; train it again with a lower learning rate"
            )
        return {"name": name, "offset": [-m for m in measured["mean"]], "scale": measured["std"]}
    raise ValueError(f"latent_scaling: {name!r}; use none, unit or released")


def scale_latents(x: Tensor, scaling: dict) -> Tensor:
    """Compressor latents (n, c, h, w) to Stage C's scale."""
    offset, scale = (torch.tensor(scaling[key]).view(-1, 1, 1).to(x.device) for key in ("offset", "scale"))
    return (x + offset) / scale


def unscale_latents(x: Tensor, scaling: dict) -> Tensor:
    """The inverse of `scale_latents`."""
    offset, scale = (torch.tensor(scaling[key]).view(-1, 1, 1).to(x.device) for key in ("offset", "scale"))
    return x * scale - offset
