"""Command line: `python -m microfin_deploy deploy`, `undeploy`, `kind-up` and `kind-down`."""

import sys
from typing import Annotated

import typer

from microfin_deploy.commands import DeployError, progress, run
from microfin_deploy.images import provide_images, source_tag
from microfin_deploy.kind import CLUSTER, make_cluster
from microfin_deploy.platform import (
    ExistingKafka,
    inspect_platform,
    require_certificates,
    require_permission,
)
from microfin_deploy.releases import (
    OPERATOR_NAMESPACE,
    Wanted,
    install_application,
    install_data,
    install_operator,
    make_namespaces,
)
from microfin_deploy.removal import remove_bank, remove_operator
from microfin_deploy.summary import summary

application = typer.Typer(
    help="microfin in the Kubernetes cluster of KUBECONFIG.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_NAMESPACE = Annotated[str, typer.Option(help="The namespace of the bank and its data.")]


@application.command()
def deploy(
    namespace: _NAMESPACE = "microfin",
    size: Annotated[
        str, typer.Option(help="The charts' values-….yaml to use: dev or production.")
    ] = "dev",
    tag: Annotated[
        str,
        typer.Option(
            envvar="MICROFIN_DEPLOY_TAG",
            help="Tag of images that the nodes can pull; without it they are built.",
        ),
    ] = "",
    kafka: Annotated[
        str,
        typer.Option(
            metavar="NAMESPACE/NAME",
            envvar="MICROFIN_DEPLOY_KAFKA",
            help="A Kafka that Strimzi runs in another namespace, with a listener for client "
            "certificates on port 9093; without this option Strimzi makes one for the bank.",
        ),
    ] = "",
    shards: Annotated[
        int, typer.Option(min=1, help="Number of PostgreSQL clusters; it cannot change later.")
    ] = 1,
    host: Annotated[
        str, typer.Option(help="Host name of the Ingress, if there is an Ingress controller.")
    ] = "bank.localhost",
) -> None:
    """Install what is missing, in order, and wait until the bank works. Safe to repeat."""
    say = progress()
    existing = ExistingKafka.parse(kafka) if kafka else None
    platform = inspect_platform(say, existing)
    topic = "microfin.commands" if namespace == "microfin" else f"{namespace}.commands"
    if existing is not None:
        require_permission(existing, namespace, topic)
        require_certificates(existing)
    built = tag or source_tag()
    if not tag:
        say(f"images of this checkout: {built}")
        provide_images(built, say)
    wanted = Wanted(namespace, OPERATOR_NAMESPACE, size, built, shards, host, topic)
    make_namespaces(wanted)
    install_operator(wanted, platform, say)
    install_data(wanted, platform, say)
    install_application(wanted, platform, say)
    say("everything is ready")
    print(summary(wanted, platform))


@application.command()
def undeploy(
    namespace: _NAMESPACE = "microfin",
    patience: Annotated[
        int,
        typer.Option(
            min=1, max=800, help="Seconds after which each wait ends and says what it waited for."
        ),
    ] = 180,
) -> None:
    """Remove the bank, its data and its topic; with the last bank also the operator."""
    say = progress()
    remove_bank(namespace, patience, say)
    remove_operator(OPERATOR_NAMESPACE, patience, say)


@application.command()
def kind_up() -> None:
    """Create a kind cluster with Strimzi, CloudNativePG, ingress-nginx and the k6 operator."""
    make_cluster(progress())


@application.command()
def kind_down() -> None:
    """Delete the kind cluster."""
    run("kind", "delete", "cluster", "--name", CLUSTER)


def main() -> None:
    """Run the command line; print a DeployError's message without a traceback."""
    try:
        application()
    except DeployError as error:
        sys.exit(f"microfin: {error}")


if __name__ == "__main__":
    main()
