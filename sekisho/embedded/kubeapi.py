"""A small client of a zone's API server for bringing it up: admin's certificate, from inside the zone's network.

The official client would do it too, but its import takes a second, and `up` must be quick when all is up.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any, cast
from urllib.parse import quote

from sekisho.embedded import netns
from sekisho.embedded.cluster_home import ClusterHome
from sekisho.errors import PermanentError, TemporaryError
from sekisho.zones import Port, Zone, address

_CLIENT_ERROR = 400
_SERVER_ERROR = 500
_NOT_FOUND = 404
_TOO_MANY = 429


class KubeApi:
    """One zone's API server."""

    def __init__(self, zone: Zone) -> None:
        self.home = ClusterHome(zone)
        self._context: ssl.SSLContext | None = None
        self._connection: http.client.HTTPSConnection | None = None

    def _connect(self) -> http.client.HTTPSConnection:
        if self._connection is not None:
            return self._connection
        if self._context is None:
            self._context = ssl.create_default_context(cafile=self.home.authority.certificate)
            self._context.load_cert_chain(*self.home.authority.path("admin"))
        host = address(self.home.zone)
        sock = netns.connect(self.home.zone, host, Port.APISERVER, timeout=10)
        connection = http.client.HTTPSConnection(host, Port.APISERVER, timeout=10, context=self._context)
        connection.sock = self._context.wrap_socket(sock, server_hostname=host)
        self._connection = connection
        return connection

    def request(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Any:
        """Send one request and return the answer's JSON (None for 404).

        Raises:
            TemporaryError: the server is not there, is overloaded, or fails.
            PermanentError: it refuses; carries its own words.
        """
        data = None if body is None else json.dumps(body).encode()
        try:
            connection = self._connect()
            connection.request(
                method, path, body=data, headers={"Content-Type": content_type, "Accept": "application/json"}
            )
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TemporaryError(f"The API server does not answer: {error}", where=self.home.server) from error
        if answer.will_close:
            self.close()
        if answer.status == _NOT_FOUND and method in {"GET", "DELETE"}:
            return None
        if answer.status >= _CLIENT_ERROR:
            message = f"The API server answers {answer.status} to {method} {path}: {_words(content)}"
            if answer.status >= _SERVER_ERROR or answer.status == _TOO_MANY:
                raise TemporaryError(message, where=self.home.server)
            raise PermanentError(message, where=self.home.server)
        return json.loads(content) if content else {}

    def apply(self, item: dict[str, Any]) -> None:
        """Apply one object (server-side apply, as `sekisho-up`)."""
        self.request(
            "PATCH",
            f"{object_path(item)}?fieldManager=sekisho-up&force=true",
            item,
            content_type="application/apply-patch+yaml",
        )

    def node_ready(self) -> bool:
        """Tell whether the node says Ready."""
        try:
            node = self.request("GET", f"/api/v1/nodes/{self.home.node}")
        except TemporaryError:
            return False
        conditions = (node or {}).get("status", {}).get("conditions", [])
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_PLURALS = {
    "Namespace": "namespaces",
    "Service": "services",
    "EndpointSlice": "endpointslices",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
_CLUSTER_WIDE = set(_PLURALS) - {"Service", "EndpointSlice"}


def object_path(item: dict[str, Any]) -> str:
    """Return the API path of one of the kinds that `up` applies."""
    version, kind = item["apiVersion"], item["kind"]
    base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    name = quote(item["metadata"]["name"], safe="")
    if kind in _CLUSTER_WIDE:
        return f"{base}/{_PLURALS[kind]}/{name}"
    return f"{base}/namespaces/{item['metadata']['namespace']}/{_PLURALS[kind]}/{name}"


def _words(content: bytes) -> str:
    try:
        return str(cast("dict[str, Any]", json.loads(content)).get("message", ""))[:300]
    except (ValueError, AttributeError):
        return content[:200].decode(errors="replace")
