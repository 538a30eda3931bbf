"""Checkpoints: good ones of every layout, and every way in which one can be broken."""

import json
import logging
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

import tiny
from rvllm._native.device import Device
from rvllm.errors import ModelError
from rvllm.plan.fusion import fuse
from rvllm.weights import check_checkpoint, open_checkpoint, pack_checkpoint, pack_dummy


@pytest.fixture
def plan(tmp_path):
    return tiny.trace_variant("llama", tmp_path)


@pytest.fixture
def arrays(plan):
    return tiny.random_checkpoint(plan)


def load(plan, directory):
    tensors = open_checkpoint(str(directory))
    check_checkpoint(plan, tensors, str(directory))
    return tensors


def write_raw(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def test_single_file_several_files_and_index(plan, arrays, tmp_path):
    names = list(arrays)
    halves = [{n: arrays[n] for n in names[::2]}, {n: arrays[n] for n in names[1::2]}]
    for layout in ("single", "several", "indexed"):
        directory = tmp_path / layout
        directory.mkdir()
        if layout == "single":
            save_file(arrays, directory / "model.safetensors", {"format": "pt"})
        else:
            for i, half in enumerate(halves):
                save_file(half, directory / f"model-0000{i}.safetensors")
        if layout == "indexed":
            where = {n: f"model-0000{i}.safetensors" for i, half in enumerate(halves) for n in half}
            (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        tensors = load(plan, directory)
        assert set(tensors) == set(arrays)
        for name, t in tensors.items():
            assert t.mapped[t.start : t.end] == arrays[name].tobytes()


@pytest.mark.parametrize("fused", [False, True])
def test_packed_weights_are_the_stored_ones(plan, arrays, tmp_path, fused):
    if fused:
        fuse(plan)
    save_file(arrays, tmp_path / "model.safetensors")
    bound = tiny.bind(plan)
    calls = []
    pack_checkpoint(plan, bound, load(plan, tmp_path), lambda *a: calls.append(a))
    for index, w in enumerate(plan.weights()):
        want = w.constant if w.constant is not None else np.concatenate([arrays[n] for n, _ in w.sources])
        np.testing.assert_array_equal(bound.unpack(index), want.reshape(w.n, w.k))
    assert calls[-1] == (sum(a.nbytes for a in arrays.values()),) * 2
    assert calls == sorted(calls)


def test_large_weights_are_packed_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("rvllm.weights._CHUNK_BYTES", 1000)
    plan = tiny.trace_variant("qwen2", tmp_path)
    arrays = tiny.random_checkpoint(plan)
    save_file(arrays, tmp_path / "model.safetensors")
    fuse(plan)
    bound = tiny.bind(plan)
    pack_checkpoint(plan, bound, load(plan, tmp_path))
    for index, w in enumerate(plan.weights()):
        if w.sources:
            want = np.concatenate([arrays[n] for n, _ in w.sources])
            np.testing.assert_array_equal(bound.unpack(index), want.reshape(w.n, w.k))


def test_missing_weight(plan, arrays, tmp_path):
    del arrays["model.layers.1.mlp.up_proj.weight"]
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"weight model\.layers\.1\.mlp\.up_proj\.weight is in none"):
        load(plan, tmp_path)
    del arrays["model.norm.weight"]
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"\(and 1 more\) is in none of its safetensors files"):
        load(plan, tmp_path)


def test_wrong_shape_names_weight_file_and_both_shapes(plan, arrays, tmp_path):
    arrays["model.layers.0.self_attn.k_proj.weight"] = np.zeros((64, 64), np.float32)
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as e:
        load(plan, tmp_path)
    assert "model.safetensors: weight model.layers.0.self_attn.k_proj.weight has shape [64, 64]" in str(e.value)
    assert "asks for [32, 64]" in str(e.value)


def test_wrong_dtype(plan, arrays, tmp_path):
    arrays["model.norm.weight"] = np.ones(64, np.int8)
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"weight model\.norm\.weight is I8; supported are F32, F16, BF16"):
        load(plan, tmp_path)


