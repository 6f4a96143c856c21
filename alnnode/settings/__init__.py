"""The settings of the node: one TOML file, read once, frozen.

Precedence, highest first: environment ``ALNNODE__SECTION__KEY``, the file, the defaults of the sections. An unknown key, a value
of the wrong type or an impossible combination is a `SettingsError` that names the key, the reason and the remedy.
"""

from alnnode.settings.analyse import Analysis
from alnnode.settings.archives import Archive, ArchiveDicom, ArchiveDicomweb
from alnnode.settings.audit import Audit, AuditFile, AuditOff, AuditTls, AuditUdp
from alnnode.settings.database import Broker, Database
from alnnode.settings.deliver import Destination, DestinationCStore, DestinationStow, OAuth2
from alnnode.settings.internal import Internal
from alnnode.settings.loading import load, load_routes
from alnnode.settings.node import Logging, Node
from alnnode.settings.notify import Mail, Notify, Webhook
from alnnode.settings.receive import Commitment, Completion, Listener, ListenerUser, Requester, Route
from alnnode.settings.report import Report
from alnnode.settings.retention import Retention
from alnnode.settings.root import ENV_PREFIX, Settings
from alnnode.settings.section import Section
from alnnode.settings.tls import ClientTls, ListenerTls, ServerTls
from alnnode.settings.web import Oidc, Web, WebToken
from alnnode.settings.worklist import Worklist

__all__ = [
    "ENV_PREFIX",
    "Analysis",
    "Archive",
    "ArchiveDicom",
    "ArchiveDicomweb",
    "Audit",
    "AuditFile",
    "AuditOff",
    "AuditTls",
    "AuditUdp",
    "Broker",
    "ClientTls",
    "Commitment",
    "Completion",
    "Database",
    "Destination",
    "DestinationCStore",
    "DestinationStow",
    "Internal",
    "Listener",
    "ListenerTls",
    "ListenerUser",
    "Logging",
    "Mail",
    "Node",
    "Notify",
    "OAuth2",
    "Oidc",
    "Report",
    "Requester",
    "Retention",
    "Route",
    "Section",
    "ServerTls",
    "Settings",
    "Web",
    "WebToken",
    "Webhook",
    "Worklist",
    "load",
    "load_routes",
]
