"""API versions that Kubernetes has removed, and what to use instead.

Source: https://kubernetes.io/docs/reference/using-api/deprecation-guide/, and from 1.33 on the difference between the
published OpenAPI documents of one version and the next (k8s.io/kubernetes, api/openapi-spec/v3), without alpha APIs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Removed:
    """An API that is not served any more."""

    version: str
    """The first Kubernetes version without it."""
    instead: str
    """The apiVersion that took its place; empty where nothing did."""


_APPS = ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")
_FLOWS = ("FlowSchema", "PriorityLevelConfiguration")
_TABLE: Mapping[tuple[str, tuple[str, ...]], Removed] = {
    ("extensions/v1beta1", ("DaemonSet", "Deployment", "ReplicaSet")): Removed("1.16", "apps/v1"),
    ("extensions/v1beta1", ("NetworkPolicy",)): Removed("1.16", "networking.k8s.io/v1"),
    ("extensions/v1beta1", ("PodSecurityPolicy",)): Removed("1.16", ""),
    ("extensions/v1beta1", ("Ingress",)): Removed("1.22", "networking.k8s.io/v1"),
    ("apps/v1beta1", _APPS): Removed("1.16", "apps/v1"),
    ("apps/v1beta2", _APPS): Removed("1.16", "apps/v1"),
    ("networking.k8s.io/v1beta1", ("Ingress", "IngressClass")): Removed("1.22", "networking.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1beta1", ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")): Removed(
        "1.22", "rbac.authorization.k8s.io/v1"
    ),
    ("apiextensions.k8s.io/v1beta1", ("CustomResourceDefinition",)): Removed("1.22", "apiextensions.k8s.io/v1"),
    ("admissionregistration.k8s.io/v1beta1", ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")):
        Removed("1.22", "admissionregistration.k8s.io/v1"),
    ("apiregistration.k8s.io/v1beta1", ("APIService",)): Removed("1.22", "apiregistration.k8s.io/v1"),
    ("authentication.k8s.io/v1beta1", ("TokenReview",)): Removed("1.22", "authentication.k8s.io/v1"),
    ("authorization.k8s.io/v1beta1", ("LocalSubjectAccessReview", "SelfSubjectAccessReview", "SubjectAccessReview")):
        Removed("1.22", "authorization.k8s.io/v1"),
    ("certificates.k8s.io/v1beta1", ("CertificateSigningRequest",)): Removed("1.22", "certificates.k8s.io/v1"),
    ("coordination.k8s.io/v1beta1", ("Lease",)): Removed("1.22", "coordination.k8s.io/v1"),
    ("scheduling.k8s.io/v1beta1", ("PriorityClass",)): Removed("1.22", "scheduling.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", ("CSIDriver", "CSINode", "StorageClass", "VolumeAttachment")): Removed(
        "1.22", "storage.k8s.io/v1"
    ),
    ("batch/v1beta1", ("CronJob",)): Removed("1.25", "batch/v1"),
    ("discovery.k8s.io/v1beta1", ("EndpointSlice",)): Removed("1.25", "discovery.k8s.io/v1"),
    ("events.k8s.io/v1beta1", ("Event",)): Removed("1.25", "events.k8s.io/v1"),
    ("policy/v1beta1", ("PodDisruptionBudget",)): Removed("1.25", "policy/v1"),
    ("policy/v1beta1", ("PodSecurityPolicy",)): Removed("1.25", ""),
    ("node.k8s.io/v1beta1", ("RuntimeClass",)): Removed("1.25", "node.k8s.io/v1"),
    ("autoscaling/v2beta1", ("HorizontalPodAutoscaler",)): Removed("1.25", "autoscaling/v2"),
    ("autoscaling/v2beta2", ("HorizontalPodAutoscaler",)): Removed("1.26", "autoscaling/v2"),
    ("storage.k8s.io/v1beta1", ("CSIStorageCapacity",)): Removed("1.27", "storage.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta1", _FLOWS): Removed("1.26", "flowcontrol.apiserver.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta2", _FLOWS): Removed("1.29", "flowcontrol.apiserver.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta3", _FLOWS): Removed("1.32", "flowcontrol.apiserver.k8s.io/v1"),
    ("admissionregistration.k8s.io/v1beta1", ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")):
        Removed("1.34", "admissionregistration.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", ("IPAddress", "ServiceCIDR")): Removed("1.37", "networking.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", ("VolumeAttributesClass",)): Removed("1.37", "storage.k8s.io/v1"),
}  # fmt: skip


def removed(obj: Mapping[str, Any]) -> Removed | None:
    """Return since when an object's API is no more, or None where it was never removed."""
    api, kind = obj.get("apiVersion"), obj.get("kind")
    return next((gone for (version, kinds), gone in _TABLE.items() if version == api and kind in kinds), None)
