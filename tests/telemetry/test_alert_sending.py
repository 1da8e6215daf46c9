"""Messages on their way, to receivers that are there and to some that are not."""

import threading

import pytest

from penstock.telemetry.alert_sending import MAX_WAITING, Message, Messengers
from penstock.telemetry.alert_targets import AppriseTarget, BadTarget, targets_of
from tests.clients.gateway import wait_for
from tests.telemetry.receivers import hook, mail

MESSAGE = Message("fires", "Penstock on test: errors", "3 of 4 failed.")


def test_a_web_hook_and_a_mailbox_get_the_message():
    with hook() as web, mail() as post:
        targets = targets_of(
            {
                "web": f"json://127.0.0.1:{web.server_port}/planted-path",
                "mail": f"mailto://127.0.0.1:{post.server_address[1]}/?from=a@example.com&to=ops@example.com",
            }
        )
        messengers = Messengers(targets)
        messengers.open()
        messengers.post(MESSAGE)
        wait_for(lambda: web.got and post.got)
        messengers.close()
    ((path, body),) = web.got
    assert (path, body["title"], body["message"]) == ("/planted-path", MESSAGE.title, MESSAGE.body)
    assert body["type"] == "failure"
    assert "Subject: Penstock on test: errors" in post.got[0]
    assert "ops@example.com" in post.got[0]


def test_only_those_who_are_named_are_told():
    with hook() as first, hook() as second:
        urls = {"a": f"json://127.0.0.1:{first.server_port}", "b": f"json://127.0.0.1:{second.server_port}"}
        messengers = Messengers(targets_of(urls))
        messengers.open()
        messengers.post(MESSAGE._replace(to=("b",)))
        wait_for(lambda: second.got)
        messengers.close()
    assert (len(first.got), len(second.got)) == (0, 1)


def test_what_is_not_taken_is_tried_again():
    with hook() as web:
        web.broken = True
        messengers = Messengers(
            targets_of({"a": f"json://127.0.0.1:{web.server_port}"}), pauses=(0.01,) * 1_000
        )
        messengers.open()
        messengers.post(MESSAGE)
        wait_for(lambda: len(web.got) > 2)
        web.broken = False
        count = len(web.got)
        messengers.close(30.0)
        assert len(web.got) >= count


class Stuck:
    """A target that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.got: list[Message] = []

    def send(self, message: Message) -> bool:
        self.go.wait()
        self.got.append(message)
        return True


def test_a_target_that_stands_still_holds_up_no_other_and_its_queue_is_bounded():
    stuck = Stuck()
    with hook() as web:
        targets = {"stuck": stuck, **targets_of({"web": f"json://127.0.0.1:{web.server_port}"})}
        messengers = Messengers(targets)
        messengers.open()
        for number in range(2 * MAX_WAITING):
            messengers.post(MESSAGE._replace(title=str(number), to=("stuck",)))
        messengers.post(MESSAGE)
        wait_for(lambda: web.got)
        stuck.go.set()
        wait_for(lambda: len(stuck.got) >= MAX_WAITING)
        messengers.close()
    assert len(stuck.got) <= MAX_WAITING + 1


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
        "https://open.feishu.cn/open-apis/bot/v2/hook/0123-4567-89ab",
        "https://oapi.dingtalk.com/robot/send?access_token=0123456789abcdef",
        "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=693a91f6-7aoc-4bc4-97a0-0ec2sifa5aaa",
        "mailtos://user:password@smtp.example.com?to=ops@example.com",
        "jsons://example.com/hook",
    ],
)
def test_addresses_as_services_give_them_out_can_be_used(url):
    assert "password" not in repr(AppriseTarget("ops", url))


@pytest.mark.parametrize("url", ["", "nonsense", "https://planted.example.com/hook", "ftp://x", "slack://"])
def test_what_is_no_address_is_told_without_it(url):
    with pytest.raises(BadTarget) as caught:
        targets_of({"ops": url})
    assert caught.value.name == "ops"
    assert "planted" not in caught.value.what
