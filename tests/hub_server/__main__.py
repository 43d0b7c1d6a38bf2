"""`python -m tests.hub_server [--port N] [--no-xet]`: a Hub in the foreground, to try `evalsink push` against by hand."""

import argparse
import contextlib
import signal
import threading

from tests.hub_server.exchange import Request
from tests.hub_server.faults import ANY
from tests.hub_server.hub import GOOD_TOKEN
from tests.hub_server.server import HubServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="a free one if not given")
    parser.add_argument("--no-xet", action="store_true", help="as a self-hosted Hub without Xet")
    arguments = parser.parse_args()

    # Set, not left: where a shell starts this in the background, SIGINT comes in ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    def tell(request: Request) -> None:
        print(request.method, request.path, flush=True)  # noqa: T201 - a command speaks

    with (
        HubServer(port=arguments.port, xet=not arguments.no_xet) as hub,
        contextlib.suppress(KeyboardInterrupt),
    ):
        hub.on(ANY, tell)
        no_xet = " HF_HUB_DISABLE_XET=1" if arguments.no_xet else ""
        print(f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN={GOOD_TOKEN}{no_xet}", flush=True)  # noqa: T201 - likewise
        threading.Event().wait()


if __name__ == "__main__":
    main()
