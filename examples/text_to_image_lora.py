"""A LoRA of a text-to-image model, trained in your own loop, and what it owes to which image.

    python examples/text_to_image_lora.py out/lora

A loop as in diffusers' train_text_to_image_lora.py, on scikit-learn's digits with captions, and a
tiny Stable Diffusion with random weights in place of a downloaded one. Lines for retrac are marked
with #: the ledger decides timesteps, noises and the luck of latents. Checkpoints are saved as that
script saves them. Afterwards the LoRA is adopted, and scores replay what training did, exactly.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import tiny_models
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import retrac

EPOCHS, EVERY, BATCH, SEED, RESOLUTION = 6, 3, 16, 0, 16
ADAPTED = ["to_k", "to_q", "to_v", "to_out.0"]
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def write_images(folder: Path, count: int) -> None:
    """Digits in colour and their captions, in the layout of Hugging Face's image folders."""
    folder.mkdir(parents=True, exist_ok=True)
    digits, rows = load_digits(), []
    for index in range(count):
        grey = (digits.images[index] * 255 / 16).round().astype(np.uint8)
        image = Image.fromarray(grey).resize((RESOLUTION, RESOLUTION)).convert("RGB")
        image.save(folder / f"{index:04d}.png")
        rows.append({"file_name": f"{index:04d}.png", "text": WORDS[digits.target[index]]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def train(accelerator: Accelerator, base: Path, data: Path, output: Path) -> None:
    """Train a LoRA on a folder of images with captions; saves it after every third epoch."""
    torch.manual_seed(SEED)
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    unet, vae, text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
    for part in (unet, vae, text_encoder):
        part.requires_grad_(False).to(accelerator.device)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=ADAPTED))
    lora = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(lora, lr=1e-2)
    scheduler = DDPMScheduler.from_pretrained(base, subfolder="scheduler")

    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    images = [np.asarray(Image.open(data / row["file_name"])) for row in rows]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    tokens = pipeline.tokenizer(
        [row["text"] for row in rows], padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    if (processes := accelerator.num_processes) > 1 and len(rows) % (BATCH * processes):
        sys.exit(  # accelerate would show some samples twice, to make batches even
            f"with {processes} processes, --samples must be a multiple of {BATCH * processes}"
        )
    dataset = TensorDataset(torch.arange(len(rows)), pixels, tokens)
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, loader)
    ledger = retrac.Ledger(SEED, len(rows), scheduler.config.num_train_timesteps)  #
    for epoch in range(EPOCHS):
        for index, clean, token in loader:
            posterior = vae.encode(clean).latent_dist
            luck = ledger.posterior(epoch, index, posterior.mean.shape[1:])  #
            latents = (posterior.mean + posterior.std * luck.to(clean.device)) * (
                vae.config.scaling_factor
            )
            timesteps, noise, _ = ledger.events(epoch, index, latents.shape[1:])  #
            timesteps, noise = timesteps.to(clean.device), noise.to(clean.device)  #
            noisy = scheduler.add_noise(latents, noise, timesteps)
            told = text_encoder(token)[0]
            loss = torch.nn.functional.mse_loss(unet(noisy, timesteps, told).sample, noise)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if (epoch + 1) % EVERY == 0 and accelerator.is_main_process:
            layers = get_peft_model_state_dict(accelerator.unwrap_model(unet))
            folder = output / f"checkpoint-{epoch + 1}"
            StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)


def main() -> None:
    """Train, adopt, attribute, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    given = parser.parse_args()
    base, data = given.output / "base", given.output / "images"
    accelerator = Accelerator()
    if accelerator.is_main_process:
        write_images(data, given.samples)
        tiny_models.save("Stable Diffusion", base)
    accelerator.wait_for_everyone()
    train(accelerator, base, data, given.output)
    if not accelerator.is_main_process:
        return  # another process goes on

    after = range(EVERY, EPOCHS + 1, EVERY)
    config = retrac.AdoptConfig(
        pipeline=base,
        weights=tuple(given.output / f"checkpoint-{epoch}" for epoch in after),
        data=retrac.DatasetConfig(dataset=str(data)),
        epochs=tuple(after),
        seed=SEED,
    )
    run = retrac.adopt(config, given.output / "run")
    queries = retrac.QueryConfig("generated:2", query_labels=("three", "seven"), query_guidance=2.0)
    result = retrac.attribute(run, retrac.open_queries(run, queries), replay="all")
    print(f"report: {retrac.write_report(result, given.output / 'report.html')}")


if __name__ == "__main__":
    main()
