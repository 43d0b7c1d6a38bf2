"""The image's health check: whether the worker in this container says of itself that its loop moves.

Ends with 0 if ``/healthz`` answers 200, else with 1 and a line that says why. It asks where EVALSINK_HTTP
lets the worker listen, and never through a proxy. Where that variable is empty there is nobody to ask, and
the container counts as healthy while its process lives. It needs nothing but Python's own library.
"""

import http.client
import os
import sys

TIMEOUT_S = 4.0


def main() -> str | None:
    """Why the worker is not healthy; nothing if it is, or if it serves nothing."""
    address = os.environ.get("EVALSINK_HTTP", "127.0.0.1:9464")
    if not address:
        return None
    host, _, port = address.rpartition(":")
    everywhere = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}  # noqa: S104 - it is asked, not opened
    host = everywhere.get(host, host.strip("[]"))
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return None if answer.status == http.client.OK else f"{answer.status} {answer.read().decode()}"
    except (OSError, http.client.HTTPException) as error:
        return f"{address}: {error}"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
