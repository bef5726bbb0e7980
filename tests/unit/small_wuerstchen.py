"""A Würstchen in small with random weights, as diffusers saves it."""

from pathlib import Path

import small_clip
import torch
from diffusers import DDPMWuerstchenScheduler, WuerstchenCombinedPipeline
from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel, WuerstchenDiffNeXt, WuerstchenPrior


def randomised(net: torch.nn.Module) -> torch.nn.Module:
    """Random values everywhere, statistics of batch norms too."""
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.05 * torch.randn_like(tensor) + (tensor > 0.5) * 1.0)
    return net.eval().requires_grad_(False)


def modules() -> dict[str, torch.nn.Module]:
    """Networks of diffusers by stage, and transformers' text encoders by the prefix of their folders."""
    torch.manual_seed(0)
    nets = {
        "stage-a": PaellaVQModel(bottleneck_blocks=2, embed_dim=16, num_vq_embeddings=32, scale_factor=0.43),
        "stage-b": WuerstchenDiffNeXt(
            c_hidden=[8, 16, 32, 32],
            nhead=[-1, 2, 4, 4],
            blocks=[1, 2, 3, 1],
            c_cond=24,
            clip_embd=32,
        ),
        "stage-c": WuerstchenPrior(c=32, c_cond=40, depth=2, nhead=4),
    }
    text = {"": small_clip.model(32, 2, 4, seed=1), "prior_": small_clip.model(40, 3, 5, seed=2)}
    return {name: randomised(net) for name, net in nets.items()} | text


def save(nets: dict[str, torch.nn.Module], folder: Path) -> None:
    """Write the whole pipeline into a folder."""
    tokenizer = small_clip.tokenizer()
    WuerstchenCombinedPipeline(
        tokenizer=tokenizer,
        text_encoder=nets[""],
        decoder=nets["stage-b"],
        scheduler=DDPMWuerstchenScheduler(),
        vqgan=nets["stage-a"],
        prior_tokenizer=tokenizer,
        prior_text_encoder=nets["prior_"],
        prior_prior=nets["stage-c"],
        prior_scheduler=DDPMWuerstchenScheduler(),
    ).save_pretrained(folder)
