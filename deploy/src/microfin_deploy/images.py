"""Builds the images and loads them into the cluster's nodes."""

import hashlib
import shutil

from microfin_deploy.commands import ROOT, DeployError, Say, kubectl, run, succeeds

COMPONENTS = ("api", "worker", "operator")
_SOURCES = ("Dockerfile", "images", "services", "operator")


def source_tag() -> str:
    """Return a tag that is a hash of the images' sources, so that every change is rolled out."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", *_SOURCES).splitlines()
    digest = hashlib.sha256()
    for name in sorted(listed):
        path = ROOT / name
        if path.is_file():
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return f"dev-{digest.hexdigest()[:12]}"


def image(component: str, tag: str) -> str:
    """Return the name of a component's image."""
    return f"ghcr.io/microfin/{component}:{tag}"


def provide_images(tag: str, say: Say) -> None:
    """Build the images that are missing and load them into the nodes. Raises DeployError."""
    names = [image(component, tag) for component in COMPONENTS]
    if shutil.which("docker") is None:
        raise DeployError(
            "docker, which builds the images, is not installed. Build and push them elsewhere, and "
            "give their tag: make deploy ARGS='--tag 1.0.0'"
        )
    for component, name in zip(COMPONENTS, names, strict=True):
        if not succeeds("docker", "image", "inspect", name):
            say(f"building {name}")
            run("docker", "build", "--quiet", "--target", component, "--tag", name, ".")
    context = kubectl("config", "current-context").strip()
    if not context.startswith("kind-"):
        raise DeployError(
            f"The images are built, but this command cannot load them into the nodes of {context}. "
            f"Push them to a registry that the nodes reach, and run: make deploy ARGS='--tag {tag}'"
        )
    say("loading the images into kind's nodes")
    run("kind", "load", "docker-image", "--name", context.removeprefix("kind-"), *names)
