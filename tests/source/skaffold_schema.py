"""What skaffold/v4beta13 allows, as far as skaffold.yaml uses it, and who breaks it.

Written down from the published schema (docs-v2/content/en/schemas/v4beta13.json of
GoogleContainerTools/skaffold), which refuses every field that it does not name.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

TEXT, NUMBER, TRUTH, ANY = "text", "number", "truth", "any"


class Kind(NamedTuple):
    """A kind of object: its fields with their kinds ([kind] is a list), and which it must have."""

    fields: dict[str, Any]
    required: tuple[str, ...] = ()


_PIPELINE: dict[str, Any] = {
    "build": "Build",
    "test": [ANY],
    "manifests": ANY,
    "deploy": "Deploy",
    "portForward": ["PortForward"],
    "resourceSelector": ANY,
    "verify": ["Verify"],
    "customActions": [ANY],
}
KINDS: dict[str, Kind] = {
    "Config": Kind(
        {"apiVersion": TEXT, "kind": TEXT, "metadata": "Metadata", "requires": ["Dependency"],
         "profiles": ["Profile"], **_PIPELINE}, ("apiVersion", "kind")),
    "Metadata": Kind({"name": TEXT, "labels": ANY, "annotations": ANY}),
    "Dependency": Kind({"configs": [TEXT], "path": TEXT, "git": ANY, "googleCloudStorage": ANY,
                        "activeProfiles": [ANY]}),
    "Profile": Kind({"name": TEXT, "activation": [ANY], "requiresAllActivations": TRUTH,
                     "patches": ["Patch"], **_PIPELINE}, ("name",)),
    "Patch": Kind({"op": TEXT, "path": TEXT, "from": TEXT, "value": ANY}, ("path",)),
    "Build": Kind({"artifacts": ["Artifact"], "insecureRegistries": [TEXT], "local": ANY,
                   "tagPolicy": "TagPolicy", "platforms": [TEXT], "cluster": ANY,
                   "googleCloudBuild": ANY}),
    "TagPolicy": Kind({"gitCommit": ANY, "sha256": ANY, "envTemplate": ANY, "dateTime": ANY,
                       "customTemplate": ANY, "inputDigest": ANY}),
    "Artifact": Kind({"image": TEXT, "context": TEXT, "docker": "Docker", "sync": "Sync",
                      "requires": [ANY], "hooks": ANY, "platforms": [TEXT], "runtimeType": TEXT},
                     ("image",)),
    "Docker": Kind({"dockerfile": TEXT, "target": TEXT, "buildArgs": ANY, "network": TEXT,
                    "addHost": [TEXT], "cacheFrom": [TEXT], "cliFlags": [TEXT], "pullParent": TRUTH,
                    "noCache": TRUTH, "squash": TRUTH, "secrets": [ANY], "ssh": TEXT}),
    "Sync": Kind({"manual": ["SyncRule"], "infer": [TEXT], "auto": TRUTH, "hooks": ANY}),
    "SyncRule": Kind({"src": TEXT, "dest": TEXT, "strip": TEXT}, ("src", "dest")),
    "Deploy": Kind({"helm": "Helm", "kubectl": ANY, "docker": ANY, "kpt": ANY, "cloudrun": ANY,
                    "statusCheck": TRUTH, "statusCheckDeadlineSeconds": NUMBER,
                    "tolerateFailuresUntilDeadline": TRUTH, "kubeContext": TEXT, "logs": ANY}),
    "Helm": Kind({"concurrency": NUMBER, "releases": ["Release"], "flags": ANY, "hooks": "Hooks"}),
    "Release": Kind(
        {"name": TEXT, "chartPath": TEXT, "remoteChart": TEXT, "valuesFiles": [TEXT],
         "namespace": TEXT, "version": TEXT, "setValues": ANY, "setValueTemplates": ANY,
         "setFiles": ANY, "createNamespace": TRUTH, "wait": TRUTH, "recreatePods": TRUTH,
         "skipBuildDependencies": TRUTH, "skipTests": TRUTH, "useHelmSecrets": TRUTH, "repo": TEXT,
         "upgradeOnChange": TRUTH, "overrides": ANY, "packaged": ANY, "dependsOn": [TEXT]},
        ("name",)),
    "Hooks": Kind({"before": ["Hook"], "after": ["Hook"]}),
    "Hook": Kind({"host": "HostHook", "container": ANY}),
    "HostHook": Kind({"command": [TEXT], "os": [TEXT], "dir": TEXT}, ("command",)),
    "PortForward": Kind({"resourceType": TEXT, "resourceName": TEXT, "namespace": TEXT, "port": ANY,
                         "address": TEXT, "localPort": NUMBER}),
    "Verify": Kind({"name": TEXT, "timeout": NUMBER, "container": "VerifyContainer",
                    "executionMode": "ExecutionMode"}, ("name", "container")),
    "VerifyContainer": Kind({"name": TEXT, "image": TEXT, "command": [TEXT], "args": [TEXT],
                             "env": [ANY]}, ("name", "image")),
    "ExecutionMode": Kind({"local": ANY, "kubernetesCluster": "ClusterVerifier"}),
    "ClusterVerifier": Kind({"overrides": TEXT, "jobManifestPath": TEXT}),
}  # fmt: skip


def violations(value: Any, kind: Any, place: str) -> Iterator[str]:
    """Yield what of `value` a kind does not allow, with its place."""
    if isinstance(kind, list):
        yield from _of_list(value, kind[0], place)
    elif kind in KINDS:
        yield from _of_object(value, KINDS[kind], place)
    elif kind == TEXT and not isinstance(value, str):
        yield f"{place} must be text"
    elif kind == TRUTH and not isinstance(value, bool):
        yield f"{place} must be true or false"
    elif kind == NUMBER and (isinstance(value, bool) or not isinstance(value, int)):
        yield f"{place} must be a whole number"


def _of_list(value: Any, kind: Any, place: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{place} must be a list"
        return
    for index, item in enumerate(value):
        yield from violations(item, kind, f"{place}[{index}]")


def _of_object(value: Any, kind: Kind, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place} must be an object"
        return
    yield from (f"{place} needs {name}" for name in kind.required if name not in value)
    for name, field in value.items():
        if name not in kind.fields:
            yield f"{place} has no field {name}"
        else:
            yield from violations(field, kind.fields[name], f"{place}.{name}")
