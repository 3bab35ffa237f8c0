"""For how long the API server has not answered, and the task that asks it.

A watch that is cut off is silent, and nobody else asks while nothing happens.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from microfin_operator.kubernetes_api import ApiFailure, KubernetesApi
from microfin_operator.metrics import API_SILENT_SECONDS

logger = structlog.get_logger(__name__)

SAID_AFTER: Final = 5.0
"""Seconds of silence after which the operator says so, and is not ready."""

EVERY: Final = 2.0
"""Seconds between two requests."""

_WITHIN: Final = 2.0  # seconds; an attempt that began before the server was back ends soon


class ApiSilence:
    """Asks the API server again and again; calls `on_return` after each long silence."""

    def __init__(self, api: KubernetesApi, on_return: Callable[[], None]) -> None:
        self._api = api
        self._on_return = on_return
        self._answered: float | None = None
        self._since: float | None = time.monotonic()
        self._asking: asyncio.Task[None] | None = None
        API_SILENT_SECONDS.set_function(self.seconds)

    def start(self) -> None:
        """Begin to ask."""
        self._asking = asyncio.create_task(self._ask_for_ever())

    def stop(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()

    def seconds(self) -> float:
        """Return for how many seconds there has been no answer; 0 if none is due."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def said(self) -> str:
        """The sentence about a long silence, or a missing first answer; empty otherwise."""
        if self._answered is None:
            return "the API server has not answered yet"
        if self.seconds() > SAID_AFTER:
            return (
                "the Kubernetes API server does not answer: does it run, and do NetworkPolicies "
                "let the operator reach it?"
            )
        return ""

    async def _ask_for_ever(self) -> None:
        while True:
            if self._since is None:
                self._since = self._answered
            try:
                async with asyncio.timeout(_WITHIN):
                    await self._api.reach()
            except (ApiFailure, TimeoutError) as error:
                logger.warning("the API server does not answer", error=repr(error))
            else:
                was_silent = self._answered is not None and self.seconds() > SAID_AFTER
                self._answered, self._since = time.monotonic(), None
                if was_silent:
                    self._on_return()
            await asyncio.sleep(EVERY if self._since is None else EVERY / 2)
