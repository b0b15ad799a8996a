"""Tiny configs for the architectures of causal language models that `transformers` knows."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

WINDOW = 8
POSITIONS = 256
VOCABULARY = 320

_WIDTH = ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim")
_INNER_WIDTH = (
    *("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "dff", "d_inner"),
    *("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"),
)
_LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"),
    *("num_decoder_layers", "num_mem_blocks"),
)
_HEADS = (
    *("num_attention_heads", "n_head", "n_heads", "num_heads"),
    *("decoder_attention_heads", "encoder_attention_heads"),
)
_SETTINGS = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    **dict.fromkeys(_WIDTH, 32),
    **dict.fromkeys(_INNER_WIDTH, 48),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_HEADS, 4),
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "v_head_dim": 8,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), POSITIONS),
    "sliding_window": WINDOW,
    "window_size": WINDOW,
    "local_attention": 2 * WINDOW,
    "attention_window_size": WINDOW,
    "attention_chunk_size": WINDOW,
    "index_topk": WINDOW,
    "query_pre_attn_scalar": 8,
    "state_size": 8,
    "max_window_layers": 1,
    "rotary_dim": 4,
    "initializer_range": 0.3,
    "init_std": 0.3,
    "initializer_factor": 0.3,
}
_TYPES_OF_LAYERS = ("layer_types", "layers_block_type", "mlp_layer_types")

_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": WINDOW}
# Attention over latent vectors has as many heads for keys as for queries, and heads of their rotary part.
_LATENT = {"num_key_value_heads": 4, "head_dim": 4}
_NO_SETTINGS: dict[str, Any] = {}
# Settings that an architecture needs in addition, or another way to set it up.
_FURTHER: dict[str, dict[str, Any]] = {
    "bamba": _MAMBA | {"attn_layer_indices": [1]},
    "bert": {"is_decoder": True},
    "axk1": _LATENT,
    "axk2": _LATENT,
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    },
    "deepseek_v2": _LATENT | {"num_experts_per_tok": 2},
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4": {"per_layer_config": {}},
    "gemma4_text": {"per_layer_config": {}},
    "glm4_moe_lite": _LATENT,
    "glm_moe_dsa": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": _MAMBA | {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "longcat_flash": _LATENT,
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": WINDOW},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds_dim": [8, 24],
        "axial_pos_shape": [16, 16],
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "youtu": _LATENT,
    "zamba2": {"n_mamba_heads": 4, "mamba_headdim": 16},
}
# The same architectures in other ways that their configs offer.
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert, both directions": ("bert", {"is_decoder": False}),
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "falcon, old decoder": ("falcon", {"alibi": True, "new_decoder_architecture": False}),
    "gpt_neo, global": ("gpt_neo", {"attention_types": [[["global"], 2]]}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "qwen2, window": ("qwen2", {"use_sliding_window": True}),
    "llama, dynamic RoPE": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "dynamic",
                "factor": 4.0,
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "phi3, LongRoPE": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 16,
            },
            "original_max_position_embeddings": 16,
        },
    ),
}


def list_architectures() -> list[str]:
    """List the architectures of the installed release, and further variants of some of them."""
    return [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *_VARIANTS]


def make_config(architecture: str) -> Any:
    """Make a tiny config for an architecture out of its default config.

    Raises:
        Exception: the config's class refuses it, by any error.
    """
    model_type, further = _VARIANTS.get(architecture, (architecture, _NO_SETTINGS))
    config_class: Any = CONFIG_MAPPING[model_type]
    default = config_class()
    text: Any = default.get_text_config()
    settings = _shrink(text) | _FURTHER.get(model_type, _NO_SETTINGS) | further
    if text is default:
        return config_class(**settings)
    (name,) = (name for name, value in vars(default).items() if value is text)
    small_text = type(text)(**settings)
    return config_class(**{name: small_text, "tie_word_embeddings": False})


def _shrink(default: Any) -> dict[str, Any]:
    """Return small values for the settings that a default config has."""
    values = default.to_dict()
    names = values.keys() | getattr(default, "attribute_map", {}).keys()
    settings: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    # With tied embeddings a random model mostly repeats its last token.
    settings["tie_word_embeddings"] = False
    for name, small in _SETTINGS.items():
        if name in names and (values.get(name) is not None or name not in values):
            settings[name] = small
    types = {
        name: list(dict.fromkeys(values[name])) for name in _TYPES_OF_LAYERS if values.get(name)
    }
    layers = max(2, *map(len, types.values())) if types else 2
    for name, distinct in types.items():
        settings[name] = distinct + distinct[-1:] * (layers - len(distinct))
    for name in settings.keys() & set(_LAYERS):
        settings[name] = layers
    return settings
