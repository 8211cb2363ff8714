"""llama.cpp through llama-cpp-python's C interface: a prefix is decoded once, all queries share its cells."""

from pathlib import Path

import gguf
import llama_cpp as lib
import numpy as np
from safetensors import safe_open
from workload import serve

CONTEXT, BATCH, MAX_SEQUENCES = 4096, 2048, 64
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


class Context:
    """See :class:`benchmarks.peers.workload.Peer`; sequence 0 is the user, 1 and on are queries."""

    def __init__(self, folder: str, dtype: str, device: str) -> None:  # built for the CPU alone
        path = write_gguf(Path(folder) / "backbone", dtype)
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        options = lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = CONTEXT, BATCH, 512
        options.n_seq_max, options.kv_unified = MAX_SEQUENCES, True
        options.embeddings, options.pooling_type = True, lib.LLAMA_POOLING_TYPE_NONE
        kinds = gguf.GGMLQuantizationType  # numbered as in ggml, which the binding does not name in full
        options.type_k = options.type_v = int(kinds.F32 if dtype == "float32" else kinds.BF16)
        options.n_threads = options.n_threads_batch = 2
        self.context = lib.llama_init_from_model(self.model, options)
        self.memory = lib.llama_get_memory(self.context)
        self.width = lib.llama_model_n_embd(self.model)

    def fresh(self, users: np.ndarray, queries: np.ndarray) -> np.ndarray:
        states = []
        for user in users:
            self.keep(user)
            states.append(self.more(queries))
        return np.stack(states)

    def keep(self, user: np.ndarray) -> None:
        lib.llama_memory_clear(self.memory, True)
        self.length = len(user)
        self._decode([(int(one), place, 0) for place, one in enumerate(user)], [])

    def more(self, queries: np.ndarray) -> np.ndarray:
        tokens, wanted = [], []
        for number, query in enumerate(queries, start=1):
            lib.llama_memory_seq_cp(self.memory, 0, number, -1, -1)
            tokens += [(int(one), self.length + place, number) for place, one in enumerate(query)]
            wanted.append(len(tokens) - 1)
        states = self._decode(tokens, wanted)
        for number in range(1, len(queries) + 1):
            lib.llama_memory_seq_rm(self.memory, number, -1, -1)
        return states

    def _decode(self, tokens: list[tuple[int, int, int]], wanted: list[int]) -> np.ndarray:
        """States of the wanted tokens; a token is (id, position, sequence)."""
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens, marked = len(tokens), set(wanted)
        for row, (token, position, sequence) in enumerate(tokens):
            batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, position, 1
            batch.seq_id[row][0], batch.logits[row] = sequence, row in marked
        if lib.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode failed on {len(tokens)} tokens")
        found = [
            np.ctypeslib.as_array(lib.llama_get_embeddings_ith(self.context, row), (self.width,)).copy()
            for row in wanted
        ]
        lib.llama_batch_free(batch)
        return np.array(found)


def write_gguf(backbone: Path, dtype: str) -> Path:
    """The safetensors model as a gguf file; one that stands there already is kept."""
    import json

    path = backbone / f"{dtype}.gguf"
    if path.exists():
        return path
    shape = json.loads((backbone / "config.json").read_text())
    writer = gguf.GGUFWriter(str(path) + ".part", "qwen2")
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_rope_freq_base(shape["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_tokenizer_model("none")
    with safe_open(backbone / "model.safetensors", "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  (not a mapping)
            _add(writer, name, tensors.get_tensor(name).float().numpy(), dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(str(path) + ".part").rename(path)


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, dtype: str) -> None:
    """One tensor by llama.cpp's name; matrices in the asked type, vectors in float32."""
    plain = name.removeprefix("model.")
    if plain == "embed_tokens.weight":
        target = "token_embd.weight"
    elif plain == "norm.weight":
        target = "output_norm.weight"
    else:
        _, number, rest = plain.split(".", 2)
        part, ending = rest.rsplit(".", 1)
        target = f"blk.{number}.{NAMES[part]}.{ending}"
    if values.ndim == 2 and dtype == "bfloat16":
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(target, gguf.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(target, values)


if __name__ == "__main__":
    serve(Context)
