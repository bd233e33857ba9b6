"""Prompts that are chats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data_prep.schema import RowError, shown


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


def user_message(chat: list[Any], field: str) -> tuple[Any, bool]:
    """The content of a chat's one user message, and whether a system message stood beside it.

    Args:
        chat: messages of ``role`` and ``content``, or ``from`` and ``value``.
        field: the chat's name, for messages.

    Raises: RowError if there is not one user message, or any of another role than system.
    """
    roles = [m.get("role", m.get("from")) if isinstance(m, Mapping) else None for m in chat]
    if roles.count("user") != 1 or set(roles) - {"user", "system"}:
        raise RowError(
            f"{field} no single question", f"field {field!r} has the roles {shown(roles)}, want one user message"
        )
    message = chat[roles.index("user")]
    return message.get("content", message.get("value")), len(chat) > 1
