"""The families of language models, a row each: what sets one apart from others of its kind. Loads no torch.

How a kind is run, layer by layer, is a file in dvp/backbones; all that a member of it says of itself stands here.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from dvp.errors import UserError


@dataclass(frozen=True)
class Vocabulary:
    """What a family's texts are made of: its own file, and the tokens before and after a text.

    Of each token the name that tokenizer_config.json has for it, and how it is usually written.
    """

    file: str
    begin: tuple[str, str] | None
    end: tuple[str, str]


class Family:
    """What a row may say. A relative is a subclass of what it resembles, and says what differs."""

    kind: ClassVar[str]  # "encoder", "encoder_decoder" or "decoder": a key of KINDS in dvp/backbones
    name: ClassVar[str]  # as people write it
    architecture: ClassVar[str]  # class in transformers
    headed: ClassVar[str | None] = None  # the same with a head that writes; None where ScienceQA cannot use one
    model_options: ClassVar[dict] = {}  # further arguments of from_pretrained
    attention: ClassVar[str] = "sdpa"  # of transformers' implementations
    parts: ClassVar[dict[str, str]]  # what its kind asks for by name -> where that is in transformers' model
    first_position: ClassVar[int | None] = None  # row of a text's first token in the table of positions, if it has one
    rotary: ClassVar[str | None] = None  # rotary angles: "shared" by all layers, or "by type" of these
    adapter_sites: ClassVar[tuple[str, ...]]  # endings of the module names whose output goes through an adapter
    trained_beside_adapters: ClassVar[str]  # regular expression over parameter names
    peft_targets: ClassVar[dict[str, list[str]]] = {}  # by PEFT's method (LORA, IA3), where PEFT itself knows none
    first_norms: ClassVar[tuple[str, ...]] = ()  # endings of the names of the norms before attention
    fits_half: ClassVar[bool] = True  # whether its activations fit into fp16
    frozen_dtype: ClassVar[str] = "float32"  # of frozen weights, by default, where 16 bits are computed in
    vocabulary: ClassVar[Vocabulary]  # the tokenizer's own file and special tokens
    free_vocabulary: ClassVar[bool] = True  # whether its licence lets anyone hand the tokenizer's files on
    pad_id: ClassVar[int] = 0  # of positions that nothing attends to

    # What the tests make and expect
    tiny: ClassVar[dict[str, Any]]  # a config of 3 layers, 32 wide, with 4 heads
    tiny_tokenizer: ClassVar[str]  # the class in transformers
    adapters_per_layer: ClassVar[dict[str, int]]  # by the name of the stack of layers
    members: ClassVar[dict[str, dict[str, Any]]] = {}  # what else of its model_type holds the promises, by its config


# Encoders


class Bert(Family):
    kind, name, architecture = "encoder", "BERT", "BertModel"
    model_options = {"add_pooling_layer": False}  # the published model trains the pooler, but nothing reads it
    parts = {"layers": "encoder.layer"}
    first_position = 0
    adapter_sites = ("attention.output.dropout", "output.dropout")
    trained_beside_adapters = r"encoder\..*LayerNorm"
    vocabulary = Vocabulary("vocab.txt", begin=("cls_token", "[CLS]"), end=("sep_token", "[SEP]"))
    tiny = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    tiny_tokenizer = "BertTokenizer"
    adapters_per_layer = {"encoder.layer": 2}


class Roberta(Bert):
    name, architecture = "RoBERTa", "RobertaModel"
    first_position = 2
    vocabulary = Vocabulary("tokenizer.json", begin=("cls_token", "<s>"), end=("sep_token", "</s>"))
    pad_id = 1
    tiny = Bert.tiny | {"pad_token_id": 1, "type_vocab_size": 1}
    tiny_tokenizer = "RobertaTokenizer"


class ModernBert(Family):
    kind, name, architecture = "encoder", "ModernBERT", "ModernBertModel"
    parts = {"layers": "layers", "norm": "final_norm"}
    rotary = "by type"
    adapter_sites = ("attn.Wo", "mlp")
    trained_beside_adapters = r"attn_norm|mlp_norm|final_norm"
    peft_targets = {"LORA": ["Wqkv"], "IA3": ["Wqkv"]}
    vocabulary = Vocabulary("tokenizer.json", begin=("cls_token", "[CLS]"), end=("sep_token", "[SEP]"))
    tiny = Bert.tiny | {
        "local_attention": 8, "pad_token_id": 0, "embedding_dropout": 0.1,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    }  # fmt: skip
    tiny_tokenizer = "ModernBertTokenizer"
    adapters_per_layer = {"layers": 2}


# Encoder-decoders


class T5(Family):
    kind, name, architecture = "encoder_decoder", "T5", "T5Model"
    parts = {"layers": "decoder.block"}
    adapter_sites = ("SelfAttention.o", "EncDecAttention.o", "DenseReluDense")
    trained_beside_adapters = r"layer_norm"
    fits_half = False
    vocabulary = Vocabulary("spiece.model", begin=None, end=("eos_token", "</s>"))
    tiny = {
        "d_model": 32, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4, "d_kv": 8, "d_ff": 48,
        "decoder_start_token_id": 0,
    }  # fmt: skip
    tiny_tokenizer = "T5Tokenizer"
    adapters_per_layer = {"encoder.block": 2, "decoder.block": 3}
    members = {"Flan-T5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}}


class MT5(T5):
    name, architecture = "mT5", "MT5Model"
    members = {}


# Decoders


class Llama(Family):
    kind, name, architecture, headed = "decoder", "LLaMA", "LlamaModel", "LlamaForCausalLM"
    parts = {"tokens": "embed_tokens", "layers": "layers", "norm": "norm"}
    rotary = "shared"
    adapter_sites = ("self_attn.o_proj", "mlp")
    trained_beside_adapters = r"layernorm|[qk]_norm|^model\.norm\."
    first_norms = ("input_layernorm",)
    frozen_dtype = "bfloat16"
    vocabulary = Vocabulary("tokenizer.model", begin=("bos_token", "<s>"), end=("eos_token", "</s>"))
    free_vocabulary = False
    tiny = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    tiny_tokenizer = "LlamaTokenizer"
    adapters_per_layer = {"layers": 2}
    members = {
        "LLaMA-3": {
            "num_key_value_heads": 2, "eos_token_id": [5, 7], "pad_token_id": None, "bos_token_id": 6,
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
            },
        }
    }  # fmt: skip


class Mistral(Llama):
    name, architecture, headed = "Mistral", "MistralModel", "MistralForCausalLM"
    free_vocabulary = True
    tiny = Llama.tiny | {"num_key_value_heads": 2, "sliding_window": 5}
    members = {"Mistral without a window": {"sliding_window": None}}


class Qwen2(Llama):
    name, architecture, headed = "Qwen2", "Qwen2Model", "Qwen2ForCausalLM"
    vocabulary = Vocabulary("tokenizer.json", begin=None, end=("eos_token", "<|endoftext|>"))
    free_vocabulary = True
    tiny = Llama.tiny | {"num_key_value_heads": 2}
    tiny_tokenizer = "GPT2Tokenizer"
    members = {"Qwen2 with windows": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}}


class Qwen3(Qwen2):
    name, architecture, headed = "Qwen3", "Qwen3Model", "Qwen3ForCausalLM"
    tiny = Qwen2.tiny | {"head_dim": 12}
    members = {}


class Gemma(Llama):
    name, architecture, headed = "Gemma", "GemmaModel", "GemmaForCausalLM"
    vocabulary = Vocabulary("tokenizer.model", begin=("bos_token", "<bos>"), end=("eos_token", "<eos>"))
    tiny = Llama.tiny | {"num_key_value_heads": 1, "head_dim": 12}
    tiny_tokenizer = "GemmaTokenizer"
    members = {}


class Gemma2(Gemma):
    name, architecture, headed = "Gemma 2", "Gemma2Model", None  # its head is soft-capped
    attention = "eager"  # of which alone transformers caps the scores softly
    fits_half = False
    tiny = Gemma.tiny | {"num_key_value_heads": 2, "sliding_window": 5, "query_pre_attn_scalar": 12}


class Gemma3(Gemma):
    name, architecture, headed = "Gemma 3", "Gemma3TextModel", "Gemma3ForCausalLM"
    rotary = "by type"
    fits_half = False
    tiny = Gemma.tiny | {
        "sliding_window": 5, "query_pre_attn_scalar": 12,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }  # fmt: skip


class GPT2(Family):
    kind, name, architecture, headed = "decoder", "GPT-2", "GPT2Model", "GPT2LMHeadModel"
    parts = {"tokens": "wte", "positions": "wpe", "dropout": "drop", "layers": "h", "norm": "ln_f"}
    first_position = 0
    adapter_sites = ("attn.c_proj", "mlp")
    trained_beside_adapters = r"\bln_"
    first_norms = ("ln_1",)
    vocabulary = Qwen2.vocabulary
    tiny = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48}
    tiny_tokenizer = "GPT2Tokenizer"
    adapters_per_layer = {"h": 2}


FAMILIES: dict[str, type[Family]] = {  # by the `model_type` in config.json
    "bert": Bert,
    "t5": T5,
    "llama": Llama,
    "roberta": Roberta,
    "modernbert": ModernBert,
    "mt5": MT5,
    "mistral": Mistral,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "gemma": Gemma,
    "gemma2": Gemma2,
    "gemma3_text": Gemma3,
    "gpt2": GPT2,
}
LANGUAGE_MODELS = tuple(family.upper() for family in FAMILIES)  # what language_model may be

# By model_type, why one that might be meant has no row
REFUSED = {
    "deberta-v2": "its layers share relative positions of their own, which an encoder here does not pass on",
    "umt5": "each of its layers has relative positions of its own, and an encoder-decoder here shares the first one's",
    "gemma3": "it takes pictures itself, its language model lies inside",
    "mixtral": "its layers are mixtures of experts",
}
RECIPE = 'CONTRIBUTING.md, "Add a language model"'


def layers_in(insert_layer: Any) -> list[Any]:
    """The layers that a value of the setting insert_layer names, one or several, from the lowest up."""
    return sorted(insert_layer) if isinstance(insert_layer, list | tuple) else [insert_layer]


def family_named(language_model: str) -> type[Family]:
    """The row of a value of the setting language_model."""
    return FAMILIES[language_model.lower()]


def tokenizer_of(tokenizer: str, language_model: str) -> str:
    """Where the tokenizer lies by this setting, whose placeholder stands for the family of the language model."""
    return tokenizer.replace("{language_model}", language_model.lower())


def require_family(config: dict[str, Any], where: str) -> str:
    """The key in FAMILIES of a model's config.json; raises UserError with the nearest where it has no row."""
    found = str(config.get("model_type"))
    if found not in FAMILIES:
        reason = f" ({REFUSED[found]})" if found in REFUSED else ""
        raise UserError(
            f"{where} holds a {found!r} model, a family without a row{reason}: use one of "
            f"{', '.join(LANGUAGE_MODELS)}, of which {nearest(config).upper()} is the nearest, or add a row as "
            f"{RECIPE} says."
        )
    if config.get("use_bidirectional_attention"):
        raise UserError(f"{where} is a decoder whose texts are read in both directions: use a model that writes texts.")
    return found


def nearest(config: dict[str, Any]) -> str:
    """The key in FAMILIES of what is of a model's kind and named most alike, or the first of that kind."""
    named = " ".join(map(str, config.get("architectures") or ()))
    known = {"encoder": "MaskedLM" in named, "decoder": re.search("CausalLM|LMHead", named)}
    kinds = ["encoder_decoder"] if config.get("is_encoder_decoder") else [kind for kind in known if known[kind]]
    alike = [family for family, row in FAMILIES.items() if not kinds or row.kind in kinds]
    return next(iter(difflib.get_close_matches(str(config.get("model_type")), alike, 1, 0.5)), alike[0])
