"""The log's end offsets for the auditor, asked for only where a transfer is unmatched."""

from aiokafka.errors import KafkaError

from microfin.cli.failures import CouldNot
from microfin.cli.topic import open_topic
from microfin.settings import CommonSettings


class LogEndsAsked:
    """Returns the end offset of each partition of the commands topic; None: nobody knows."""

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings

    async def __call__(self) -> dict[int, int] | None:
        """Ask the brokers."""
        try:
            async with open_topic(self._settings) as topic:
                return await topic.ends()
        except (CouldNot, KafkaError, OSError):
            return None
