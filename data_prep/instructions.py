"""What sources write around a problem to say how it is to be answered."""

from __future__ import annotations

from data_prep.schema import TEMPLATES

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
"""Sentences at the start of a prompt that are no part of the problem: DAPO's and simple-evals'."""


def bare(prompt: str) -> tuple[str, bool]:
    """A prompt without :data:`OPENINGS` and the :data:`INSTRUCTIONS` at its end, and whether there was one.

    Args:
        prompt: a problem, perhaps among instructions; without one it comes back unchanged.
    """
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
