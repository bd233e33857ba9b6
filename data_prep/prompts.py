"""The bare problem in a prompt: out of a chat, and without the sentences that say how it is to be answered."""

import json
from collections.abc import Mapping
from typing import Any

from data_prep.schema import TEMPLATES, RowError
from repo_verl.safe_text import shown

INSTRUCTIONS = (
    *(text for text in (template.format(problem="").strip() for template in TEMPLATES.values()) if text),
    "Let's think step by step and output the final answer within \\boxed{}.",
    'Let\'s think step by step and output the final answer after "####".',
    'Remember to put your answer on its own line after "Answer:".',
    'Remember to put your answer on its own line after "Answer:", and you do not need to use a \\boxed command.',
)
"""Sentences at the end of a prompt that are no part of the problem: our templates' (QwQ's files carry ``boxed``'s),
the one of Skywork-OR1 and One-Shot-RLVR, that of verl's GSM8K, and those of DAPO and of simple-evals."""

OPENINGS = tuple(
    "Solve the following math problem step by step. The last line of your response should be of the form "
    f"Answer: {answer} (without quotes) where {answer} is the answer to the problem."
    for answer in ("$Answer", "$ANSWER")
)
"""Likewise at the start of a prompt: DAPO's and simple-evals'."""

_ROLES = {"human": "user", "gpt": "assistant"}


def bare(prompt: str) -> tuple[str, bool]:
    """A prompt without :data:`OPENINGS` and the :data:`INSTRUCTIONS` at its end, and whether there was one."""
    text = prompt
    while True:
        trimmed = text.strip()
        opening = next((sentence for sentence in OPENINGS if trimmed.startswith(sentence)), "")
        ending = next((sentence for sentence in INSTRUCTIONS if trimmed.endswith(sentence)), "")
        if opening:
            text = trimmed.removeprefix(opening).strip()
        elif ending:
            text = text.rstrip().removesuffix(ending).rstrip()
        else:
            return text, text != prompt


def json_list(value: Any) -> list[Any] | None:
    """The list that a text spells as JSON; None if it spells none."""
    if not (isinstance(value, str) and value.lstrip().startswith("[")):
        return None
    try:
        found: list[Any] = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found


def parsed_chat(value: Any) -> Any:
    """The chat that a text spells as JSON, as some files hold it; anything else unchanged."""
    chat = json_list(value)
    is_chat = chat and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in chat)
    return chat if is_chat else value


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages with a role (or, as some files have it, ``from``)."""
    return bool(value) and isinstance(value, list) and all(_role(message) is not None for message in value)


def without_reply(value: Any) -> tuple[Any, Mapping[str, Any]]:
    """A chat without the assistant's message at its end, and that message; anything else unchanged, and nothing."""
    chat = parsed_chat(value)
    if is_conversation(chat) and len(chat) > 1 and _role(chat[-1]) == "assistant":
        return chat[:-1], chat[-1]
    return value, {}


def user_message(chat: list[Any], field: str) -> tuple[Any, bool]:
    """The content of a chat's one user message, and whether a system message stood beside it; RowError naming the
    field if there is not one user message, or any of another role than system.
    """
    roles = [_role(message) for message in chat]
    if roles.count("user") != 1 or set(roles) - {"user", "system"}:
        raise RowError(
            f"{field} no single question", f"field {field!r} has the roles {shown(roles)}, want one user message"
        )
    message = chat[roles.index("user")]
    return message.get("content", message.get("value")), len(chat) > 1


def _role(message: Any) -> Any:
    role = message.get("role", message.get("from")) if isinstance(message, Mapping) else None
    return _ROLES.get(role, role) if isinstance(role, str) else role
