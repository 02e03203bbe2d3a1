"""A zone's Kubernetes API server: server-side apply, dry run, get, list, delete, by apiVersion, kind and name.

A thin client on the official `kubernetes` package, which loads kubeconfigs, TLS and tokens. Objects are plain
mappings, because their schema is the API server's. Every error is one of the line's and carries the server's message,
but never for Secrets, whose values the server quotes. Proxies of the environment are not used: a zone talks to its
own API server and to nobody else.

Source of formats: https://kubernetes.io/docs/reference/using-api/api-concepts/ and
https://kubernetes.io/docs/reference/using-api/server-side-apply/.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from sekisho.errors import PermanentError, Refusal, SekishoError, TemporaryError
from sekisho.kube_errors import Conflict, error_of
from sekisho.refs import Ref

__all__ = ["FIELD_MANAGER", "Conflict", "Kube", "Ref"]

FIELD_MANAGER = "sekisho"
_APPLY = "application/apply-patch+yaml"
_JSON = "application/json"
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_PAGE = 500
_GROUP_AND_VERSION = 2


@dataclass(frozen=True)
class _Resource:
    plural: str
    namespaced: bool


class Kube:
    """One cluster's API server. Safe for use by several threads.

    Args:
        client: `kubernetes.client.ApiClient`, or what has its `call_api` and `configuration`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._discovered: dict[str, dict[str, _Resource]] = {}
        self._lock = threading.Lock()

    @classmethod
    def connect(cls, kubeconfig: Path, context: str = "") -> Kube:
        """Return the client of a kubeconfig's cluster; opens no connection yet.

        Raises:
            PermanentError: the kubeconfig cannot be read or names no cluster.
        """
        # Imported here: it takes a quarter of a second, which a command that needs no cluster should not pay.
        from kubernetes import client, config  # noqa: PLC0415
        from urllib3 import Retry  # noqa: PLC0415

        settings = client.Configuration()
        try:
            load: Any = config.load_kube_config
            load(str(kubeconfig), context=context or None, client_configuration=settings, persist_config=False)
        except Exception as error:  # the package raises ConfigException, OSError, yaml errors, KeyError, ...
            raise PermanentError(
                f"The kubeconfig cannot be used: {type(error).__name__}.",
                where=str(kubeconfig),
                remedy="Check that the file exists, is readable by this user and names a cluster and a user.",
            ) from error
        settings.proxy = None
        settings.retries = Retry(connect=2, read=0, redirect=0, status=0, other=0, backoff_factor=0.1)
        return cls(client.ApiClient(settings))

    @property
    def settings(self) -> Any:
        """The client's configuration: server, certificates, tokens."""
        return self._client.configuration

    # -- objects ---------------------------------------------------------------------------------------------

    def apply(self, obj: Mapping[str, Any], *, dry_run: bool = False, force: bool = True) -> dict[str, Any]:
        """Apply an object server-side as field manager `sekisho` and return the object as it is then.

        Args:
            obj: the fields that the line wants; nothing else is touched.
            dry_run: answer as if applied, change nothing.
            force: take over fields that another manager holds.

        Raises:
            Conflict: not forced, and another manager holds a field.
            Refusal: the API server or an admission policy says no.
            TemporaryError, PermanentError: as `request`.
        """
        ref = Ref.of(obj)
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false", "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return self._object(
            "PATCH", self.path(ref), query, obj, content_type=_APPLY, where=str(ref), secret=ref.kind == "Secret"
        )

    def create(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object that must not exist yet.

        Raises:
            Conflict: it exists.
            Refusal, TemporaryError, PermanentError: as `apply`.
        """
        metadata = obj.get("metadata", {})
        named = {**obj, "metadata": {**metadata, "name": metadata.get("name") or metadata.get("generateName")}}
        ref = Ref.of(named)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return self._object("POST", self._collection(ref), query, obj, where=str(ref), secret=ref.kind == "Secret")

    def replace(self, obj: Mapping[str, Any], *, manager: str = FIELD_MANAGER) -> dict[str, Any]:
        """Replace an object; with metadata.resourceVersion this is a compare-and-swap.

        Raises:
            Conflict: the object changed since that resourceVersion, or is gone.
            Refusal, TemporaryError, PermanentError: as `apply`.
        """
        ref = Ref.of(obj)
        query = {"fieldManager": manager}
        return self._object("PUT", self.path(ref), query, obj, where=str(ref), secret=ref.kind == "Secret")

    def get(self, ref: Ref) -> dict[str, Any] | None:
        """Return an object, or None when it (or its kind) does not exist."""
        path = self._path_or_none(ref)
        return None if path is None else self.request("GET", path, where=str(ref), missing=True)

    def list(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> tuple[dict[str, Any], ...]:
        """Return all objects of a kind, of one namespace or (empty) of all; page by page.

        Args:
            api_version: for example `apps/v1`.
            kind: for example `Deployment`.
            namespace: empty for all.
            labels: label selector.
            fields: field selector.
        """
        ref = Ref(api_version, kind, namespace, "-")
        collection = self._collection(ref, every_namespace=not namespace)
        items: list[dict[str, Any]] = []
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = self.request("GET", collection, query, where=f"{api_version}/{kind}") or {}
            # Items of a typed list come without apiVersion and kind.
            items += [{**item, "apiVersion": api_version, "kind": kind} for item in page.get("items") or []]
            query["continue"] = page.get("metadata", {}).get("continue") or ""
            if not query["continue"]:
                return tuple(items)

    def delete(self, ref: Ref, *, uid: str = "") -> bool:
        """Delete an object and, in the background, what it owns. Return whether it was there.

        Args:
            ref: the object.
            uid: when given, only the object with this uid.

        Raises:
            Conflict: the object has another uid.
        """
        path = self._path_or_none(ref)
        if path is None:
            return False
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        return self.request("DELETE", path, body=options, where=str(ref), missing=True) is not None

    def logs(self, namespace: str, pod: str, container: str, *, previous: bool = False, lines: int = 10) -> str:
        """Return the last lines of a container's log, at most 16 KiB; empty when there are none."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/log"
        query = {"container": container, "tailLines": str(lines), "limitBytes": "16384"}
        if previous:
            query["previous"] = "true"
        try:
            return self._send("GET", path, query, where=f"{namespace}/{pod}")[1].decode("utf-8", "replace")
        except SekishoError:
            return ""  # a log is an illustration of a cause, never the cause itself

    def ready(self) -> bool:
        """Return whether the API server answers and says that it is ready."""
        try:
            return self._send("GET", "/readyz", {}, where="readyz")[0] == HTTPStatus.OK
        except SekishoError:
            return False

    def knows(self, api_version: str, kind: str) -> bool:
        """Return whether the API server serves a kind."""
        return self._resource(api_version, kind) is not None

    def namespaced(self, api_version: str, kind: str) -> bool:
        """Return whether objects of a kind live in namespaces.

        Raises:
            Refusal: the API server does not serve the kind.
        """
        return self._required(api_version, kind).namespaced

    # -- paths -----------------------------------------------------------------------------------------------

    def path(self, ref: Ref) -> str:
        """Return the URL path of an object.

        Raises:
            Refusal: the API server does not serve the kind, or the namespace is missing.
        """
        return f"{self._collection(ref)}/{quote(ref.name, safe='')}"

    def _path_or_none(self, ref: Ref) -> str | None:
        return self.path(ref) if self._resource(ref.api_version, ref.kind) else None

    def _collection(self, ref: Ref, *, every_namespace: bool = False) -> str:
        resource = self._required(ref.api_version, ref.kind)
        root = _root(ref.api_version)
        if not resource.namespaced or every_namespace:
            return f"{root}/{resource.plural}"
        if not ref.namespace:
            raise Refusal("The object needs a namespace.", where=str(ref))
        return f"{root}/namespaces/{quote(ref.namespace, safe='')}/{resource.plural}"

    def _required(self, api_version: str, kind: str) -> _Resource:
        resource = self._resource(api_version, kind)
        if resource is None:
            raise Refusal(
                f"The cluster does not know the kind {kind} of {api_version}.",
                where=f"{api_version}/{kind}",
                remedy="Use a kind that the cluster serves, or have the platform team install its definition.",
            )
        return resource

    def _resource(self, api_version: str, kind: str) -> _Resource | None:
        with self._lock:
            known = self._discovered.get(api_version)
        if known is None or kind not in known:
            found = self.request("GET", _root(api_version), where=api_version, missing=True) or {}
            known = {
                item["kind"]: _Resource(item["name"], bool(item["namespaced"]))
                for item in found.get("resources") or []
                if "/" not in item["name"]
            }
            with self._lock:
                self._discovered[api_version] = known
        return known.get(kind)

    # -- requests --------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = _JSON,
        where: str = "",
        missing: bool = False,
        secret: bool = False,
    ) -> dict[str, Any] | None:
        """Send one request and return the answer's JSON.

        Args:
            method: HTTP method.
            path: from the root of the API server.
            query: parameters; empty ones are left out.
            body: sent as JSON.
            content_type: of the body.
            where: for errors.
            missing: answer None to HTTP 404.
            secret: keep the server's message out of errors, because it may quote values.

        Raises:
            Conflict: HTTP 409.
            Refusal: the API server says no to the object (400, 403 of an admission policy, 413, 422).
            TemporaryError: not reachable, overloaded or 5xx.
            PermanentError: this user may not do that, or no such path.
        """
        status, data = self._send(method, path, query or {}, body, content_type=content_type, where=where)
        if status == HTTPStatus.NOT_FOUND and missing:
            return None
        if status >= HTTPStatus.BAD_REQUEST:
            raise error_of(status, data, where=where, secret=secret)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise TemporaryError("The API server's answer is not JSON.", where=where) from error
        if not isinstance(answer, dict):
            raise TemporaryError("The API server's answer is not an object.", where=where)
        return answer

    def _object(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any],
        *,
        content_type: str = _JSON,
        where: str,
        secret: bool,
    ) -> dict[str, Any]:
        answer = self.request(method, path, query, body, content_type=content_type, where=where, secret=secret)
        return answer or {}

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = _JSON,
        where: str = "",
    ) -> tuple[int, bytes]:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            answer = self.open(method, path, query, body, content_type=content_type, where=where)
            return answer.status, answer.read() or b""
        except (HTTPError, OSError) as error:
            raise _unreachable(error, where or path) from error

    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = _JSON,
        where: str = "",
        seconds: float = _READ_SECONDS,
    ) -> Any:
        """Send one request and return the answer before its body is read, whatever its status.

        Raises:
            TemporaryError: the API server cannot be reached.
        """
        from kubernetes.client import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        settings = self._client.configuration
        filled = {name: value for name, value in query.items() if value}
        url = settings.host.rstrip("/") + path + (f"?{urlencode(filled)}" if filled else "")
        headers = {"Accept": _JSON, "User-Agent": FIELD_MANAGER}
        if body is not None:
            headers["Content-Type"] = content_type
        for setting in settings.auth_settings().values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        try:
            return self._client.call_api(
                method,
                url,
                headers,
                body=None if body is None else json.dumps(body) if content_type == _APPLY else body,
                _request_timeout=(_CONNECT_SECONDS, seconds),
            )
        except (HTTPError, OSError, ApiException) as error:
            raise _unreachable(error, where or path) from error


def _unreachable(error: Exception, where: str) -> TemporaryError:
    return TemporaryError(
        f"The API server cannot be reached: {type(error).__name__}.",
        where=where,
        remedy="Wait until the cluster is up; `sekisho status` shows it.",
    )


def _root(api_version: str) -> str:
    parts = [quote(part, safe="") for part in api_version.split("/")]
    if len(parts) > _GROUP_AND_VERSION or not all(parts):
        raise Refusal(f"{api_version[:100]!r} is not an apiVersion.")
    return f"/api/{parts[0]}" if len(parts) == 1 else f"/apis/{'/'.join(parts)}"
