"""Tracing, the arena, binding, and the text of plans (golden, one per architecture).

`python tests/test_plan.py` rewrites the golden texts.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from rvllm import loader
from rvllm._native.device import Device, Limits
from rvllm._native.plan import NativePlan
from rvllm.engine_config import EngineConfig
from rvllm.errors import ConfigError
from rvllm.models import read_model_config, trace
from rvllm.plan.fusion import fuse
from rvllm.plan.graph import OPS, Graph, Node, Tensor, check_node
from rvllm.plan.show import plan_lines

# Which output may take over the bytes of which input.
IN_PLACE = {"add": (0, 0), "mul": (0, 0), "silu": (0, 0), "add_rms_norm": (1, 1)}


def test_every_op_has_a_builder_or_is_fused(tmp_path):
    traced = {n.op for v in tiny.VARIANTS for n in tiny.trace_variant(v, tmp_path).ops}
    fused = {n.op for v in tiny.VARIANTS for n in fuse(tiny.trace_variant(v, tmp_path)).ops}
    assert traced == {op for op in OPS if hasattr(Graph, op)}
    assert traced | fused == set(OPS)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_traced_ops_are_in_order_and_well_formed(tmp_path, variant):
    for plan in (tiny.trace_variant(variant, tmp_path), fuse(tiny.trace_variant(variant, tmp_path))):
        made = {t.buffer for t in plan.inputs}
        for n in plan.ops:
            check_node(n)
            assert all(t.buffer in made for t in n.inputs), n.op
            made.update(t.buffer for t in n.outputs)
        assert plan.logits.buffer in made
        assert (plan.logits.rows, plan.logits.cols) == ("rows", 160)


def test_column_views():
    x = Graph("f32")._new("x", "tokens", 10)
    assert x[:, 2:6].name == "x[2:6]"
    assert x[:, 2:6][:, 1:3] == x[:, 3:5]
    assert x[:, :].name == "x"
    for bad in ((slice(0, 1), slice(None)), (slice(None), slice(4, 4)), (slice(None), slice(0, 8, 2))):
        with pytest.raises(ValueError):
            x[bad]


def test_builders_check_shapes_and_operands():
    g = Graph("f32")
    x, y = g._new("x", "tokens", 8), g._new("y", "tokens", 4)
    with pytest.raises(ValueError, match=r"sum: operands differ: x \[tokens, 8\] f32, y \[tokens, 4\] f32"):
        g.add(x, y, name="sum")
    with pytest.raises(ValueError, match=r"head is \[5, 8\], not \[6, 8\]"):
        g.linear(x, g.dense("head", 5, 8), 6, name="y")
    with pytest.raises(ValueError, match="add lacks its input b"):
        check_node(Node("add", (x,), (), (x,), {}))
    with pytest.raises(ValueError, match="silu takes 1 inputs, not 2"):
        check_node(Node("silu", (x, x), (), (x,), {}))
    with pytest.raises(ValueError, match=r"rms_norm has attributes \[\], ops\.def says \['eps'\]"):
        check_node(Node("rms_norm", (x,), (g.vector("w", 8),), (x,), {}))
    with pytest.raises(ValueError, match=r"conv is not in ops\.def"):
        check_node(Node("conv", (x,), (), (x,), {}))


# ---- the arena ----


def check_arena(plan, limits: Limits) -> int:
    """Replay who owns which bytes: nobody may read a buffer that another has written over."""
    native = NativePlan(plan)
    total, offsets = native.arena(limits)
    sizes = native.buffer_bytes(limits)
    buffers = plan.buffers()
    where = {b: (offsets[i], sizes[i]) for i, b in enumerate(buffers) if b.source == "arena"}
    owner = np.full(total // 64, -1)

    def span(b) -> slice:
        offset, size = where[b]
        assert offset % 64 == 0
        assert offset + size <= total
        return slice(offset // 64, (offset + size) // 64)

    for n in plan.ops:
        reads = [t.buffer for t in n.inputs if t.buffer in where]
        for b in reads:
            assert (owner[span(b)] == buffers.index(b)).all(), (n.op, b.name)
        written = np.zeros(len(owner), bool)
        for o, t in enumerate(n.outputs):
            for i, b in enumerate(reads):
                overlap = max(span(b).start, span(t.buffer).start) < min(span(b).stop, span(t.buffer).stop)
                assert not overlap or (IN_PLACE.get(n.op) == (i, o) and where[b] == where[t.buffer]), n.op
            assert not written[span(t.buffer)].any()
            written[span(t.buffer)] = True
            owner[span(t.buffer)] = buffers.index(t.buffer)
    assert (owner[span(plan.logits.buffer)] == buffers.index(plan.logits.buffer)).all()
    return total


@st.composite
def random_plans(draw):
    """Straight-line plans over a few widths, with long-lived values, views and fused ops among the readers."""
    g = Graph("f32")
    alive = {8: [g._new("x", "tokens", 8)], 40: []}
    g.plan.ops.append(Node("embed", (g.token_ids,), (g.dense("table", 5, 8),), (alive[8][0],), {}))
    for i in range(draw(st.integers(1, 25))):
        width = draw(st.sampled_from([w for w in alive if alive[w]]))
        pick = st.sampled_from(alive[width])
        a, b = draw(pick), draw(pick)
        kind = draw(st.sampled_from(["add", "mul", "silu", "linear", "half", "add_rms_norm"]))
        if kind in ("add", "mul"):
            new = [getattr(g, kind)(a, b, name=f"v{i}")]
        elif kind == "silu":
            new = [g.silu(a, name=f"v{i}")]
        elif kind == "linear":
            new = [g.linear(a, f"w{i}", draw(st.sampled_from([8, 40])), name=f"v{i}")]
        elif kind == "half":
            new = [g.linear(a[:, : width // 2], f"w{i}", width, name=f"v{i}")]
        else:
            new = [g._like(f"v{i}", a), g._like(f"s{i}", a)]
            g.plan.ops.append(Node(kind, (a, b), (g.vector(f"w{i}", width),), tuple(new), {"eps": 1e-5}))
        for t in new:
            alive[t.cols].append(t)
    g.plan.logits = new[0]
    return g.plan


@settings(max_examples=150, deadline=None)
@given(random_plans(), st.integers(1, 70))
def test_no_live_buffer_is_written_over(plan, n_tokens):
    check_arena(plan, Limits(n_tokens, 4, 4, 16))


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_arena_of_models_is_a_layer_not_a_model(tmp_path, variant):
    """The arena does not grow with the number of layers, and stays near the largest op's operands."""
    limits = Limits(64, 8, 8, 64)
    plan = fuse(tiny.trace_variant(variant, tmp_path, vocab_size=16))
    total = check_arena(plan, limits)
    assert total == check_arena(fuse(tiny.trace_variant(variant, tmp_path, vocab_size=16, num_hidden_layers=9)), limits)
    sizes = dict(zip(plan.buffers(), NativePlan(plan).buffer_bytes(limits), strict=True))

    def operands(n: Node) -> set:
        return {t.buffer for t in (*n.inputs, *n.outputs) if t.buffer.source == "arena"}

    rope, residual = 64 * 32 * 4, 64 * 64 * 4
    assert total <= max(sum(sizes[b] for b in operands(n)) for n in plan.ops) + rope + residual


