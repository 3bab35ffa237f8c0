"""kmock's API server with what the operator relies on besides: server-side apply with removals,
generations, uids and label selectors."""

import asyncio
import copy
import itertools
from collections.abc import Iterator
from typing import Any

import aiohttp.web
import attrs
from kmock import KubernetesEmulator
from kmock._internal import enums, rendering
from kmock._internal.references import resource as Resource  # noqa: N812 - it is a class

from microfin_operator.kinds import Kind, KubernetesObject

SERVED = {
    "microfin.io/v1alpha1/microfinclusters": "MicrofinCluster",
    "kafka.strimzi.io/v1/kafkatopics": "KafkaTopic",
    "kafka.strimzi.io/v1/kafkas": "Kafka",
    "apps/v1/statefulsets": "StatefulSet",
    "policy/v1/poddisruptionbudgets": "PodDisruptionBudget",
    "batch/v1/jobs": "Job",
    "v1/pods": "Pod",
    "v1/services": "Service",
    "v1/events": "Event",
    "v1/namespaces": "Namespace",
    "apiextensions.k8s.io/v1/customresourcedefinitions": "CustomResourceDefinition",
}
_CLUSTER_WIDE = ("Namespace", "CustomResourceDefinition")
_VERBS = ("get", "list", "watch", "create", "patch", "delete")


