r"""The parts of a tiny base model: a byte-level tokenizer that knows every text, and a small Llama."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, EOS, USER, ASSISTANT, BOX = "<pad>", "<eos>", "<|user|>", "<|assistant|>", "\\boxed{"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<eos>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    r"""A tokenizer of the 256 bytes, four special tokens and ``\boxed{`` as one token.

    No text is unknown to it, TeX and other scripts included, and none is changed by encoding and decoding. The box is
    one token so that the few tokens of a response are about the answer, not about its frame.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([PAD, EOS, USER, ASSISTANT])
    backend.add_tokens([AddedToken(BOX, normalized=False, special=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


def build_model(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int = 128, layers: int = 3, heads: int = 4
) -> LlamaForCausalLM:
    """A Llama in float32 with fresh weights, drawn from torch's global generator.

    Its vocabulary is exactly the tokenizer's: vLLM masks ids beyond the tokenizer and the trainer does not, so that
    spare rows would make the two disagree about probabilities. The weights start at a standard deviation of
    1/sqrt(hidden_size): with the usual 0.02, meant for wide models, warm-up took several times as many steps.
    ``hidden_size`` is a multiple of ``2 * heads``.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        initializer_range=hidden_size**-0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).float()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=1.0
    )
    return model
