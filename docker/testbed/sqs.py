"""An SQS server on the loopback, with IAM and ECR; the module run as a program is the server itself."""

import itertools
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import botocore.session

from testbed import ecr_tokens, module
from testbed.ecr_tokens import Mint
from testbed.server import Server

REGION = "eu-west-1"
# IAM is off until that many calls have been made.
NEVER = "1e12"
SECRET = "MINT_SECRET"


class LocalSqs(Server):
    """moto's SQS, IAM and ECR in a process of its own, which ends at the latest with this one.

    ECR has no registry here: that is an `Ecr`, which takes the tokens of this `mint`.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.mint = Mint(secrets.token_hex())
        self._server: subprocess.Popen[bytes] | None = None
        self._sqs: Any = None
        self._users = itertools.count(1)

    def start(self) -> None:
        """Start on a free port, without queues, and wait until it listens."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop()
        self._server = subprocess.Popen(
            module.command("testbed.sqs"),
            env=module.ENVIRONMENT | {SECRET: self.mint.secret},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ctrl-C is for the maker, which then stops the server in order.
            start_new_session=True,
        )
        assert self._server.stdout
        port = self._server.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError(f"the SQS server did not start:\n{self.log()[-2000:]}")
        self.endpoint = f"http://127.0.0.1:{port}"
        self._sqs = self._client("sqs")

    def stop(self) -> None:
        """Stop, and forget every queue. Harmless when it is stopped already."""
        if self._server:
            self._sqs.close()
            self._server.kill()
            self._server.communicate()
            self._server = None
            self._log.close()

    def log(self) -> str:
        """What the server has logged so far: a line for each call."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def environment(self) -> dict[str, str]:
        """The variables that make an AWS SDK use this server, as a user who may do anything."""
        return self._environment_of("testing", "testing")

    def create_queue(self, name: str, **attributes: str | int) -> str:
        """Create a queue and return its URL; all names share one server, so use one only once."""
        values = {key: str(value) for key, value in attributes.items()}
        return str(self._sqs.create_queue(QueueName=name, Attributes=values)["QueueUrl"])

    def delete_queue(self, url: str) -> None:
        self._sqs.delete_queue(QueueUrl=url)

    def create_fifo_queue(self) -> str:
        """Create a FIFO queue of a name of its own, and return its URL."""
        return self.create_queue(f"test-{secrets.token_hex(4)}.fifo", FifoQueue="true")

    def send(self, url: str, body: Mapping[str, object] | str, **parameters: str) -> str:
        """Send a message, a mapping as JSON, and return its id."""
        text = body if isinstance(body, str) else json.dumps(body)
        return str(self._sqs.send_message(QueueUrl=url, MessageBody=text, **parameters)["MessageId"])

    def receive(self, url: str, wait_seconds: int = 0) -> list[dict[str, Any]]:
        """Receive up to ten messages, with all that SQS says of them."""
        answer = self._sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait_seconds,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return list(answer.get("Messages", []))

    def show(self, url: str, message: Mapping[str, Any]) -> None:
        """Let a message that was received be visible again at once."""
        self._sqs.change_message_visibility(
            QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )

    def count(self, url: str) -> tuple[int, int]:
        """How many messages are visible, and how many are in flight, by two answers that agree.

        The server counts these one after the other: what becomes visible in between is in neither.
        """
        said = self._count(url)
        while (again := self._count(url)) != said:
            said = again
        return said

    def _count(self, url: str) -> tuple[int, int]:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        visible, in_flight = (int(answer["Attributes"][name]) for name in names)
        return visible, in_flight

    def ecr_tokens(self) -> list[str]:
        """The tokens that it has given since it started, in order."""
        return list(json.loads(self._moto_api(ecr_tokens.PATH)))

    @contextmanager
    def ecr_tokens_live(self, seconds: float) -> Iterator[None]:
        """Let tokens that are given within the block be good for so long only."""
        self._moto_api(ecr_tokens.PATH, str(seconds))
        try:
            yield
        finally:
            self._moto_api(ecr_tokens.PATH, str(ecr_tokens.LIFE))

    @contextmanager
    def enforce_iam(self, policy: Mapping[str, object]) -> Iterator[dict[str, str]]:
        """Check permissions within the block; gives the variables of a user with exactly this policy.

        Everyone else, this object included, may do nothing meanwhile.
        """
        name = f"user-{next(self._users)}"
        iam = self._client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        iam.close()
        self._start_iam_after("0")
        try:
            yield self._environment_of(key["AccessKeyId"], key["SecretAccessKey"])
        finally:
            self._start_iam_after(NEVER)

    def _client(self, service: str) -> Any:
        return botocore.session.Session().create_client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def _environment_of(self, key: str, secret: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_SQS": self.endpoint,
            "AWS_ENDPOINT_URL_ECR": self.endpoint,
            # Else the SDK may look for the person's own configuration, or ask the network for roles.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _start_iam_after(self, calls: str) -> None:
        self._moto_api("/moto-api/reset-auth", calls)

    def _moto_api(self, path: str, data: str | None = None) -> str:
        request = urllib.request.Request(  # noqa: S310  the address is our own
            self.endpoint + path,
            data=data.encode() if data is not None else None,
            headers={"Content-Type": "text/plain"},
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310  the address is our own
            return str(answer.read().decode())


def delete_in_turn() -> None:
    """Let moto delete a message only while none is sent or deleted.

    Else it loses what is sent at that very moment, and brings back what is deleted.
    """
    from moto.sqs.models import Queue

    delete = Queue.delete_message

    def locked(self: Queue, receipt_handle: str) -> None:
        with self._messages_lock:  # that of its own sends
            delete(self, receipt_handle)

    Queue.delete_message = locked  # type: ignore[method-assign]


def look_while_waiting() -> None:
    """Let a long poll of moto end as soon as a message is visible again, as one of SQS does.

    Else it looks when it begins and then once a second, and of several listeners the one that had a
    message last, which polls again at once, gets it each time.
    """
    from moto.sqs.models import Queue

    wait = Queue.wait_for_messages

    def short(self: Queue, timeout: int) -> None:
        # Of different lengths, or those who wait would look in the same order each time.
        wait(self, min(timeout, random.uniform(0.02, 0.1)))  # type: ignore[arg-type]  # noqa: S311

    Queue.wait_for_messages = short  # type: ignore[method-assign]


def main() -> None:
    from moto.server import ThreadedMotoServer

    delete_in_turn()
    look_while_waiting()
    ecr_tokens.give(Mint(os.environ[SECRET]))
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    # The maker holds the other end and never writes: this returns when the maker is gone.
    sys.stdin.read()


if __name__ == "__main__":
    main()
