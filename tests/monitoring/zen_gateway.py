"""A gateway that Aikido Zen protects, as a process: ``python -m tests.monitoring.zen_gateway URL``.

Zen wraps parts of the standard library for good, so it has a process of its own. It is
started before FastAPI is imported, as its documentation asks for.
"""

import signal
import sys

import aikido_zen
from aikido_zen.background_process.comms import AikidoIPCCommunications


def _protect() -> None:
    # Zen lets a request pass when its own process has not replied within 10 ms. That is its
    # choice for production; a busy machine that runs tests needs longer.
    send = AikidoIPCCommunications._send_data_to_bg_process

    def patient(
        self: object, action: object, obj: object, receive: object, timeout_in_sec: float
    ) -> object:
        return send(self, action, obj, receive, max(timeout_in_sec, 10))

    AikidoIPCCommunications._send_data_to_bg_process = patient
    aikido_zen.protect()


def main(origin: str) -> None:
    """Serve until interrupted; ``origin`` is the address of the upstream."""
    _protect()

    import uvicorn
    from aikido_zen.middleware import AikidoFastAPIMiddleware
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tests.monitoring.apps import mount_both

    class Identify:
        """Tell Zen the user, as an app's own authentication does."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            for name, value in scope.get("headers", ()):
                if name == b"x-user":
                    aikido_zen.set_user({"id": value.decode()})
            await self.app(scope, receive, send)

    app = FastAPI()
    app.add_middleware(AikidoFastAPIMiddleware)
    app.add_middleware(Identify)
    mount_both(app, origin)
    # uvicorn raises the signal again when it has shut down. An exit by way of Python ends Zen's
    # process too; the signal's own would leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(app, port=0, log_level="info", proxy_headers=False)


if __name__ == "__main__":
    main(sys.argv[1])
