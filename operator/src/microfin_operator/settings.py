"""The operator's own settings: environment variables `MICROFIN_OPERATOR_…`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperatorSettings(BaseSettings):
    """What the operator is told. What it does it reads from MicrofinClusters."""

    model_config = SettingsConfigDict(
        env_prefix="MICROFIN_OPERATOR_", extra="ignore", hide_input_in_errors=True
    )

    namespaces: str = Field(
        default="",
        description="The namespaces whose MicrofinClusters it serves, separated by spaces; "
        "left out, all of them.",
    )
    http_host: str = Field(
        default="0.0.0.0",  # noqa: S104 - of the pod
        description="Where /healthz, /readyz and /metrics listen.",
    )
    http_port: int = Field(default=8080, ge=0, description="Their port.")
    resync_seconds: float = Field(
        default=600,
        gt=0,
        description="Seconds after which a cluster is looked at even if no watch told anything.",
    )
    look_seconds: float = Field(
        default=5,
        gt=0,
        description="Seconds between two looks at the workers' /status, which cost the API server "
        "nothing; while a cluster is not as desired, a fifth of it.",
    )
    lag_seconds: float = Field(
        default=30, gt=0, description="Seconds between two updates of a status of which only the "
        "lag has changed."
    )  # fmt: skip
    request_timeout: float = Field(
        default=15, gt=0, description="Seconds until a request to the API server counts as failed."
    )
    worker_port: int = Field(
        default=8081, ge=1, description="The port on which workers tell of themselves."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least serious log lines that are written."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="json for machines, console for people."
    )
