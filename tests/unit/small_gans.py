"""The official files of DF-GAN and GALIP in small, with the tensors of `filled`."""

import pickle
from pathlib import Path

import torch
from filled import fill

from evaluation.generators import df_gan, galip

WORDS = ["<end>", "a", "red", "bus", "two", "dogs", "run", "dog"]
VOCABULARY = {word: number for number, word in enumerate(WORDS)}


def filled(kind: type, *args: int) -> torch.nn.Module:
    network = kind(*args).eval().requires_grad_(False)
    network.load_state_dict(fill(network.state_dict()))
    return network


def write_df_gan(folder: Path) -> None:
    """The three official files in small, with the prefix of several GPUs before the generator's names."""
    generator = {f"module.{name}": tensor for name, tensor in fill(df_gan.DFGan(4).state_dict()).items()}
    models = {"model": {"netG": generator, "netD": {}, "netC": {}}, "optimizers": {"optimizer_G": {}}, "epoch": 290}
    torch.save(models, folder / "state_epoch_290.pth")
    torch.save(fill(df_gan.SentenceEncoder(len(WORDS), 300).state_dict()), folder / "text_encoder100.pth")
    captions = [[[1, 2, 3]], [[4, 5, 6]], dict(enumerate(WORDS)), VOCABULARY]
    (folder / "captions_DAMSM.pickle").write_bytes(pickle.dumps(captions, protocol=2))


def write_galip(folder: Path) -> galip.Galip:
    """The official file in small: GALIP's own sizes but for the widths and CLIP's depth."""
    network = filled(galip.Galip, 4, 64, 9)
    torch.save({"model": {"netG": network.state_dict(), "netD": {}, "netC": {}}}, folder / "pre_cc12m.pth")
    return network
