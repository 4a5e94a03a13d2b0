"""The embedded miniature Stable Diffusion: real diffusers and transformers classes, small sizes, 64 x 64 px."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

IMAGE_SIZE = 64  # px
WIDTH = 128  # of both towers and of the UNet's cross-attention
MAX_TOKENS = 20  # of a caption, start and end included
LATENT_CHANNELS = 16
LATENT_SIZE = 16
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(captions: list[str], vocab_size: int = 1600) -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's format, learned from the captions; the same captions give the same tokenizer.

    CLIP's last letter of a word carries ``</w>``. The trainer numbers such letters in another order every time it is
    run, so they are learned as single private characters and renamed afterwards.
    """
    import json
    import re

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789'-.,")
    last = {letter: chr(0xE000 + ord(letter)) for letter in alphabet}
    words = [re.findall(r"\w+|[^\w\s]+", caption.lower()) for caption in sorted(set(captions))]
    marked = [" ".join(word[:-1] + last.get(word[-1], word[-1]) for word in line) for line in words]
    learner = Tokenizer(models.BPE(unk_token=END))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=alphabet + list(last.values()),
        special_tokens=[START, END],
        show_progress=False,
    )
    learner.train_from_iterator(marked, trainer)
    back = str.maketrans({private: f"{letter}</w>" for letter, private in last.items()})
    model = json.loads(learner.to_str())["model"]
    vocab = {token.translate(back): number for token, number in model["vocab"].items()}
    return make_tokenizer(vocab, [(first.translate(back), second.translate(back)) for first, second in model["merges"]])


def make_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    """A `CLIPTokenizer` from its tables (transformers 5 takes ``vocab=``/``merges=``, not file names)."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS, pad_token=END)


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """The `mini` backbone: ViT, patch 8 (64 patches + CLS), 8 blocks of width 128."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=IMAGE_SIZE,
            patch_size=8,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=8,
            num_attention_heads=4,
            projection_dim=WIDTH,
        )
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """The text tower of the pair, and the text encoder of the generator."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae() -> AutoencoderKL:
    """64 x 64 x 3 to 16 x 16 x 16 latents."""
    from diffusers import AutoencoderKL

    channels = (32, 64, 128)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=16,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """Denoiser of 16 x 16 latents, cross-attention at 8 x 8 and 4 x 4."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=2 * LATENT_CHANNELS,  # noisy latents, then those of the sketch
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128, 192),
        time_embedding_dim=512,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # the number of heads, under its historical name
        norm_num_groups=16,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """v-prediction; trailing steps, so that few-step sampling starts from pure noise."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )


def tables_of(tokenizer: CLIPTokenizer) -> tuple[dict[str, int], list[list[str]]]:
    """Vocabulary and merges of a tokenizer, as `make_tokenizer` takes them."""
    import json

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in model["merges"]]
    return dict(model["vocab"]), merges
