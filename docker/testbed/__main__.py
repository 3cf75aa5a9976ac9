"""Makes what takes the longest to make of what some tests need, to be run beside them: `python -m testbed`."""

import contextlib

from testbed import product, sqs_image
from testbed.debian import Unavailable


def main() -> None:
    """What cannot be made here is left to the tests, which say why."""
    with contextlib.suppress(Unavailable, product.BuildFailed):
        product.archive()
        sqs_image.context()


if __name__ == "__main__":
    main()
