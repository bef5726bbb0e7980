"""Stable Diffusion's pipelines in small with random weights, saved as the published ones are."""

import json
import shutil
from pathlib import Path

import diffusers
import small_clip
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def unet(c_text: int, **more) -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=c_text,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **more,
    )


def vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def text(kind: type, width: int) -> torch.nn.Module:
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2, projection_dim=width
    )
    return kind(config).eval()


def save(model: str, folder: Path) -> diffusers.DiffusionPipeline:
    """Write a pipeline of the classes of sd-1.4, sd-2.1 or sd-xl in small into a folder; returns it."""
    torch.manual_seed(0)
    if model == "sd-xl":
        xl = unet(
            12 + 16,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=16 + 6 * 4,
            use_linear_projection=True,
        )
        pipeline = diffusers.StableDiffusionXLPipeline(
            vae(),
            text(CLIPTextModel, 12),
            text(CLIPTextModelWithProjection, 16),
            small_clip.tokenizer(),
            small_clip.tokenizer("!"),
            xl,
            diffusers.EulerDiscreteScheduler(**SCHEDULER, timestep_spacing="leading", steps_offset=1),
            add_watermarker=False,
        )
    else:
        scheduler = {
            "sd-1.4": diffusers.PNDMScheduler(**SCHEDULER, skip_prk_steps=True, steps_offset=1),
            "sd-2.1": diffusers.DDIMScheduler(
                **SCHEDULER, prediction_type="v_prediction", clip_sample=False, steps_offset=1
            ),
        }[model]
        pipeline = diffusers.StableDiffusionPipeline(
            vae(),
            text(CLIPTextModel, 12),
            small_clip.tokenizer("!" if model == "sd-2.1" else "<|endoftext|>"),
            unet(12, use_linear_projection=model == "sd-2.1"),
            scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def as_published(folder: Path) -> None:
    """Write a saved tokenizer anew as the transformers of 2022 did, and as the published pipelines have it."""
    mark = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    start, end = mark | {"content": "<|startoftext|>"}, mark | {"content": "<|endoftext|>"}
    theirs = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    shutil.rmtree(folder)
    folder.mkdir()
    merges = ["#version: 0.2", *(pair if isinstance(pair, str) else " ".join(pair) for pair in theirs["merges"])]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(theirs["vocab"]), encoding="utf-8")
    config = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(config | dict.fromkeys(["unk_token"], "<|endoftext|>")))
    more = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | more | {"tokenizer_class": "CLIPTokenizer"}))
