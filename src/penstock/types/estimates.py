"""How many tokens something has, where nobody counted them: from the bytes of its text.

For counts that are asked for without a provider that can count, for limits that must be held before an
answer begins, and for usage that a provider never reported. Whoever uses one marks it as estimated.
"""

from typing import Final

import msgspec

from penstock.types.requests import FilePart, GenerationRequest, ImagePart, Message, OpaquePart, TextPart

BYTES_PER_TOKEN: Final = 4
"""Of text, in the mean over languages and code; few models are off by more than a half."""

MESSAGE_TOKENS: Final = 4
IMAGE_TOKENS: Final = 1_600
"""A picture of a megapixel."""

_encode = msgspec.json.Encoder().encode


def estimate(request: GenerationRequest) -> int:
    """Return about how many tokens ``request`` has, from the bytes of its text."""
    size = sum(map(_bytes_of, request.messages))
    size += sum(
        len(_encode(tool.parameters or {})) + len(tool.name) + len(tool.description.encode())
        for tool in request.tools
    )
    pictures = sum(
        type(part) is ImagePart
        for message in request.messages
        if isinstance(message.content, tuple)
        for part in message.content
    )
    tokens = -(-size // BYTES_PER_TOKEN) + MESSAGE_TOKENS * len(request.messages) + IMAGE_TOKENS * pictures
    return max(1, tokens)


def tokens_of(characters: int) -> int:
    """Return about how many tokens so many characters of an answer are."""
    return -(-characters // BYTES_PER_TOKEN)


def _bytes_of(message: Message) -> int:
    size = sum(len(call.name) + len(call.arguments.encode()) for call in message.tool_calls)
    if not isinstance(message.content, tuple):
        return size + len((message.content or "").encode())
    for part in message.content:
        match part:
            case TextPart(text=text):
                size += len(text.encode())
            case FilePart(data=data):  # base64 of a document, of which about a third is text
                size += len(data) // BYTES_PER_TOKEN
            case OpaquePart(data=data):
                size += len(_encode(data))
    return size