def test_surplus_weights_are_listed_but_known_ones_are_not(plan, arrays, tmp_path, caplog):
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    arrays["visual.patch"] = np.ones(3, np.float32)
    save_file(arrays, tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING, logger="rvllm"):
        load(plan, tmp_path)
    assert "1 weights are not used: visual.patch" in caplog.text


def test_surplus_weight_of_a_known_module_is_refused(plan, arrays, tmp_path):
    arrays["model.layers.0.self_attn.q_proj.bias"] = np.ones(64, np.float32)
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"weight model\.layers\.0\.self_attn\.q_proj\.bias has no place in the model"):
        load(plan, tmp_path)


def test_truncated_file(plan, arrays, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(arrays, path)
    data = path.read_bytes()
    for size in (len(data) - 1, len(data) // 2):
        path.write_bytes(data[:size])
        with pytest.raises(ModelError, match=rf"is truncated: tensor .* but the file has {size} bytes"):
            load(plan, tmp_path)
    for size in (3, 8, 100):
        path.write_bytes(data[:size])
        with pytest.raises(ModelError, match="is not a safetensors file, or is truncated within its header"):
            load(plan, tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="is empty"):
        load(plan, tmp_path)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "entry",
    [
        5,
        {},
        ENTRY | {"dtype": "F31"},
        ENTRY | {"dtype": ["F32"]},
        ENTRY | {"shape": [3]},
        ENTRY | {"shape": [-2]},
        ENTRY | {"shape": "2"},
        ENTRY | {"data_offsets": [8, 0]},
        ENTRY | {"data_offsets": [0]},
        ENTRY | {"data_offsets": [0.0, 8.0]},
    ],
)
def test_corrupt_entry(tmp_path, entry):
    write_raw(tmp_path / "model.safetensors", {"x": entry}, bytes(16))
    with pytest.raises(ModelError, match=r"model\.safetensors: has a corrupt header entry for tensor x"):
        open_checkpoint(str(tmp_path))


def test_corrupt_header(tmp_path):
    for header in (b"{not json", b"[]", b"\xff\xfe", b'"x"'):
        write_raw(tmp_path / "model.safetensors", header)
        with pytest.raises(ModelError, match="has a corrupt header"):
            open_checkpoint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ModelError, match="truncated within its header"):
        open_checkpoint(str(tmp_path))
    write_raw(tmp_path / "model.safetensors", {"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}}, bytes(16))
    with pytest.raises(ModelError, match="tensors a and b overlap"):
        open_checkpoint(str(tmp_path))


def test_broken_index(arrays, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "one.safetensors")
    for weight_map, words in (
        ({"a": "gone.safetensors"}, r"names gone\.safetensors, which does not exist"),
        ({"b": "one.safetensors"}, r"says that tensor b is in one\.safetensors, but it is not"),
        ({"a": "../one.safetensors"}, "is not a plain file name"),
        ({"a": 1}, "weight_map must be an object of file names"),
        (None, "weight_map must be an object of file names"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ModelError, match=words):
            open_checkpoint(str(tmp_path))


def test_no_safetensors(tmp_path):
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors file$"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, whose format is not supported"):
        open_checkpoint(str(tmp_path))


def test_same_tensor_in_two_files(tmp_path):
    for name in ("a", "b"):
        save_file({"x": np.ones(2, np.float32)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"tensor x is also in a\.safetensors"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_dummy_weights(tmp_path, dtype):
    plan = fuse(tiny.trace_variant("qwen2", tmp_path, dtype, hidden_size=256, vocab_size=5000))
    bounds = [tiny.bind(plan, tiny.sizes(dtype=dtype), Device("cpu", n)) for n in (1, 2)]
    for bound in bounds:
        pack_dummy(plan, bound)
    for index, w in enumerate(plan.weights()):
        values = bounds[0].unpack(index)
        np.testing.assert_array_equal(values, bounds[1].unpack(index))
        if w.format == "dense":
            assert abs(values.mean()) < 0.1 * w.k**-0.5
            assert 0.95 < values.std() * w.k**0.5 < 1.05
            assert len(np.unique(values[:8])) > 100
        elif w.name.endswith(".bias"):
            assert not values.any()
        elif w.constant is None:
            assert (values == 1).all()
