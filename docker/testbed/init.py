"""PID 1 of a sandbox, run as a script: it ends, and all in the sandbox with it, when its maker does."""

import fcntl
import signal
import socket
import struct
import sys

SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def main() -> None:
    # The kernel then reaps orphans by itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    print("up", flush=True)
    # The maker holds the other end and never writes: this returns when the maker is gone.
    sys.stdin.read()


if __name__ == "__main__":
    main()
