"""The result of a pass's decision: actions, Events, status, and when to requeue."""

from typing import Literal, TypeAlias

import msgspec

from microfin_operator.kinds import Kind, KubernetesObject


class Apply(msgspec.Struct, frozen=True):
    """Set these fields by server-side apply; with `force` also those that others have set."""

    kind: Kind
    item: KubernetesObject
    force: bool = True


class Create(msgspec.Struct, frozen=True):
    """Create this object, unless it exists."""

    kind: Kind
    item: KubernetesObject


class Delete(msgspec.Struct, frozen=True):
    """Delete exactly this object, and the objects that it owns."""

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


class State(msgspec.Struct, frozen=True):
    """The state of one component: topic, workers or routing. `actions` bring the component closer
    to what is desired. Every state is of one of the subclasses.
    """

    reason: str
    message: str
    actions: tuple[Action, ...] = ()
    notes: tuple[Note, ...] = ()


class InSync(State, frozen=True):
    """The component is as desired."""


class Progressing(State, frozen=True):
    """The component is not as desired yet; it will be without a person."""


class NeedsPerson(State, frozen=True):
    """The component is not as desired, and waiting does not help."""


class Unknown(State, frozen=True):
    """Nobody can say whether the component is as desired."""


class Plan(msgspec.Struct, frozen=True):
    """The actions, Events and status of a pass, and the seconds after which the next one is due."""

    actions: tuple[Action, ...]
    notes: tuple[Note, ...]
    status: KubernetesObject
    requeue_after: float
