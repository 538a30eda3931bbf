"""The settings of the server, as flags give them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Settings of the HTTP side. Field names are the flags' names with underscores.

    `api_key` and `served_model_name` are lists: each of the keys is accepted, each of the names served.
    `max_unsent_bytes` bounds what waits for one slow reader, besides what the kernel holds.
    """

    host: str = "0.0.0.0"
    port: int = 8000
    uds: str | None = None  # path of a Unix socket, instead of host and port
    api_key: list[str] = field(default_factory=list)
    served_model_name: list[str] = field(default_factory=list)
    allowed_origins: list[str] = field(default_factory=lambda: ["*"])  # of pages in browsers
    strict_params: bool = False
    trust_request_chat_template: bool = False
    enable_per_request_metrics: bool = False
    disable_log_stats: bool = False
    log_level: str = "info"
    shutdown_timeout: float = 25.0  # seconds that running requests may go on after SIGTERM
    max_body_bytes: int = 32 << 20
    max_unsent_bytes: int = 1 << 20
