"""Train the demo model from nothing and write it as a Hugging Face checkpoint.

    python tools/demo/train.py --out DIR

Generates the corpus, trains the tokenizer, trains the model on one GPU (a few minutes), prints the held-out
perplexity of every source and writes the checkpoint and `report.json`. Seed and data order are fixed.
"""

import argparse
import itertools
import json
import math
import os
import platform
import time
from pathlib import Path

import corpus
import dataset
import numpy as np
import tokenizer as tokenizer_file
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

SEED = 20
ROW_LEN = 1024
LONG_ROW_LEN = 2048  # of every LONG_EVERY-th step, so that every position is seen
LONG_EVERY = 8
ROW_TOKENS = 65_536  # per step, whatever the row length
PEAK_LR = 3e-3
WARMUP = 300
CONTEXT_WEIGHT = 0.1  # of tokens that the model need not write: system prompts and questions


def config(vocab_size: int) -> LlamaConfig:
    """Return the architecture: 2.5 million parameters, every width a multiple of 32."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=LONG_ROW_LEN,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.03,
    )


def learning_rate(step: int, n_steps: int) -> float:
    """Warm up linearly, then follow a cosine to a hundredth of the peak."""
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    progress = (step - WARMUP) / max(1, n_steps - WARMUP)
    return PEAK_LR * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def token_losses(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    """Return the loss of predicting rows[:, 1:]; rows: (n_rows, len + 1), result: float32 (n_rows * len,)."""
    hidden = model.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
    logits = F.linear(hidden, model.get_input_embeddings().weight).float()
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, tokens: dataset.Tokens, device: str, max_docs: int = 400) -> float:
    """Return the perplexity per answer token of up to `max_docs` held-out documents, each read alone."""
    ends = np.append(tokens.starts[1:], len(tokens.ids))
    total = count = 0.0
    for start, end in itertools.islice(zip(tokens.starts, ends, strict=True), max_docs):
        end = min(end, start + LONG_ROW_LEN)
        row = torch.from_numpy(tokens.ids[start:end].astype(np.int64)).to(device)[None]
        learnt = torch.from_numpy(tokens.learnt[start + 1 : end]).to(device)
        total += float((token_losses(model, row) * learnt).sum())
        count += float(learnt.sum())
    return math.exp(total / count)


def train(
    model: LlamaForCausalLM, tokens: dataset.Tokens, n_steps: int, device: str, *, compiled: bool, row_tokens: int
) -> None:
    """Train for `n_steps` on rows that begin at random documents."""
    ids = torch.from_numpy(tokens.ids.astype(np.int32)).to(device)
    weights = torch.from_numpy(np.where(tokens.learnt, 1.0, CONTEXT_WEIGHT).astype(np.float32)).to(device)
    starts = torch.from_numpy(tokens.starts[tokens.starts < len(tokens.ids) - LONG_ROW_LEN - 1]).to(device)
    generator = torch.Generator(device=device).manual_seed(SEED)

    def weighted_loss(rows: Tensor, weight: Tensor) -> Tensor:
        return (token_losses(model, rows) * weight.flatten()).sum() / weight.sum()

    loss_of = torch.compile(weighted_loss, dynamic=False) if compiled else weighted_loss
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    norms = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95), fused=device == "cuda")
    began = time.perf_counter()
    for step in range(n_steps):
        row_len = LONG_ROW_LEN if step % LONG_EVERY == 0 else ROW_LEN
        chosen = torch.randint(len(starts), (row_tokens // row_len,), generator=generator, device=device)
        places = starts[chosen][:, None] + torch.arange(row_len + 1, device=device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, n_steps)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = loss_of(ids[places].long(), weights[places[:, 1:]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 400 == 1 or step == n_steps - 1:
            print(f"step {step:6d}  loss {loss.detach().item():.4f}  {time.perf_counter() - began:6.1f} s", flush=True)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write weights in bfloat16, config.json with the classic rope keys, generation_config.json."""
    model.to(torch.bfloat16).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written.pop("_name_or_path", None)
    written |= {
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": "bfloat16",
        "rope_theta": 10000.0,
        "rope_scaling": None,
    }
    written["eos_token_id"] = [2, 0]
    (folder / "config.json").write_text(json.dumps(dict(sorted(written.items())), indent=2) + "\n")
    GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.9, bos_token_id=0, eos_token_id=[2, 0], pad_token_id=0
    ).save_pretrained(folder)


def main() -> None:
    """Parse the command line and run every stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=corpus.N_SHARDS)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the corpus to generate (for tests)")
    parser.add_argument("--row-tokens", type=int, default=ROW_TOKENS)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    began = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")

    sample = (text for _, text, _ in corpus.shard(SEED, 0, scale=min(args.scale, 0.3)))
    tokenizer = tokenizer_file.train(sample)
    tokenizer_file.save(tokenizer, args.out)
    print(f"tokenizer: {tokenizer.get_vocab_size()} tokens, {time.perf_counter() - began:.0f} s", flush=True)
    parts = dataset.build(
        args.out / "tokenizer.json", SEED, n_workers=os.cpu_count() or 1, n_shards=args.shards, scale=args.scale
    )
    tokens = parts.pop("train")
    print(
        f"corpus: {len(tokens.starts):,} documents, {len(tokens.ids):,} tokens, "
        f"{tokens.learnt.mean():.0%} learnt fully, {time.perf_counter() - began:.0f} s",
        flush=True,
    )

    model = LlamaForCausalLM(config(tokenizer.get_vocab_size())).to(device)
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f"model: {n_parameters:,} parameters", flush=True)
    train(model, tokens, args.steps, device, compiled=not args.no_compile, row_tokens=args.row_tokens)
    save(model, args.out)
    # What is reported is what ships: the weights after rounding to bfloat16, computed in float32.
    model.float().eval()
    torch.set_float32_matmul_precision("highest")
    report = {
        "parameters": n_parameters,
        "documents": len(tokens.starts),
        "tokens": len(tokens.ids),
        "steps": args.steps,
        "row_tokens": args.row_tokens,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "perplexity": {name: round(perplexity(model, part, device), 3) for name, part in parts.items()},
    }
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    print(f"done in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
