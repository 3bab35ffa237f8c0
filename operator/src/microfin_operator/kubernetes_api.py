"""The operator's few requests to the API server, on the `kubernetes` package's asyncio client."""

import os
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from microfin_operator import metrics
from microfin_operator.kinds import Kind, KubernetesObject
from microfin_operator.names import FIELD_MANAGER

_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_REFUSALS: Final = frozenset((400, 403, 404, 422))


class ApiFailure(Exception):
    """The API server refused a request or could not be reached."""


class Refused(ApiFailure):
    """The API server understood the request and refused it: repeating it does not help."""


class KindMissing(ApiFailure):
    """The API server does not serve this kind: its CustomResourceDefinition is not installed."""


class KubernetesApi:
    """The API server. Every method raises `ApiFailure` if its request does not succeed."""

    def __init__(self, client: ApiClient, timeout: float) -> None:
        self._client = client
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def reach(self) -> None:
        """Ask the API server for its version."""
        self._checked(*await self._request("GET", "/version"))

    async def get(self, kind: Kind, namespace: str, name: str) -> KubernetesObject | None:
        """Return an object, or None if it does not exist. Raises `KindMissing`."""
        status, answer = await self._request("GET", kind.path(namespace, name))
        if status != _NOT_FOUND:
            return self._checked(status, answer)
        if not isinstance(answer, dict):
            raise KindMissing(f"the API server does not serve {kind.api_version} {kind.name}")
        return None

    async def list(self, kind: Kind, namespace: str, selector: str) -> list[KubernetesObject]:
        """Return the objects that have the labels of `selector`."""
        path = kind.path(namespace)
        status, answer = await self._request("GET", path, {"labelSelector": selector})
        items: list[KubernetesObject] = self._checked(status, answer).get("items") or []
        return items

    async def apply(
        self, kind: Kind, item: KubernetesObject, subresource: str = "", *, force: bool = True
    ) -> None:
        """Set the fields of `item`, and remove those that the operator set before and it lacks.

        Without `force`, raises `Refused` if others have set some of the fields to other values.
        """
        metadata = item["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        status, answer = await self._request("PATCH", path, query, item, _APPLY)
        if status == _CONFLICT and not force:
            message = answer.get("message") if isinstance(answer, dict) else answer
            raise Refused(
                f"{kind.name} {metadata['namespace']}/{metadata['name']} has fields that somebody "
                f"else has set: {str(message)[:1000]}. Remove them there, or set them as here"
            )
        self._checked(status, answer)

    async def create(self, kind: Kind, item: KubernetesObject) -> bool:
        """Create an object. Return False if one with its name exists."""
        query = {"fieldManager": FIELD_MANAGER}
        path = kind.path(item["metadata"]["namespace"])
        status, answer = await self._request("POST", path, query, item)
        if status == _CONFLICT:
            return False
        self._checked(status, answer)
        return True

    async def merge(
        self, kind: Kind, namespace: str, name: str, changes: Mapping[str, Any]
    ) -> None:
        """Change some fields of an object."""
        path = kind.path(namespace, name)
        query = {"fieldManager": FIELD_MANAGER}
        self._checked(*await self._request("PATCH", path, query, changes, _MERGE))

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete an object, unless another object has the name now."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        status, answer = await self._request("DELETE", kind.path(namespace, name), body=options)
        if status not in (_NOT_FOUND, _CONFLICT):
            self._checked(status, answer)

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> tuple[int, Any]:
        metrics.API_REQUESTS.labels(method).inc()
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=self._timeout)
            data = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiFailure(f"{method} {path}: {error!r}") from error
        return response.status, _decoded(data)

    def _checked(self, status: int, answer: Any) -> KubernetesObject:
        if status < 300 and isinstance(answer, dict):
            return answer
        message = answer.get("message") if isinstance(answer, dict) else answer
        failure = Refused if status in _REFUSALS else ApiFailure
        raise failure(f"the API server answered {status}: {str(message)[:1000]}")


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return data.decode(errors="replace")


async def connect(timeout: float) -> KubernetesApi:
    """Return the API server of the cluster that the pod runs in, or else the one of KUBECONFIG."""
    configuration = Configuration()
    # Python 3.13 also demands that a CA's certificate has the form of RFC 5280, which some
    # clusters' certificates do not have. The server's certificate and name are still verified.
    configuration.disable_strict_ssl_verification = True
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        # The client itself reads KUBECONFIG only once, when it is imported.
        path = os.environ.get("KUBECONFIG")
        await load_kube_config(config_file=path, client_configuration=configuration)
    return KubernetesApi(ApiClient(configuration), timeout)
