"""Protocols of FID by name: all that a value depends on besides the model, recorded with the value.

"FID on COCO-30K" names no one number: Stable Diffusion alone is quoted with 8.59 to 25.40. Captions, reference, crop
and resize all differ between papers. A protocol fixes each; `digest` is that of all of them, and goes into a score's
JSON. FIDs of different protocols are never ranked together: see `evaluation.comparability`.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from evaluation.features import Preparation
from evaluation.resizes import parse

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC, "box": Image.Resampling.BOX}
CROPS = ("centre-square", "none")
REFERENCES = ("all", "matched")


@dataclass(frozen=True)
class Protocol:
    """How pictures become a Frechet Inception distance.

    Raises ValueError naming the field for a choice that is not known.
    """

    id: str
    captions: str
    """The caption list by its name."""
    captions_sha256: str | None
    """The list's digest; None until a study says which list it has (`of_captions`)."""
    one_caption_per_image: bool
    reference: str
    """Real pictures: "all" of the data set (40,504 in COCO val2014), or those "matched" to the captions."""
    crop: str
    """"centre-square" (of the short side's length) or "none" before the filter."""
    filter: str
    """To `size`: "lanczos", "bicubic" or "box", all antialiased; "none" leaves the size."""
    size: int
    quantise: bool
    """Whether pictures are rounded to 8 bits after the filter, as files are."""
    preprocessing: str
    """Resize before the network, a name of evaluation.resizes."""
    extractor: str
    codec: str
    """Format of the generated pictures' files: "png", or a lossy one with its quality, such as "jpeg-90"."""

    def __post_init__(self) -> None:
        for field, known in (("crop", CROPS), ("filter", (*FILTERS, "none")), ("reference", REFERENCES)):
            if getattr(self, field) not in known:
                raise ValueError(f"protocol {self.id}: {field} is {getattr(self, field)!r}, not {' or '.join(known)}")
        parse(self.preprocessing)

    def digest(self) -> str:
        """SHA-256 of all choices but the name."""
        choices = {key: value for key, value in asdict(self).items() if key != "id"}
        return hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()

    def of_captions(self, sha256: str) -> "Protocol":
        """The protocol with the digest of a caption list. Raises ValueError where it has that of another list."""
        if self.captions_sha256 not in (None, sha256):
            raise ValueError(
                f"protocol {self.id} is for the captions {self.captions} of sha256 {self.captions_sha256}, not {sha256}"
            )
        return replace(self, captions_sha256=sha256)

    @property
    def preparation(self) -> str:
        """The name of crop and filter, such as "centre-square-lanczos-256"; see `preparation`."""
        if self.filter == "none":
            return self.crop
        return f"{self.crop}-{self.filter}-{self.size}" + ("" if self.quantise else "-float")

    @property
    def features_preprocessing(self) -> str:
        """What the key of features says that were extracted as the protocol has it."""
        nothing = self.preparation == "none"
        return self.preprocessing if nothing else f"{self.preparation}/{self.preprocessing}"

    def record(self) -> dict[str, Any]:
        """What a score's JSON says of its protocol."""
        choices = {key: value for key, value in asdict(self).items() if key != "id"}
        return {"protocol": self.id, "protocol_sha256": self.digest(), "protocol_choices": choices}


# Lists and references as far as the sources say: the authors' code has no evaluation, and the paper names no tool.
CLEAN = Protocol(
    # GigaGAN's evaluation (Kang et al. 2023): all of val2014, clean-fid's "clean"
    id="coco30k-clean", captions="coco-30k", captions_sha256=None, one_caption_per_image=True, reference="all",
    crop="centre-square", filter="lanczos", size=256, quantise=True, preprocessing="pil-float-299",
    extractor="inception", codec="png",
)  # fmt: skip
PROTOCOLS = {
    protocol.id: protocol
    for protocol in (
        CLEAN,
        # the best guess for the paper, whose authors use pytorch-fid elsewhere
        replace(CLEAN, id="coco30k-pytorch-fid", filter="bicubic", preprocessing="torch-299"),
        # as for Stable Diffusion: against the pictures of the 30,000 captions
        replace(
            CLEAN, id="coco30k-torch-fidelity", filter="bicubic", preprocessing="tf1-299", reference="matched",
            one_caption_per_image=False,
        ),
    )
}  # fmt: skip
DEFAULT = CLEAN.id


def find(name: str) -> Protocol:
    """The protocol of that name. Raises ValueError for an unknown one."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def prepared(picture: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Crop and filter a picture, uint8 RGB (height, width, 3), as the protocol says.

    Returns (size, size, 3), uint8, or float32 in 0..255 where the protocol does not round; with the filter "none",
    the crop alone.
    """
    if protocol.crop == "centre-square":
        height, width = picture.shape[:2]
        side = min(height, width)
        # Python rounds halves to even, and so does torchvision's centre crop, in which most take theirs
        top, left = round((height - side) / 2), round((width - side) / 2)
        picture = picture[top : top + side, left : left + side]
    if protocol.filter == "none":
        return picture if protocol.quantise else picture.astype(np.float32)
    size, resample = (protocol.size, protocol.size), FILTERS[protocol.filter]
    if protocol.quantise:
        return np.asarray(Image.fromarray(picture).resize(size, resample))
    planes = [Image.fromarray(picture[:, :, c].astype(np.float32)).resize(size, resample) for c in range(3)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2).clip(0, 255)


PREPARATION = re.compile(rf"({'|'.join(CROPS)})(?:-({'|'.join(FILTERS)})-([1-9][0-9]*)(-float)?)?")


def preparation(name: str) -> Preparation | None:
    """The crop and filter of that name: CROP, CROP-FILTER-SIZE or, not rounded to 8 bits, CROP-FILTER-SIZE-float.

    None for "none". Raises ValueError for another name.
    """
    match = PREPARATION.fullmatch(name)
    if not match:
        raise ValueError(
            f"preparation {name!r} is not known; it is one of {', '.join(CROPS)}, or one of these with a filter "
            f"({', '.join(FILTERS)}) and a size, such as {CLEAN.preparation}"
        )
    if name == "none":
        return None
    crop, filter_, size, unrounded = match.groups()
    like = replace(CLEAN, crop=crop, filter=filter_ or "none", size=int(size or CLEAN.size), quantise=not unrounded)
    return Preparation(name, lambda picture: prepared(picture, like))
