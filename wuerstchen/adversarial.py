"""A small DF-GAN at work: trained from scratch by its own objective (Tao et al. 2022), then drawing.

It differs from the authors' in its size; in its text encoder, the study's, whose sentences are standardised, since all
captions share words; in the range of its pixels; and in that both networks make their steps together: the generator
learns from the discriminator as it was before the step.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.data import load_index, load_pictures
from wuerstchen.deep_fusion import NOISE
from wuerstchen.df_gan import DFGan, Discriminator, matching_aware_penalty, sentences_of, truncated_normal
from wuerstchen.execution import autocast
from wuerstchen.inputs import mean_words, read_rows
from wuerstchen.precompute import images
from wuerstchen.presets import Preset, TextConfig, from_dict
from wuerstchen.sampling import to_uint8
from wuerstchen.seeds import generator
from wuerstchen.tasks import Losses, Task
from wuerstchen.text import text_encoder

# Black in the networks' pixels, whose white is 0. Most of an emoji is white; with white at 1 the generator runs into
# tanh's end before it has drawn anything, since brightness is all that counts at first, and gets no gradient any more.
BLACK = -0.8


class DFGanTask(Task):
    """Hinge losses on real, drawn and mismatched pairs of picture and sentence, and the matching-aware penalty."""

    columns = ("loss", "discriminator", "real", "fake", "mismatched", "penalty")

    def __init__(self, preset: Preset, data: Path, seed: int):
        self.recipe, self.seed = preset.recipes["df-gan"], seed
        self.adversary_rate = self.recipe.discriminator_rate
        config, c_text = preset.df_gan, preset.text.dimensions
        self.config = {"width": config.width, "size": preset.image_size, "c_text": c_text}
        self.modules = nn.ModuleDict({"df_gan": DFGan(**self.config)})
        self.discriminator = Discriminator(config.discriminator_width, preset.image_size, c_text)
        rows = load_index(data)
        pictures = torch.from_numpy(load_pictures(data, rows))
        tokens, _ = read_rows(data / "tokens.safetensors", rows)
        texts = [tokens["captions"], tokens["descriptions"]]
        self.words = mean_words(*(text.any(-1) for text in texts), self.recipe.long_captions)
        train, validation = (torch.tensor([row["split"] == split for row in rows]) for split in ("train", "validation"))
        self.pictures = pictures[train]
        short = sentences_of(texts[0][train])
        self.measured = {"mean": short.mean(0).tolist(), "std": short.std(0).clamp(min=1e-3).tolist()}
        self.short, self.long = (standardised(sentences_of(text[train]), self.measured) for text in texts)
        held_out = texts[0][validation][: 4 * self.recipe.batch_size]
        self.held_out = standardised(sentences_of(held_out), self.measured)
        self.n = len(self.pictures)

    def adversary(self) -> nn.Module:
        return self.discriminator

    def judged(self, pictures: Tensor, sentences: Tensor) -> Tensor:
        """The discriminator's number for each pair, float32 (n,)."""
        return self.discriminator.judge(self.discriminator.features(pictures), sentences).float()

    def losses(self, modules: nn.ModuleDict, rows: Tensor, random: torch.Generator, step: int) -> Losses:
        long = torch.rand(len(rows), 1, generator=random) < self.recipe.long_captions
        sentences = torch.where(long, self.long[rows], self.short[rows])
        noise = torch.randn(len(rows), NOISE, generator=random)
        return self.of_batch(modules, BLACK * (1 - images(self.pictures[rows])), sentences, noise)

    def of_batch(self, modules: nn.ModuleDict, real: Tensor, sentences: Tensor, noise: Tensor) -> Losses:
        """Losses of real pictures (n, 3, size, size) with their sentences, and of what is drawn for these."""
        recipe, discriminator = self.recipe, self.discriminator
        fake = modules["df_gan"](noise, sentences)
        discriminator.requires_grad_(False)  # the generator's loss leaves no gradients there
        loss = -self.judged(fake, sentences).mean()
        discriminator.requires_grad_(True)

        # copies, since torch's FLOP counter cannot follow a gradient that ends at a leaf
        real, own = (x.detach().requires_grad_().clone() for x in (real, sentences))
        features = discriminator.features(real)
        on_real = discriminator.judge(features, own).float()
        parts = {
            "real": (1 - on_real).relu().mean(),
            "fake": (1 + self.judged(fake.detach(), sentences)).relu().mean(),
            "mismatched": (1 + discriminator.judge(features.roll(-1, 0), sentences).float()).relu().mean(),
            "penalty": matching_aware_penalty(on_real, real, own, recipe.penalty_weight, recipe.penalty_power),
        }
        whole = parts["real"] + (parts["fake"] + parts["mismatched"]) / 2 + parts["penalty"]
        return {"loss": loss, "discriminator": whole, **parts}

    def validation_loss(self, modules: nn.ModuleDict) -> float:
        """The generator's loss on held-out captions under the discriminator as it is: it says who is ahead, no more."""
        random = generator(self.seed, "validation")
        noise = torch.randn(len(self.held_out), NOISE, generator=random)
        pairs = zip(noise.split(16), self.held_out.split(16), strict=True)
        judged = [self.judged(modules["df_gan"](some, sentences), sentences) for some, sentences in pairs]
        return -torch.cat(judged).mean().item()

    def metadata(self, modules: nn.ModuleDict) -> dict:
        return {"df_gan": self.config, "black": BLACK, "sentences": self.measured}


def standardised(sentences: Tensor, measured: dict[str, list[float]]) -> Tensor:
    """Sentences (n, d) with the mean and deviation that were measured of each dimension taken out."""
    mean, std = (torch.tensor(measured[key]) for key in ("mean", "std"))
    return (sentences - mean) / std


class DFGanPictures:
    """Text to pictures with a generator from train/df-gan, on a CPU in the precision of its training, else in fp32."""

    compiled = False

    def __init__(self, folder: str | Path, device: str = "cpu"):
        self.files = [Path(folder) / "df-gan" / "model.safetensors"]
        metadata = weights.metadata(self.files[0])
        self.black, self.measured = metadata["black"], metadata["sentences"]
        self.device, self.image_size = torch.device(device), metadata["image_size"]
        self.precision = metadata["precision"] if device == "cpu" else "fp32"
        self.encoder = text_encoder(from_dict(TextConfig, metadata["text"]))
        self.network = DFGan(**metadata["df_gan"]).to(self.device, memory_format=torch.channels_last)
        self.load(self.files[0])

    def load(self, path: Path) -> int:
        """Draw with another generator of the same shape from now on, trained as far as the steps returned."""
        tensors, metadata = weights.load(path)
        weights.load_module(self.network, tensors, "df_gan.", path)
        self.files = [path]
        return metadata["steps"]

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], ids: Sequence[str], seed: int) -> np.ndarray:
        """Pictures, uint8 (n, h, w, 3); the noise of each depends on the seed and its id alone."""
        sentences = standardised(sentences_of(self.encoder.encode(prompts)), self.measured)
        noise = torch.stack([truncated_normal(seed, name) for name in ids])
        noise, sentences = noise.to(self.device), sentences.to(self.device)
        with autocast(self.precision):
            return to_uint8(1 - self.network(noise, sentences).float() / self.black)
