"""Write a GGUF file that llama.cpp runs: a llama of two layers with random weights and a small vocabulary.

What it says is nonsense, but it is a real model to a real server: a tokenizer, a KV cache, sampling,
a context that can be too short. Runs in the environment of `make test-live`, which has ``gguf`` and
``numpy``: ``python tiny_model.py <file>``. The same file each time. Format: the GGUF specification
(ggml/docs/gguf.md) and llama.cpp's names for tensors of the architecture ``llama``.
"""

import itertools
import sys

import gguf
import numpy as np

LAYERS = 2
WIDTH = 64
HIDDEN = 128
HEADS = 4
CONTEXT = 4096

CONTROL = ("<unk>", "<s>", "</s>")
SYLLABLES = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
WORDS = ["▁", *(f"▁{s}" for s in SYLLABLES), *SYLLABLES, "、", "你", "好", "é", "🙂"]

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def write(path: str) -> None:
    """Write the model to ``path``."""
    tokens = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * len(WORDS)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(CONTROL) + [0.0] * 256 + [-float(n) for n in range(len(WORDS))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)

    chance = np.random.default_rng(1)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, chance.normal(0, 0.3, shape).astype(np.float32))

    def add_norm(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, np.float32))

    output = chance.normal(0, 0.3, (len(tokens), WIDTH)).astype(np.float32)
    output[: len(CONTROL) + 256] = 0.0  # words are said, bytes seldom
    add("token_embd.weight", len(tokens), WIDTH)
    writer.add_tensor("output.weight", output)
    add_norm("output_norm.weight")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm.weight")
        add_norm(f"{block}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{name}.weight", WIDTH, WIDTH)
        add(f"{block}.ffn_gate.weight", HIDDEN, WIDTH)
        add(f"{block}.ffn_up.weight", HIDDEN, WIDTH)
        add(f"{block}.ffn_down.weight", WIDTH, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1])
