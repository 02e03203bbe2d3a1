"""Something has to say how a workload starts: its language's own files, or score.yaml."""

from __future__ import annotations

from sekisho.errors import Refusal
from sekisho.score.files import SCORE
from sekisho.score.source import read_document
from stages.build.language import Plan
from stages.build.project import Project

_OWN_IMAGE = "."
_SCORE_LIMIT = 1 << 20


def check_command(project: Project, plan: Plan) -> None:
    """Refuse a workload that nothing starts.

    Raises:
        Refusal: the plan has no command, and a container of score.yaml that runs this image names none either.
    """
    if plan.no_command is not None and not starts_itself(project):
        raise plan.no_command


def starts_itself(project: Project) -> bool:
    """Tell whether score.yaml names a command for every container that runs what is built here."""
    data = project.read(SCORE, limit=_SCORE_LIMIT)
    if data is None:
        return False
    try:
        containers = read_document(data, SCORE).value["containers"].values()
        own = [container for container in containers if container["image"] == _OWN_IMAGE]
    except (Refusal, KeyError, TypeError, AttributeError):
        return False  # what is wrong with the file, the render stage says
    return bool(own) and all(container.get("command") for container in own)
