"""Every rewrite: which ops it leaves, and that the fused plan computes what the composition computes, bit for bit."""

from collections import Counter

import numpy as np
import pytest

import tiny
from rvllm.plan.fusion import REWRITES, fuse

PER_LAYER = {  # variant: rewrite: (ops that disappear, ops that appear) in one layer
    "llama": {
        "merged_qkv": ({"linear": 3}, {"linear": 1}),
        "linear_silu_mul": ({"linear": 2, "silu": 1, "mul": 1}, {"linear_silu_mul": 1}),
        "rope_kv_write": ({"rope": 2, "kv_write": 1}, {"rope_kv_write": 1}),
        "linear_rope_kv_write": ({"linear": 1, "rope_kv_write": 1}, {"linear_rope_kv_write": 1}),
    },
    "qwen3": {
        "rope_kv_write": ({"rope": 2, "head_norm": 2, "kv_write": 1}, {"rope_kv_write": 1}),
        "linear_rope_kv_write": ({}, {}),
    },
}
N_LAYERS = tiny.LLAMA["num_hidden_layers"]


def through(name: str):
    """Return the rewrites up to this one, in order."""
    return REWRITES[: [r.__name__ for r in REWRITES].index(name) + 1]


def kinds(plan) -> Counter:
    return Counter(n.op for n in plan.ops)


@pytest.mark.parametrize(("variant", "name"), [(v, n) for v, names in PER_LAYER.items() for n in names])
def test_ops_of_one_rewrite(tmp_path, variant, name):
    before = kinds(fuse(tiny.trace_variant(variant, tmp_path), through(name)[:-1]))
    after = kinds(fuse(tiny.trace_variant(variant, tmp_path), through(name)))
    gone, new = (Counter({k: n * N_LAYERS for k, n in c.items()}) for c in PER_LAYER[variant][name])
    assert after == before - gone + new


def test_residual_norm(tmp_path):
    """All sums but the last are followed by a norm; the last one goes through take_rows first."""
    plan = fuse(tiny.trace_variant("llama", tmp_path), through("residual_norm")[-1:])
    counts = kinds(plan)
    assert (counts["add"], counts["add_rms_norm"], counts["rms_norm"]) == (1, 2 * N_LAYERS - 1, 2)


def test_early_rows(tmp_path):
    """After the last attention every op works on wanted rows only; before it, none does."""
    plan = fuse(tiny.trace_variant("llama", tmp_path), through("early_rows")[-1:])
    last_attention = max(i for i, n in enumerate(plan.ops) if n.op == "attention")
    before, after = plan.ops[:last_attention], plan.ops[last_attention + 1 :]
    assert [n.op for n in after[:3]] == ["take_rows", "take_rows", "linear"]
    assert {n.inputs[0].name for n in after[:2]} == {"a", "h"}
    assert {t.rows for n in before for t in n.outputs} == {"tokens"}
    assert {t.rows for n in after for t in n.outputs} == {"rows"}


def test_merged_weights_and_views(tmp_path):
    plan = fuse(tiny.trace_variant("qwen2", tmp_path), through("rope_kv_write"))
    qkv = next(n for n in plan.ops if n.op == "linear")
    prefix = "model.layers.0.self_attn."
    assert qkv.weights[0].name == prefix + "qkv_proj.weight"
    assert qkv.weights[0].sources == tuple(
        (f"{prefix}{n}_proj.weight", r) for n, r in (("q", 64), ("k", 32), ("v", 32))
    )
    assert qkv.weights[1].sources == tuple((f"{prefix}{n}_proj.bias", r) for n, r in (("q", 64), ("k", 32), ("v", 32)))
    write = next(n for n in plan.ops if n.op == "rope_kv_write")
    assert [t.name for t in write.inputs[:3]] == ["qkv[0:64]", "qkv[64:96]", "qkv[96:128]"]


def run(plan, arrays) -> np.ndarray:
    """Prefill two sequences in uneven chunks, then decode both, one step after the other."""
    bound = tiny.bind(plan)
    tiny.pack(plan, bound, arrays)
    tokens = np.random.default_rng(1).integers(0, 160, (2, 40)).tolist()
    seqs = tiny.Sequences(bound, 2)
    steps = [{0: tokens[0][:19], 1: tokens[1][:7]}, {1: tokens[1][7:30], 0: tokens[0][19:20]}]
    steps += [{0: tokens[0][i : i + 1], 1: tokens[1][i + 10 : i + 11]} for i in range(20, 28)]
    logits = [seqs.run(step, last_only=i == 1) for i, step in enumerate(steps)]
    return np.concatenate([x for step in logits for x in step])


@pytest.mark.parametrize("name", [r.__name__ for r in REWRITES])
@pytest.mark.parametrize("variant", ["llama-biased", "qwen2", "qwen3"])
def test_fused_equals_composition(tmp_path, variant, name):
    plain = tiny.trace_variant(variant, tmp_path)
    arrays = tiny.random_checkpoint(plain)
    fused = fuse(tiny.trace_variant(variant, tmp_path), through(name))
    assert kinds(fused) != kinds(plain)
    want = run(plain, arrays)
    assert np.isfinite(want).all()
    assert want.std() > 0.1
    np.testing.assert_array_equal(run(fused, arrays), want)
