"""Keys of earlier versions, and what an administrator writes instead of each."""

from __future__ import annotations

_FIXED = "can no longer be set; remove it. "

# By section and key, without the numbers of tables. A text completes "listener.acse_timeout: ".
RENAMED = {
    "listener.acse_timeout": "is now listener.timeout, and at most 30 s",
    "listener.dimse_timeout": "is now listener.timeout",
    "listener.network_timeout": "is now listener.timeout",
    "listener.max_peer_connections": f"{_FIXED}One address may have half of listener.max_associations; raise that for a gateway.",
    "listener.max_peer_rate": f"{_FIXED}One address may open 50 connections a second to each process.",
    "listener.max_pdu": f"{_FIXED}The listener receives PDUs of up to 131072 bytes.",
    "destinations.retry_first": f"{_FIXED}The first retry comes after 5 s.",
    "destinations.retry_ceiling": f"{_FIXED}The waits between retries grow to 15 minutes.",
    "destinations.commitment_timeout": f"{_FIXED}The node asks for storage commitment again after an hour.",
    "destinations.commitment_attempts": f"{_FIXED}A delivery fails after 72 unanswered storage commitment requests.",
    "routes.min_slice_thickness": "is now routes.slice_thickness, whose first value is the least thickness",
    "routes.max_slice_thickness": "is now routes.slice_thickness, whose second value is the greatest thickness",
    "completion.sweep_interval": f"{_FIXED}The node looks for complete series every second.",
    "analysis.window_center": "is now analysis.window, whose first value is the centre",
    "analysis.window_width": "is now analysis.window, whose second value is the width",
    "broker.time_limit": "is now analysis.time_limit",
    "broker.max_attempts": f"{_FIXED}A job fails after 3 analyses that did not finish.",
    "database.pool_size": f"{_FIXED}Each process has up to 10 connections, of which it keeps 5 open.",
    "web.certificate": "is now web.tls.certificate",
    "web.key": "is now web.tls.private_key",
    "web.max_request_mb": f"{_FIXED}A request may have 16 GiB.",
    "web.max_peer_connections": f"{_FIXED}One address may have half of web.max_connections; raise that for a proxy, or use trusted_proxies.",
    "web.header_timeout": f"{_FIXED}A client has 10 s to send the head of a request.",
    "web.body_timeout": f"{_FIXED}A body must grow by 64 KiB within 30 s.",
    "web.max_rate": f"{_FIXED}One client may send 500 requests a second.",
    "worklist.interval": f"{_FIXED}The node looks at the worklist every half second.",
    "worklist.fetch_attempts": f"{_FIXED}A workitem is canceled after 3 attempts to fetch its input.",
    "audit.to": "is now audit.kind",
    "audit.ca": "is now audit.tls.ca",
    "audit.server_name": "is now audit.tls.server_name",
    "audit.certificate": "is now audit.tls.certificate",
    "audit.private_key": "is now audit.tls.private_key",
    "audit.max_waiting": f"{_FIXED}Up to 100000 messages wait while the repository is down.",
    "retention.clean_to_mb": f"{_FIXED}An early deletion ends when twice clean_below_mb is free.",
}
