"""`make send IMAGE=… TAG=…`: one message on the queue of Lookout's own settings."""

import json
import sys

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError

from lookout import settings
from lookout.errors import WrongSettings
from lookout.sqs import region_of

SENT, FAILED, MISUSED = 0, 1, 2
USAGE = "usage: make send IMAGE=ghcr.io/acme/api TAG=42"


def main(arguments: list[str]) -> int:
    """Send the message and print its id."""
    if len(arguments) != 2 or not all(arguments):
        print(USAGE, file=sys.stderr)
        return MISUSED
    try:
        chosen = settings.load()
        print(f"sent as {_send(chosen, *arguments)} to {chosen.sqs_queue_url}")
    except (WrongSettings, BotoCoreError, ClientError) as exc:
        print(f"send: {exc}", file=sys.stderr)
        return FAILED
    return SENT


def _send(chosen: settings.Settings, image: str, tag: str) -> str:
    session = botocore.session.Session()
    client = session.create_client(
        "sqs",
        region_name=region_of(chosen),
        endpoint_url=chosen.endpoint_url,
    )
    body = {"ImageName": image, "ImageTag": tag, "DeployTimeSeconds": str(chosen.deploy_time_seconds)}
    answer = client.send_message(QueueUrl=chosen.sqs_queue_url, MessageBody=json.dumps(body))
    return str(answer["MessageId"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
