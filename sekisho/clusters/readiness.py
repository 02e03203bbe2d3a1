"""Asking a cluster, by its kubeconfig, whether its API server is ready."""

from __future__ import annotations

from pathlib import Path

import yaml

from sekisho.clusters.interface import ClusterStatus
from sekisho.errors import PermanentError, Refusal

_SECONDS = 5


def check_kubeconfig(path: Path, context: str) -> str:
    """Check that a file is a kubeconfig with a usable context.

    Returns:
        the URL of the context's server.

    Raises:
        PermanentError: the file cannot be read.
        Refusal: not a kubeconfig, no such context, or the context names what is not in the file.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PermanentError(
            f"The kubeconfig cannot be read: {error.strerror}.",
            where=str(path),
            remedy="Correct the profile's `kubeconfig`.",
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal("The kubeconfig is not YAML.", where=str(path)) from error
    if not isinstance(data, dict) or data.get("kind") != "Config":
        raise Refusal("This is not a kubeconfig (kind: Config).", where=str(path))
    contexts = _named(data, "contexts", "context", path)
    name = context or str(data.get("current-context") or "")
    if name not in contexts:
        known = ", ".join(sorted(contexts)) or "none"
        raise Refusal(
            f"The kubeconfig has no context {name!r}.",
            where=str(path),
            remedy=f"Set the profile's `context` to one of: {known}.",
        )
    cluster = _named(data, "clusters", "cluster", path).get(str(contexts[name].get("cluster")), {})
    if not cluster.get("server"):
        raise Refusal(f"The context {name!r} names a cluster without a server.", where=str(path))
    if str(contexts[name].get("user")) not in _named(data, "users", "user", path):
        raise Refusal(f"The context {name!r} names a user that is not in the file.", where=str(path))
    return str(cluster["server"])


def _named(data: dict[str, object], plural: str, single: str, path: Path) -> dict[str, dict[str, object]]:
    items = data.get(plural) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) and "name" in item for item in items):
        raise Refusal(f"/{plural} of the kubeconfig is not a list of named entries.", where=str(path))
    return {str(item["name"]): dict(item.get(single) or {}) for item in items}


def readiness(path: Path, context: str, state: ClusterStatus) -> ClusterStatus:
    """Return `state`, completed by what the API server answers to /readyz.

    Raises:
        PermanentError: see `check_kubeconfig`.
    """
    server = check_kubeconfig(path, context)
    state = state.model_copy(update={"server": server})
    from kubernetes import config  # noqa: PLC0415 -- its import takes a second
    from kubernetes.config import ConfigException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        client = config.new_client_from_config(config_file=str(path), context=context or None)  # type: ignore[no-untyped-call]
        # Asked on the wire and not through a typed call: /readyz answers plain text.
        headers: dict[str, str] = {}
        client.update_params_for_auth(headers, [], ["BearerToken"], "/readyz", "GET", None)
        answer = client.rest_client.pool_manager.request(
            "GET", f"{server.rstrip('/')}/readyz", headers=headers, timeout=_SECONDS, retries=False
        )
    except (HTTPError, OSError, ConfigException, ValueError) as error:
        return state.model_copy(update={"state": "not-ready", "message": f"{type(error).__name__}: {str(error)[:200]}"})
    ready = answer.status == 200  # noqa: PLR2004
    return state.model_copy(
        update={
            "state": "ready" if ready else "not-ready",
            "message": "" if ready else f"/readyz answers {answer.status}",
        }
    )
