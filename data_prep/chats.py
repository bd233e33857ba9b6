"""Prompts that are chats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data_prep.schema import RowError
from repo_verl.safe_text import shown

_ROLES = {"human": "user", "gpt": "assistant"}


def parsed_chat(value: Any) -> Any:
    """The chat that a text spells as JSON, as some files hold it; anything else unchanged.

    Args:
        value: of a record's prompt.
    """
    if not (isinstance(value, str) and value.lstrip().startswith("[")):
        return value
    try:
        chat = json.loads(value)
    except (ValueError, RecursionError):
        return value
    is_chat = bool(chat) and all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in chat)
    return chat if is_chat else value


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages with a role (or, as some files have it, ``from``).

    Args:
        value: a record or a field.
    """
    return bool(value) and isinstance(value, list) and all(_role(message) is not None for message in value)


def without_reply(value: Any) -> tuple[Any, Mapping[str, Any]]:
    """A chat without the assistant's message at its end, and that message; anything else unchanged, and nothing.

    Args:
        value: of a record's prompt or messages.
    """
    chat = parsed_chat(value)
    if is_conversation(chat) and len(chat) > 1 and _role(chat[-1]) == "assistant":
        return chat[:-1], chat[-1]
    return value, {}


def user_message(chat: list[Any], field: str) -> tuple[Any, bool]:
    """The content of a chat's one user message, and whether a system message stood beside it.

    Args:
        chat: messages of ``role`` and ``content``, or ``from`` and ``value``.
        field: the chat's name, for messages.

    Raises: RowError if there is not one user message, or any of another role than system.
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
