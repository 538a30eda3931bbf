"""Llama 2 and 3: pre-norm decoder, rotary embedding, grouped-query attention, SwiGLU (2307.09288, 2407.21783)."""

from __future__ import annotations

from rvllm.config import Fields, ModelConfig, read_decoder
from rvllm.plan.graph import Graph, Tensor


def read_config(f: Fields) -> ModelConfig:
    f.only("pretraining_tp", 1)
    bias = f.boolean("attention_bias", False)
    return read_decoder(f, qkv_bias=bias, o_bias=bias, mlp_bias=f.boolean("mlp_bias", False))


def forward(g: Graph, c: ModelConfig) -> Tensor:
    """Trace the model over the tokens of a step; return the logits [R, vocab_size] of the wanted rows."""
    cache = g.cache_group(c.n_layers, c.n_kv_heads, c.head_dim)
    embedding = g.dense("model.embed_tokens.weight", c.vocab_size, c.hidden_size)
    h = g.embed(g.token_ids, embedding, name="h")
    rope = g.rope_table(g.positions, g.constant("inv_freq", c.rope.inv_freq(c.head_dim)), name="rope")
    for i in range(c.n_layers):
        with g.scope(f"model.layers.{i}"):
            x = g.rms_norm(h, "input_layernorm", c.rms_norm_eps, name="x")
            q = g.linear(x, "self_attn.q_proj", c.q_size, c.qkv_bias, name="q")
            k = g.linear(x, "self_attn.k_proj", c.kv_size, c.qkv_bias, name="k")
            v = g.linear(x, "self_attn.v_proj", c.kv_size, c.qkv_bias, name="v")
            q = g.rope(q, rope, c.head_dim, name="q_rope")
            k = g.rope(k, rope, c.head_dim, name="k_rope")
            g.kv_write(k, v, cache, layer=i)
            a = g.attention(q, cache, layer=i, softmax_scale=c.head_dim**-0.5, name="a")
            o = g.linear(a, "self_attn.o_proj", c.hidden_size, c.o_bias, name="o")
            h = g.add(h, o, name="h_attn")
            x = g.rms_norm(h, "post_attention_layernorm", c.rms_norm_eps, name="x_mlp")
            gate = g.linear(x, "mlp.gate_proj", c.intermediate_size, c.mlp_bias, name="gate")
            up = g.linear(x, "mlp.up_proj", c.intermediate_size, c.mlp_bias, name="up")
            act = g.mul(g.silu(gate, name="gate_silu"), up, name="act")
            down = g.linear(act, "mlp.down_proj", c.hidden_size, c.mlp_bias, name="down")
            h = g.add(h, down, name="h")
    last = g.take_rows(h, g.logit_rows, name="h_rows")
    x = g.rms_norm(last, "model.norm", c.rms_norm_eps, name="x_rows")
    head = embedding if c.tie_word_embeddings else "lm_head"
    return g.linear(x, head, c.vocab_size, name="logits")
