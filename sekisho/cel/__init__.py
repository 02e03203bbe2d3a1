"""CEL as the API server knows it: compiled, checked and evaluated here with the same outcome.

The environment is that of ValidatingAdmissionPolicy in Kubernetes 1.36 (k8s.io/apiserver, pkg/cel/environment/base.go):
the standard library, optional types, the extensions for strings, sets, lists and two-variable comprehensions, and
Kubernetes' own functions for quantities, addresses, URLs, versions, lists, regular expressions and named formats.
The rule of this package: what compiles here, compiles there and means the same. What the API server does not have is
refused, and so is what this evaluation could not do exactly (`sekisho.cel.exact` says what and why).
"""

from sekisho.cel.environment import Environment, Expression, all_of
from sekisho.cel.opaque import EvaluationError

__all__ = ["Environment", "EvaluationError", "Expression", "all_of"]
