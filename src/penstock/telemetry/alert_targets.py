"""Where alerts are sent, by Apprise: chats, mail, web hooks, each as a URL. Loaded where alerts are wanted.

Apprise knows more than a hundred services by URL schemes of its own, and some by the addresses that they
give out. Those of Feishu and DingTalk it does not, so they are translated here.
"""

import re
from collections.abc import Mapping
from typing import Final

import apprise

from penstock.telemetry.alert_sending import Message

_GIVEN_OUT: Final = (
    (
        re.compile(r"https://open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/([\w-]+)/?"),
        r"feishu://\1",
    ),
    (re.compile(r"https://oapi\.dingtalk\.com/robot/send\?access_token=(\w+)"), r"dingtalk://\1"),
)
"""Addresses as a service shows them to whoever makes a robot."""

_TYPES: Final = {
    "fires": apprise.NotifyType.FAILURE,
    "still": apprise.NotifyType.WARNING,
    "recovered": apprise.NotifyType.SUCCESS,
    "test": apprise.NotifyType.INFO,
}


class BadTarget(Exception):
    """No message can be sent there; ``what`` says what to write, without the address."""

    def __init__(self, name: str, what: str) -> None:
        """``name`` is the target's."""
        super().__init__(what)
        self.name = name
        self.what = what


class AppriseTarget:
    """One address."""

    def __init__(self, name: str, url: str) -> None:
        """Raises `BadTarget`."""
        self._name = name
        for pattern, ours in _GIVEN_OUT:
            if pattern.fullmatch(url):
                url = pattern.sub(ours, url)
        asset = apprise.AppriseAsset(app_id="Penstock", app_desc="Penstock", app_url="", image_url_mask=None)
        found = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if found is None:
            what = "this is no address that messages can be sent to"
            if url.startswith(("http://", "https://")):
                what += (
                    ": for a web hook of your own write json:// or jsons:// instead of http:// or https://"
                )
            raise BadTarget(name, f"{what}; docs/guide/alerts.md has examples")
        self._apprise = apprise.Apprise(asset=asset)
        self._apprise.add(found)

    def __repr__(self) -> str:
        """Without the address."""
        return f"<AppriseTarget {self._name}>"

    def send(self, message: Message) -> bool:
        """Say whether it was taken; waits for as long as Apprise does: 4 s for an answer, 15 for mail."""
        sent = self._apprise.notify(body=message.body, title=message.title, notify_type=_TYPES[message.kind])
        return bool(sent)


def targets_of(urls: Mapping[str, str]) -> dict[str, AppriseTarget]:
    """Return a target for each of ``urls``. Raises `BadTarget`."""
    return {name: AppriseTarget(name, url) for name, url in urls.items()}
