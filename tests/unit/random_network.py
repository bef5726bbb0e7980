"""An extractor that needs no weights and takes a millisecond."""

import numpy as np

from evaluation.extractors import preprocess


class RandomNetwork:
    """An extractor with one layer of seeded random filters on 8x8 blocks."""

    name, sha256 = "random", "0" * 64

    def __init__(self):
        self.filters = np.random.default_rng(0).normal(size=(192, 24)).astype(np.float32) / 60

    def __call__(self, pictures, preprocessing):
        pixels = preprocess(pictures, preprocessing).permute(0, 2, 3, 1).numpy() / 127.5 - 1
        blocks = pixels.reshape(-1, 16, 8, 16, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(len(pixels), 256, 192)
        features = np.tanh(blocks @ self.filters).clip(0).mean(axis=1)
        return features, features
