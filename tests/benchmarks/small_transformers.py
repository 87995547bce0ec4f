"""Small networks of transformers, one a family, built from configurations: nothing is downloaded.

    python -m pipeline model=factory model.factory=tests/benchmarks/small_transformers.py:build \
        'model.args={family: bert}' 'model.inputs={input_ids: {shape: [1, 16], dtype: int64, ...}}'

Every network has the structure of its family and few, narrow layers. `use_cache=False`: the keys and values
of a decoder are no tensors of an ONNX file.
"""

from __future__ import annotations

from typing import Any

from torch import nn

#: Words that the embeddings know.
VOCABULARY = 512
#: Width, layers, heads and width of the feed-forward part, by the names that most families give them.
SMALL: dict[str, Any] = {
    "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192,
}  # fmt: skip


def build(family: str) -> nn.Module:
    """A network of a family with random weights, in eval mode."""
    import transformers as hf

    builders = {
        "bert": lambda: hf.BertModel(hf.BertConfig(vocab_size=VOCABULARY, **SMALL)),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=VOCABULARY, n_embd=96, n_layer=2, n_head=4, n_positions=64, use_cache=False)
        ),
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, use_cache=False, **SMALL)
        ),
        "t5_encoder": lambda: hf.T5EncoderModel(
            hf.T5Config(vocab_size=VOCABULARY, d_model=96, d_kv=24, d_ff=192, num_layers=2, num_heads=4)
        ),
        "clip_text": lambda: hf.CLIPTextModelWithProjection(
            hf.CLIPTextConfig(
                vocab_size=VOCABULARY, eos_token_id=VOCABULARY - 1, max_position_embeddings=32, projection_dim=64,
                **SMALL,
            )
        ),
        "segformer": lambda: hf.SegformerForSemanticSegmentation(
            hf.SegformerConfig(
                hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 4],
                decoder_hidden_size=64, num_labels=8,
            )
        ),
        "wav2vec2": lambda: hf.Wav2Vec2Model(
            hf.Wav2Vec2Config(
                conv_dim=[32] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **SMALL,
            )
        ),
        "whisper_encoder": lambda: hf.WhisperModel(
            hf.WhisperConfig(
                vocab_size=VOCABULARY, d_model=96, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=192, decoder_ffn_dim=192, max_source_positions=100,
                pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
            )
        ).encoder,
    }  # fmt: skip
    network: nn.Module = builders[family]()
    return network.eval()


#: Family to its inputs, as `model.inputs` takes them.
INPUTS: dict[str, str] = {
    "bert": f"{{input_ids: {{shape: [1, 16], dtype: int64, fill: {{integers: [0, {VOCABULARY}]}}, pass: keyword}}, "
    "attention_mask: {shape: [1, 16], dtype: int64, fill: {integers: [0, 2]}, pass: keyword}, "
    "token_type_ids: {shape: [1, 16], dtype: int64, fill: {integers: [0, 2]}, pass: keyword}}",
    "gpt2": f"{{input_ids: {{shape: [1, 16], dtype: int64, fill: {{integers: [0, {VOCABULARY}]}}, pass: keyword}}}}",
    "llama": f"{{input_ids: {{shape: [1, 16], dtype: int64, fill: {{integers: [0, {VOCABULARY}]}}, pass: keyword}}}}",
    "t5_encoder": f"{{input_ids: {{shape: [1, 16], dtype: int64, fill: {{integers: [0, {VOCABULARY}]}}, pass: keyword}}}}",
    "clip_text": f"{{input_ids: {{shape: [1, 16], dtype: int64, fill: {{integers: [0, {VOCABULARY}]}}, pass: keyword}}}}",
    "segformer": "{pixel_values: {shape: [1, 3, 64, 64], pass: keyword}}",
    "wav2vec2": "{input_values: {shape: [1, 4000], pass: keyword}}",
    "whisper_encoder": "{input_features: {shape: [1, 80, 200], pass: keyword}}",
}
