"""Each architecture against transformers, on tiny random checkpoints: logits of any mix of chunks, greedy tokens.

Our activations are float32 on the CPU, so the reference is transformers in float32 on the same (rounded) weights. Only
the bfloat16 instructions round the activations of a product.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rvllm._native.opcall import isa_in_use  # noqa: E402
from rvllm.engine_config import EngineConfig  # noqa: E402
from rvllm.loader import load, plan_text  # noqa: E402
from rvllm.models import read_model_config  # noqa: E402

N_TOKENS = 60
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

ROUNDS = isa_in_use() == "avx512_bf16"
TOLERANCE = {"float32": 2e-5, "bfloat16": 5e-2 if ROUNDS else 2e-5, "float16": 2e-5}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return (directory, float32 reference model on the stored weights) of a variant, made once."""
    made = {}

    def checkpoint(variant: str, dtype: str = "float32"):
        if (variant, dtype) not in made:
            directory = tmp_path_factory.mktemp(variant)
            config = tiny.VARIANTS[variant]
            settings = {k: v for k, v in config.items() if k not in ("architectures", "dtype")}
            architecture = config["architectures"][0].removesuffix("ForCausalLM")
            torch.manual_seed(7)
            model = getattr(transformers, f"{architecture}ForCausalLM")(
                getattr(transformers, f"{architecture}Config")(**settings)
            )
            with torch.no_grad():
                for name, p in model.named_parameters():
                    spread = 0.2 if p.dim() == 1 else 1.5 * p.shape[1] ** -0.5
                    p.normal_(1.0 if name.endswith("norm.weight") else 0.0, spread)
            model.to(TORCH_DTYPES[dtype]).save_pretrained(directory)
            made[variant, dtype] = str(directory), type(model).from_pretrained(directory, dtype=torch.float32).eval()
        return made[variant, dtype]

    return checkpoint


def load_tiny(directory: str, **flags):
    config = {"num_blocks": 64, "max_num_batched_tokens": 64, "threads": 2} | flags
    return load(EngineConfig(model=directory, **config))