# ---- kernels and binding ----


def test_missing_kernels_are_all_listed(tmp_path, monkeypatch):
    class Native:
        def __init__(self, plan):
            self.plan = plan

        def kernels(self, device, kv_dtype):
            return [None if n.op in ("linear", "attention") else "k" for n in self.plan.ops]

        def refusals(self, device, kv_dtype):
            return ["attention needs more than there is"]

    monkeypatch.setattr(loader, "NativePlan", Native)
    model = tiny.write_config(tmp_path, tiny.VARIANTS["qwen2"])
    with pytest.raises(ConfigError) as e:
        loader.plan_text(EngineConfig(model=model))
    text = str(e.value)
    assert text.startswith("device cpu has no kernel for: attention (f32 [64], cache f32, n_kv_heads 2, head_dim 16,")
    assert "linear (f32 [96], dense f32 [64, 96])" in text
    assert text.count("attention (") == 1
    assert text.endswith(". Attention needs more than there is")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"device": "cuda"}, "device cuda (is not available: |has no kernel for: )"),  # the latter where there is one
        ({"dtype": "int8"}, "--dtype must be auto, float32, float16, bfloat16, not int8"),
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype must be auto, float32, float16, bfloat16, not fp8"),
        ({"threads": 0}, "--threads must be 1 to 1024, not 0"),
        ({"threads": 1025}, "--threads must be 1 to 1024, not 1025"),
        ({"load_format": "gguf"}, "--load-format must be auto, safetensors or dummy, not gguf"),
    ],
)
def test_flags_that_cannot_be_obeyed(tmp_path, flags, words):
    model = tiny.write_config(tmp_path, tiny.LLAMA)
    with pytest.raises(ConfigError, match=words):
        loader.load(EngineConfig(model=model, **({"load_format": "dummy"} | flags)))


