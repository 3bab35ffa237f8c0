"""What a pass decides to do."""

from typing import Literal, TypeAlias

import msgspec

from microfin_operator.kinds import Kind, KubernetesObject


class Apply(msgspec.Struct, frozen=True):
    """Make these fields so, by server-side apply; with `force`, also those that others have set."""

    kind: Kind
    item: KubernetesObject
    force: bool = True


class Create(msgspec.Struct, frozen=True):
    """Create this object, unless it is there."""

    kind: Kind
    item: KubernetesObject


class Delete(msgspec.Struct, frozen=True):
    """Delete exactly this object, and what belongs to it."""

    kind: Kind
    namespace: str
    name: str
    uid: str


Action: TypeAlias = Apply | Create | Delete


class Note(msgspec.Struct, frozen=True):
    """An Event about the cluster, for people."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Part(msgspec.Struct, frozen=True):
    """One part's state: topic, workers or routing. `sound` is None where nobody can tell;
    `trouble` is whether waiting will not help; `actions` bring the part closer to what is desired.
    """

    sound: bool | None
    reason: str
    message: str
    trouble: bool = False
    actions: tuple[Action, ...] = ()
    notes: tuple[Note, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """What to do, what to say, and in how many seconds to look again at the latest."""

    actions: tuple[Action, ...]
    notes: tuple[Note, ...]
    status: KubernetesObject
    look_again: float
