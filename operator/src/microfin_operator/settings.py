"""The operator's own settings: environment variables `MICROFIN_OPERATOR_…`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperatorSettings(BaseSettings):
    """The operator's settings. The desired state is in MicrofinClusters."""

    model_config = SettingsConfigDict(
        env_prefix="MICROFIN_OPERATOR_", extra="ignore", hide_input_in_errors=True
    )

    namespaces: str = Field(
        default="",
        description="The namespaces whose MicrofinClusters it serves, separated by spaces; "
        "empty for all namespaces.",
    )
    http_host: str = Field(
        default="",
        description="The address on which /healthz, /readyz and /metrics listen; empty for all "
        "addresses, IPv4 and IPv6.",
    )
    http_port: int = Field(default=8080, ge=0, description="Their port.")
    resync_seconds: float = Field(
        default=600,
        gt=0,
        description="Seconds after which a cluster is checked even if no watch reported a change.",
    )
    look_seconds: float = Field(
        default=2,
        gt=0,
        description="Seconds between two reads of the workers' /status, which do not load the API "
        "server; half of it while a cluster is not as desired.",
    )
    lag_seconds: float = Field(
        default=30, gt=0, description="Seconds between two updates of a status in which only the "
        "lag has changed."
    )  # fmt: skip
    request_timeout: float = Field(
        default=15, gt=0, description="Seconds until a request to the API server counts as failed."
    )
    worker_port: int = Field(
        default=8081, ge=1, description="The port on which workers report their state."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least serious log lines that are written."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="json for machines, console for people."
    )
