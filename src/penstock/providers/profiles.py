"""The vendors that speak OpenAI's Chat Completions, as data: a few lines each.

Owns where each one is, the variable in which its SDK looks for a key, the names of its models, and how its
requests differ from OpenAI's. Adding a vendor is adding an entry: what it is called here is its ``kind`` in
the configuration, and when the environment has its key it joins under that name. A server that nobody
listed is ``kind: openai`` with a ``base_url``. No code of a vendor's own enters.

Sources: the vendors' SDKs as of November 2026 (mistralai 3.7, groq 1.7, together 3.1, zai-sdk 0.2) and their
API references; a field stands under ``lacks`` only where one of these says so.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.wire.openai_chat_quirks import Quirks


class Profile(msgspec.Struct, frozen=True):
    """One vendor. ``keys``: variables that may hold its key, the first one is the documented one; none for
    servers of one's own, which join by configuration only. ``models``: how its models' names begin, as
    patterns: unless models are configured, such a name leads to it."""

    title: str
    base_url: str
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    quirks: Quirks = Quirks()


_OLD_LIMIT: Final = Quirks(limit="max_tokens", developer=False)
"""Servers that grew up with the first version of the format."""

PROFILES: Final[Mapping[str, Profile]] = {
    "deepseek": Profile(
        "DeepSeek",
        "https://api.deepseek.com",
        ("DEEPSEEK_API_KEY",),
        ("deepseek-*",),
        Quirks(
            limit="max_tokens",
            developer=False,
            effort="thinking",
            lacks=frozenset(("n", "seed", "logit_bias", "parallel_tool_calls", "store", "metadata", "user")),
        ),
    ),
    "moonshot": Profile(
        "Moonshot (Kimi)",
        "https://api.moonshot.ai/v1",  # keys of api.moonshot.cn are other ones: set base_url
        ("MOONSHOT_API_KEY",),
        ("kimi-*", "moonshot-*"),
        Quirks(
            limit="max_tokens",
            developer=False,
            effort="thinking",
            lacks=frozenset(("seed", "logit_bias", "logprobs", "top_logprobs", "store", "metadata", "user")),
        ),
    ),
    "zhipu": Profile(
        "Zhipu GLM, Z.ai",
        "https://open.bigmodel.cn/api/paas/v4",  # abroad: https://api.z.ai/api/paas/v4
        ("ZHIPUAI_API_KEY", "ZAI_API_KEY"),
        ("glm-*",),
        Quirks(
            limit="max_tokens",
            developer=False,
            usage=False,
            effort="thinking",
            renames={"user": "user_id"},
            lacks=frozenset(
                ("n", "logit_bias", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty")
            ).union(("parallel_tool_calls", "store", "metadata")),
        ),
    ),
    "mistral": Profile(
        "Mistral",
        "https://api.mistral.ai/v1",
        ("MISTRAL_API_KEY",),
        ("mistral-*", "magistral-*", "ministral-*", "codestral-*", "devstral-*", "pixtral-*", "open-mi*"),
        Quirks(
            limit="max_tokens",
            developer=False,
            usage=False,
            efforts={"minimal": "none", "low": "none", "medium": "high", "xhigh": "high", "max": "high"},
            renames={"seed": "random_seed"},
            lacks=frozenset(("logit_bias", "user", "store")),
            call_id=9,
        ),
    ),
    "groq": Profile(
        "Groq",
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        (),
        Quirks(
            developer=False,
            efforts={"minimal": "low", "xhigh": "high", "max": "high"},
            lacks=frozenset(("n", "logit_bias", "logprobs", "top_logprobs", "store", "metadata")),
        ),
    ),
    "openrouter": Profile(
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY",),
        (),
        Quirks(limit="max_tokens", effort="reasoning"),
    ),
    "xai": Profile(
        "xAI",
        "https://api.x.ai/v1",
        ("XAI_API_KEY",),
        ("grok-*",),
        Quirks(
            developer=False,
            efforts={"minimal": "low", "medium": "high", "xhigh": "high", "max": "high"},
            lacks=frozenset(("logit_bias", "store", "metadata")),
        ),
    ),
    "together": Profile(
        "Together",
        "https://api.together.xyz/v1",
        ("TOGETHER_API_KEY",),
        (),
        Quirks(
            limit="max_tokens",
            developer=False,
            counts_logprobs=True,
            lacks=frozenset(("parallel_tool_calls", "store", "metadata", "user")),
        ),
    ),
    "fireworks": Profile(
        "Fireworks",
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY",),
        ("accounts/fireworks/*",),
        _OLD_LIMIT,
    ),
    "qianfan": Profile(
        "Baidu Qianfan (ERNIE), v2",
        "https://qianfan.baidubce.com/v2",
        ("QIANFAN_API_KEY",),
        ("ernie-*",),
        Quirks(
            limit="max_tokens",
            developer=False,
            effort="enable_thinking",
            lacks=frozenset(("n", "logit_bias", "logprobs", "top_logprobs", "store")),
        ),
    ),
    "dashscope": Profile(
        "Alibaba DashScope (Qwen), compatible mode",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",  # abroad: dashscope-intl.aliyuncs.com
        ("DASHSCOPE_API_KEY",),
        ("qwen*", "qwq-*", "qvq-*"),
        Quirks(
            limit="max_tokens",
            developer=False,
            effort="enable_thinking",
            lacks=frozenset(("logit_bias", "frequency_penalty", "store", "metadata", "user")),
        ),
    ),
    "vllm": Profile("vLLM", "http://127.0.0.1:8000/v1", quirks=Quirks(developer=False)),
    "llama_cpp": Profile(
        "llama.cpp's server", "http://127.0.0.1:8080/v1", quirks=Quirks(limit="max_tokens", developer=False)
    ),
    "lm_studio": Profile("LM Studio", "http://127.0.0.1:1234/v1", quirks=_OLD_LIMIT),
    "sglang": Profile("SGLang", "http://127.0.0.1:30000/v1", quirks=_OLD_LIMIT),
}
"""By ``kind``. The order is that in which they stand for names that nobody else takes."""
