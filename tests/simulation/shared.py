"""What all processes of one schedule share."""

import msgspec

from simulation.broker import Topic
from simulation.database import Database
from simulation.history import History
from simulation.network import Network
from simulation.plan import Plan
from simulation.redis_stand_in import Channels
from simulation.virtual_loop import VirtualLoop


class Shared(msgspec.Struct, frozen=True):
    """The world outside the processes."""

    loop: VirtualLoop
    plan: Plan
    history: History
    network: Network
    databases: list[Database]
    topic: Topic
    channels: Channels
