"""The node's settings: one TOML file, read once, frozen.

Precedence, highest first: environment ``ALNNODE__SECTION__KEY``, the file, the defaults of the sections. An unknown key, a value
of the wrong kind or an impossible combination is a `SettingsError` that names the key, says why and what to do.
"""

from alnnode.settings.analysis import Analysis, Completion, Report, Route, Worklist
from alnnode.settings.loading import load
from alnnode.settings.node import Audit, Broker, Database, Logging, Node, Retention
from alnnode.settings.peers import (
    Archive,
    Commitment,
    Destination,
    DestinationTls,
    Listener,
    ListenerTls,
    ListenerUser,
    OAuth2,
    Requester,
)
from alnnode.settings.root import ENV_PREFIX, Settings
from alnnode.settings.section import Section
from alnnode.settings.web import Oidc, Web, WebToken

__all__ = [
    "ENV_PREFIX",
    "Analysis",
    "Archive",
    "Audit",
    "Broker",
    "Commitment",
    "Completion",
    "Database",
    "Destination",
    "DestinationTls",
    "Listener",
    "ListenerTls",
    "ListenerUser",
    "Logging",
    "Node",
    "OAuth2",
    "Oidc",
    "Report",
    "Requester",
    "Retention",
    "Route",
    "Section",
    "Settings",
    "Web",
    "WebToken",
    "Worklist",
    "load",
]