@attrs.define(kw_only=True)
class EmulatedApi(KubernetesEmulator):
    """An API server in memory."""

    deaf: bool = attrs.field(default=False, init=False)
    """Whether watches report nothing any more."""

    changed: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    """Set by every change; a task that waits for it clears it first."""

    asked: int = attrs.field(default=0, init=False)
    """The number of requests about objects, without watches."""

    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    _applied: dict[Any, KubernetesObject] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for key, kind in SERVED.items():
            self.resources[key] = {
                "kind": kind,
                "namespaced": kind not in _CLUSTER_WIDE,
                "verbs": set(_VERBS),
                "singular": kind.lower(),
                "shortnames": set(),
                "categories": set(),
                "subresources": {"status"},
            }

    # What tests and other controllers do, without a request -----------------------------------

    def item(self, kind: Kind, namespace: str, name: str) -> KubernetesObject | None:
        """Return an object as it is now, or None."""
        found = self._found(_key(kind, namespace, name))
        return None if found is None else copy.deepcopy(found.raw)

    def items(self, kind: Kind) -> list[KubernetesObject]:
        """Return all objects of a kind."""
        wanted = _resource(kind)
        return [
            copy.deepcopy(found.raw)
            for (resource, _, _), found in self._objects.items()
            if resource == wanted and not found.deleted
        ]

    async def put(self, kind: Kind, item: KubernetesObject) -> None:
        """Create an object."""
        item = copy.deepcopy(item)
        metadata = item["metadata"]
        self._complete(item)
        key = _key(kind, metadata["namespace"], metadata["name"])
        async with self._lock:
            if key in self._objects:
                self._objects[key].create(item)
            else:
                self._objects[key] = item
            await self._notify(kind, "ADDED", item)

    async def change(self, kind: Kind, namespace: str, name: str, patch: KubernetesObject) -> None:
        """Change an object, as a merge patch does."""
        async with self._lock:
            found = self._objects[_key(kind, namespace, name)]
            before = copy.deepcopy(found.raw)
            patch = self._with_generation(before, copy.deepcopy(patch))
            found.patch(patch)
            await self._notify(kind, "MODIFIED", found.raw)

    async def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object."""
        async with self._lock:
            found = self._objects[_key(kind, namespace, name)]
            raw = found.raw
            found.delete()
            self._applied.pop(_key(kind, namespace, name), None)
            await self._notify(kind, "DELETED", raw)

    async def _notify(self, kind: Kind, type_: str, raw: KubernetesObject) -> None:
        self.changed.set()
        if not self.deaf:
            await self._buses[_resource(kind)].put({"type": type_, "object": raw})

    # What requests do -------------------------------------------------------------------------

    async def _handle(self, request: rendering.Request) -> aiohttp.web.StreamResponse:
        self.asked += request.action != enums.action.WATCH and request.url.path != "/version"
        # kmock compares every request with all earlier ones; it is left watches and discovery.
        answers = {
            enums.action.CREATE: self._create,
            enums.action.UPDATE: self._update,
            enums.action.DELETE: self._delete,
            enums.action.FETCH: self._fetch,
            enums.action.LIST: self._list,
        }
        answer = answers.get(request.action) if _is_served(request) else None
        return await (super()._handle if answer is None else answer)(request)

    async def _create(self, request: rendering.Request) -> aiohttp.web.StreamResponse:
        kind, metadata = _kind(request.resource), request.data["metadata"]
        metadata.setdefault("namespace", request.namespace)
        if self.item(kind, metadata["namespace"], metadata["name"]) is not None:
            return _failure(409)
        await self.put(kind, request.data)
        return aiohttp.web.json_response(request.data, status=201)

    async def _delete(self, request: rendering.Request) -> aiohttp.web.StreamResponse:
        kind = _kind(request.resource)
        if self.item(kind, request.namespace, request.name) is None:
            return _failure(404)
        await self.remove(kind, request.namespace, request.name)
        return aiohttp.web.json_response({"kind": "Status", "status": "Success"})

    async def _update(self, request: rendering.Request) -> aiohttp.web.StreamResponse:
        key = (request.resource, request.namespace, request.name)
        kind = _kind(request.resource)
        found = self._found(key)
        is_apply = "apply-patch" in request.headers.get("Content-Type", "")
        if found is None:
            if not is_apply or request.subresource:
                return _failure(404)
            self._applied[key] = copy.deepcopy(request.data)
            await self.put(kind, request.data)
            return self._answer(kind, request)
        patch = copy.deepcopy(request.data)
        if is_apply:
            applied = (*key, request.subresource)
            earlier = self._applied.get(applied if request.subresource else key, {})
            conflicts = list(_conflicts(found.raw, earlier, patch))
            if conflicts and request.params.get("force") != "true":
                words = (
                    f'Apply failed with conflicts: conflict with "others": {", ".join(conflicts)}'
                )
                return _failure(409, words)
            self._applied[applied if request.subresource else key] = copy.deepcopy(patch)
            patch = _with_removals(earlier, patch)
        if _patched(found.raw, patch) != found.raw:  # else as the real one: no write, no event
            await self.change(kind, request.namespace, request.name, patch)
        return self._answer(kind, request)

    async def _fetch(self, request: rendering.Request) -> aiohttp.web.StreamResponse:
        return self._answer(_kind(request.resource), request)

    def _answer(self, kind: Kind, request: rendering.Request) -> aiohttp.web.StreamResponse:
        found = self.item(kind, request.namespace, request.name)
        return _failure(404) if found is None else aiohttp.web.json_response(found)

    async def _list(self, request: rendering.Request) -> aiohttp.web.StreamResponse:
        terms = [term for term in request.params.get("labelSelector", "").split(",") if term]
        items = [
            item
            for item in self.items(_kind(request.resource))
            if request.namespace in (None, item["metadata"].get("namespace"))
            and all(_is_selected(item, term) for term in terms)
        ]
        return aiohttp.web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    def _found(self, key: Any) -> Any:
        found = self._objects[key] if key in self._objects else None  # noqa: SIM401 - no get
        return None if found is None or found.deleted else found

    def _complete(self, item: KubernetesObject) -> None:
        number = next(self._numbers)
        item["metadata"].setdefault("uid", f"uid-{number}")
        item["metadata"].setdefault("generation", 1)
        item["metadata"].setdefault("creationTimestamp", "2026-11-23T00:00:00Z")
        item["metadata"]["resourceVersion"] = str(number)

    def _with_generation(
        self, before: KubernetesObject, patch: KubernetesObject
    ) -> KubernetesObject:
        after = _patched(before, patch)
        if after == before or after.get("spec") == before.get("spec"):
            return patch
        metadata = patch.setdefault("metadata", {})
        metadata["generation"] = before["metadata"]["generation"] + 1
        return patch


def _is_served(request: rendering.Request) -> bool:
    resource = request.resource
    return resource is not None and _name(resource) in SERVED


def _failure(code: int, message: str = "") -> aiohttp.web.Response:
    message = message or f"code {code}"
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return aiohttp.web.json_response(body, status=code)


def _is_selected(item: KubernetesObject, term: str) -> bool:
    name, sign, value = term.partition("=")
    labels = item["metadata"].get("labels") or {}
    return name in labels and (not sign or labels[name] == value)


def _resource(kind: Kind) -> Resource:
    group, _, version = kind.api_version.rpartition("/")
    return Resource(group, version, kind.plural)


def _kind(resource: Resource) -> Kind:
    name = _name(resource)
    return Kind(name.rpartition("/")[0], SERVED[name], name.rpartition("/")[2])


def _name(resource: Resource) -> str:
    return f"{resource.group}/{resource.version}/{resource.plural}".removeprefix("/")


def _key(kind: Kind, namespace: str, name: str) -> tuple[Resource, str, str]:
    return _resource(kind), namespace, name


def _patched(before: Any, patch: Any) -> Any:
    """Return `before` with a merge patch over it."""
    if not isinstance(patch, dict):
        return patch
    after = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = _patched(after.get(name), value)
    return after


def _conflicts(live: Any, earlier: Any, patch: Any, path: str = "") -> Iterator[str]:
    """Return the fields of an apply that have another value, which the applier did not set."""
    if isinstance(patch, dict) and isinstance(live, dict):
        earlier = earlier if isinstance(earlier, dict) else {}
        for name, value in patch.items():
            if name in live:
                yield from _conflicts(live[name], earlier.get(name), value, f"{path}.{name}")
    elif live not in (patch, earlier):
        yield path


def _with_removals(earlier: Any, patch: Any) -> Any:
    """Return `patch` with null for what the same applier set earlier and now leaves out."""
    if not isinstance(earlier, dict) or not isinstance(patch, dict):
        return patch
    gone = {name: None for name in earlier if name not in patch}
    others = {name: _with_removals(earlier.get(name), value) for name, value in patch.items()}
    return gone | others
