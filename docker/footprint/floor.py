"""The bare floor: Python, and one long poll after the other. It runs in Lookout's image, as `python -c`."""

import asyncio
import os
import time

from aiobotocore.session import get_session


async def main() -> None:
    async with get_session().create_client("sqs", region_name=os.environ["AWS_REGION"]) as client:
        print(time.time(), flush=True)
        while True:
            await client.receive_message(
                QueueUrl=os.environ["SQS_QUEUE_URL"], WaitTimeSeconds=int(os.environ["POLL_TIME_SECONDS"])
            )


asyncio.run(main())
