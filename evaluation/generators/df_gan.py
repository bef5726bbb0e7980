"""DF-GAN (Tao et al. 2022) from its official files: generator, DAMSM's text encoder and the words that this knows.

What the authors' own sampling does is done here: all words of a prompt that are known, noise from a normal distribution
that is cut at two deviations and multiplied by 0.86. Only the noise's seeds differ: here each picture has its own.
"""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.generators import Settings, check_settings
from evaluation.generators.batched import Batched, best_device
from wuerstchen import weights
from wuerstchen.assets import ASSETS, locate
from wuerstchen.deep_fusion import read_generator, unwrapped, width_of
from wuerstchen.df_gan import SENTENCE, TRUNCATION, DFGan, truncated_normal
from wuerstchen.sampling import to_uint8

FILES = ("df-gan/generator", "df-gan/text-encoder", "df-gan/vocabulary")  # assets
END = 0  # the word that ends a sentence; the text encoder is given it only where there is no other


class SentenceEncoder(nn.Module):
    """DAMSM's (Xu et al. 2018, AttnGAN): both last states, forwards and backwards, of an LSTM over words."""

    def __init__(self, words: int, width: int):
        super().__init__()
        self.encoder = nn.Embedding(words, width)
        self.rnn = nn.LSTM(width, SENTENCE // 2, batch_first=True, bidirectional=True)

    def forward(self, words: Sequence[Sequence[int]]) -> Tensor:
        """Sentences of word numbers, each of one word or more, to (n, 256)."""
        device = self.encoder.weight.device
        # one at a time: no sentence is filled up to another's length
        states = [self.rnn(self.encoder(torch.tensor([sentence], device=device)))[1][0] for sentence in words]
        return torch.cat([state.transpose(0, 1).flatten(1) for state in states])


class _Plain(pickle.Unpickler):
    """Reads numbers, text and containers; anything else would be code."""

    def find_class(self, module: str, name: str) -> type:
        raise pickle.UnpicklingError(f"it has a {module}.{name}, and only text and numbers are read")


def read_vocabulary(path: Path) -> dict[str, int]:
    """Numbers of the words: the fourth part of the captions' pickle. Raises ValueError naming the file."""
    try:
        with open(path, "rb") as file:
            vocabulary = _Plain(file).load()[3]
        if not all(isinstance(word, str) and isinstance(number, int) for word, number in vocabulary.items()):
            raise TypeError("its fourth part should give a number to each word")
    except Exception as error:  # a damaged pickle fails in a dozen ways
        raise ValueError(f"{path}: not DAMSM's captions and words ({error})") from None
    return vocabulary


def words_of(prompt: str, vocabulary: dict[str, int]) -> list[int]:
    """Numbers of a prompt's known words, as the authors cut it up."""
    words = re.findall(r"\w+", prompt.replace("\ufffd\ufffd", " ").lower())
    plain = [word.encode("ascii", "ignore").decode() for word in words]
    return [vocabulary[word] for word in plain if word in vocabulary]


def load_generator(path: Path, device: str = "cpu") -> DFGan:
    """From an official checkpoint, whose width it has. Raises ValueError that names what does not fit."""
    tensors = read_generator(path)
    with torch.device("meta"):
        network = DFGan(width_of(tensors, path))
    return weights.assign(network, tensors, path, torch.float32, device)


def load_encoder(path: Path, device: str = "cpu") -> SentenceEncoder:
    """From an official checkpoint. Raises ValueError that names what does not fit."""
    tensors = unwrapped(weights.read(path))
    if "encoder.weight" not in tensors:
        raise ValueError(f"{path}: tensor encoder.weight is missing")
    network = SentenceEncoder(*tensors["encoder.weight"].shape)
    weights.compare(network, tensors, path)
    network.load_state_dict(tensors)
    return network.to(device).requires_grad_(False).eval()


class DFGanGenerator(Batched):
    """DF-GAN, 256x256. folder: where its three files lie under their own names; None: where the assets are."""

    batch_size = 16

    def __init__(self, folder: Path | None, settings: Settings, device: str | None = None):
        super().__init__()
        check_settings(settings, {})
        self.device = device or best_device()
        self.files = [folder / Path(ASSETS[name].source.path).name if folder else locate(name) for name in FILES]
        self.network = load_generator(self.files[0], self.device)
        self.encoder = load_encoder(self.files[1], self.device)
        self.vocabulary = read_vocabulary(self.files[2])
        known = self.encoder.encoder.num_embeddings
        if max(self.vocabulary.values(), default=0) >= known:
            raise ValueError(f"{self.files[2]}: {len(self.vocabulary)} words, but {self.files[1]} knows {known}")
        self.wordless: list[str] = []

    def generate(self, prompts: Sequence[dict], seed: int) -> list[np.ndarray]:
        """One image per prompt; `describe` names the prompts of which no word is known."""
        self.wordless = [p["id"] for p in prompts if not words_of(p["prompt"], self.vocabulary)]
        return super().generate(prompts, seed)

    @torch.inference_mode()
    def batch(self, prompts: list[dict], seed: int) -> np.ndarray:
        sentences = self.encoder([words_of(p["prompt"], self.vocabulary) or [END] for p in prompts])
        noise = torch.stack([truncated_normal(seed, p["id"]) for p in prompts]).to(self.device)
        return to_uint8((self.network(noise, sentences) + 1) / 2)

    def describe(self) -> dict:
        return {
            "sampler": None,
            "guidance": None,
            "truncation": TRUNCATION,
            "weights_sha256": weights.digest(*self.files),
            "precision": "float32",
            "without_known_words": self.wordless,
        }