def reference(model, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def random_tokens(n_seqs: int, n_tokens: int = N_TOKENS, seed: int = 3) -> list[list[int]]:
    return np.random.default_rng(seed).integers(0, 160, (n_seqs, n_tokens)).tolist()


def assert_close(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    assert theirs.std() > 0.3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())
    assert np.linalg.norm(ours - theirs) < tolerance / 2 * np.linalg.norm(theirs)


CHUNKINGS = {
    "whole": [60],
    "chunks": [17, 1, 30, 12],
    "block-sized": [16, 16, 16, 12],
    "decode": [20] + [1] * 40,
}


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_logits(checkpoint, variant, dtype):
    """Prefill, chunked prefill and decode agree with transformers, and with each other bit for bit."""
    directory, model = checkpoint(variant, dtype)
    tokens = random_tokens(1)[0]
    want = reference(model, tokens)
    bound = load_tiny(directory, kv_cache_dtype="float32").plan
    results = []
    for chunking in CHUNKINGS.values():
        seqs, start, logits = tiny.Sequences(bound, 2), 0, []
        for n in chunking:
            logits += seqs.run({0: tokens[start : start + n]})
            start += n
        results.append(np.concatenate(logits))
    assert_close(results[0], want, TOLERANCE[dtype])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_mixed_batches(checkpoint, variant):
    """Prefill chunks and decodes of four sequences in one step: equal to transformers, and to running alone."""
    directory, model = checkpoint(variant)
    bound = load_tiny(directory).plan
    tokens = random_tokens(4, 30)
    done = [0] * 4
    got = [[] for _ in tokens]
    seqs = tiny.Sequences(bound, 4)
    rng = np.random.default_rng(0)
    while min(done) < 30:
        chunks = {}
        for s in rng.permutation(4)[: rng.integers(1, 5)].tolist():
            n = min(int(rng.choice([1, 1, 5, 16])), 30 - done[s])
            if n:
                chunks[s] = tokens[s][done[s] : done[s] + n]
                done[s] += n
        if chunks:
            for s, logits in zip(chunks, seqs.run(chunks), strict=True):
                got[s].append(logits)
    for s in range(4):
        alone = tiny.Sequences(bound, 1, seed=9).run({0: tokens[s]})[0]
        np.testing.assert_array_equal(np.concatenate(got[s]), alone)
        assert_close(alone, reference(model, tokens[s]), 2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", ["llama", "llama3-rope", "qwen2", "qwen3"])
def test_greedy_tokens(checkpoint, variant, dtype):
    """64 greedy tokens are those of transformers, wherever its two best logits differ by more than rounding."""
    directory, model = checkpoint(variant, dtype)
    prompt = random_tokens(1, 12)[0]
    bound = load_tiny(directory, kv_cache_dtype="float32").plan
    seqs = tiny.Sequences(bound, 1)
    ours = [int(seqs.run({0: prompt})[0][-1].argmax())]
    while len(ours) < 64:
        ours.append(int(seqs.run({0: ours[-1:]})[0][0].argmax()))
    want = reference(model, prompt + ours[:-1])[len(prompt) - 1 :]
    best = np.sort(want, axis=1)[:, -2:]
    clear = best[:, 1] - best[:, 0] > 1e-4 * np.abs(want).max()
    assert clear.sum() > 55
    np.testing.assert_array_equal(np.array(ours)[clear], want.argmax(1)[clear])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_cache(checkpoint, dtype):
    """The default cache has the weights' type; its rounding is small beside the logits."""
    directory, model = checkpoint("qwen3", dtype)
    tokens = random_tokens(1)[0]
    loaded = load_tiny(directory)
    assert loaded.sizes.kv_cache_dtype == {"bfloat16": "bf16", "float16": "f16"}[dtype]
    logits = tiny.Sequences(loaded.plan, 1).run({0: tokens})[0]
    assert_close(logits, reference(model, tokens), 5e-2)


@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512"])
def test_every_instruction_set(checkpoint, isa):
    """Each set of kernels, in a process of its own, agrees with transformers (a set the machine lacks is capped)."""
    directory, model = checkpoint("qwen3", "bfloat16")
    tokens = random_tokens(1)[0]
    code = (
        "import sys, json, numpy as np, tiny; from rvllm.loader import load; from rvllm.engine_config import *;"
        "b = load(EngineConfig(model=sys.argv[1], num_blocks=64, max_num_batched_tokens=64, kv_cache_dtype='float32'));"
        "y = tiny.Sequences(b.plan, 1).run({0: json.loads(sys.argv[2])})[0]; sys.stdout.buffer.write(y.tobytes())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, directory, json.dumps(tokens)],
        env=tiny.environment(RVLLM_ISA=isa),
        capture_output=True,
        check=True,
    )
    assert_close(np.frombuffer(run.stdout, np.float32).reshape(N_TOKENS, -1), reference(model, tokens), 2e-5)


def test_only_wanted_rows_are_computed(checkpoint):
    directory, model = checkpoint("llama")
    bound = load_tiny(directory, max_num_seqs=2, max_num_batched_tokens=64).plan
    tokens = random_tokens(1)[0]
    arrays = [tokens, range(60), range(60), [0, 60], [60], [0, 4], range(4), [59, 7]]
    logits = bound.forward(*(np.array(a, np.int32) for a in arrays))
    assert_close(logits, reference(model, tokens)[[59, 7]], 2e-5)


@pytest.mark.parametrize("variant", ["llama", "llama3-rope", "llama-linear-rope"])
def test_rope_frequencies_are_those_of_transformers(checkpoint, variant):
    directory, model = checkpoint(variant)
    config = read_model_config(directory)
    np.testing.assert_allclose(
        config.rope.inv_freq(config.head_dim), model.model.rotary_emb.inv_freq.numpy(), rtol=3e-7
    )


def test_sharded_checkpoint(checkpoint, tmp_path):
    """Shards written by transformers, and the same weights in one file, give the same logits."""
    directory, model = checkpoint("llama")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    tokens = random_tokens(1)[0]
    one, many = (tiny.Sequences(load_tiny(d).plan, 1).run({0: tokens})[0] for d in (directory, str(tmp_path)))
    np.testing.assert_array_equal(many, one)


def test_dtype_flag_converts(checkpoint):
    """--dtype bfloat16 on a float32 checkpoint rounds its matrices; vectors stay float32."""
    plain, rounded = (load_tiny(checkpoint("qwen2")[0], dtype=d).plan for d in ("float32", "bfloat16"))
    n_rounded = 0
    for i in range(plain.n_weights):
        a, b = plain.unpack(i), rounded.unpack(i)
        n_rounded += not np.array_equal(a, b)
        np.testing.assert_array_equal(b, a if a.shape[1] == 1 else torch.tensor(a).bfloat16().float().numpy())
    assert n_rounded == 2 + 4 * 3  # embedding, head, and four merged matrices in each layer


def test_loaded_model_carries_defaults(checkpoint):
    loaded = load_tiny(checkpoint("llama")[0])
    assert loaded.eos_token_ids == (2,)
    assert loaded.generation.temperature is None
    assert loaded.plan.vocab_size == loaded.model.vocab_size == 160
    assert plan_text(EngineConfig(model=checkpoint("llama")[0])).startswith("LlamaForCausalLM, ")