def test_forward_refuses_what_does_not_fit(tmp_path):
    bound = tiny.bind(tiny.trace_variant("llama", tmp_path), tiny.sizes(max_num_batched_tokens=4, max_rows=2))
    one = np.zeros(1, np.int32)
    ends = np.array([0, 1], np.int32)
    with pytest.raises(ValueError, match="larger than the limits"):
        bound.forward(np.zeros(5, np.int32), one, one, ends, one + 1, ends, one, one)
    with pytest.raises(ValueError, match="do not fit together"):
        bound.forward(one, np.zeros(2, np.int32), one, ends, one + 1, ends, one, one)


# ---- text ----

MODELS = {
    "llama-3.2-1b": {
        "architectures": ["LlamaForCausalLM"],
        "head_dim": 64,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 128256,
    },
    "qwen2.5-0.5b": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 24,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "qwen3-0.6b": {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": 128,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": 151936,
    },
}
GOLDEN = Path(__file__).parent / "golden"
PRINT_PLAN = "import sys; from rvllm.engine_config import *; from rvllm.loader import *; " + (
    "print(plan_text(EngineConfig(model=sys.argv[1], num_blocks=2048, memory=8 << 30, threads=2)), end='')"
)


def text_of(name: str, directory: Path) -> str:
    """Print a plan in a process of its own, whose kernels are those of every machine; mask what the machine decides."""
    model = tiny.write_config(directory / name, MODELS[name])
    env = tiny.environment(RVLLM_ISA="generic")
    run = subprocess.run([sys.executable, "-c", PRINT_PLAN, model], env=env, capture_output=True, text=True, check=True)
    return re.sub(r"(?m)^  (process|total) .*$", r"  \1", run.stdout)


@pytest.mark.parametrize("name", MODELS)
def test_plan_text_is_golden(name, tmp_path):
    assert text_of(name, tmp_path) == (GOLDEN / f"{name}.txt").read_text()


def test_repeated_layers_are_folded_and_nothing_else(tmp_path):
    """Every op of the plan is either printed or in a folded layer."""
    config = read_model_config(tiny.write_config(tmp_path, tiny.LLAMA | {"num_hidden_layers": 7}))
    plan = fuse(trace(config, "f32"))
    lines = plan_lines(plan, ["k"] * len(plan.ops), Device("cpu", 1))
    printed = sum(line.split()[0].isdigit() for line in lines)
    per_layer = sum(n.layer == 1 for n in plan.ops)
    assert "layers 2..5 as layer 1" in "\n".join(lines)
    assert printed + 4 * per_layer == len(plan.ops)


def test_tensor_names():
    x = Graph("f32")._new("x", "rows", 4)
    assert (x.name, Tensor(x.buffer, 1, 2).name) == ("x", "x[1:3]")


if __name__ == "__main__":
    for golden in MODELS:
        with tempfile.TemporaryDirectory() as d:
            GOLDEN.joinpath(f"{golden}.txt").write_text(text_of(golden, Path(d)))
            print(json.dumps({"wrote": f"{golden}.txt"}))
