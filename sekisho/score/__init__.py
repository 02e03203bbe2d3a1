"""Score v1b1 (score.dev): what a developer writes about a workload, read with suspicion."""

from sekisho.score.files import SCORE, FileError, read_score, reader
from sekisho.score.placeholders import PlaceholderError, Reference, resolve
from sekisho.score.source import Problem, Problems, Source, read_document, read_documents
from sekisho.score.workload import Container, Resource, Workload, load_score, start_order

__all__ = [
    "SCORE",
    "Container",
    "FileError",
    "PlaceholderError",
    "Problem",
    "Problems",
    "Reference",
    "Resource",
    "Source",
    "Workload",
    "load_score",
    "read_document",
    "read_documents",
    "read_score",
    "reader",
    "resolve",
    "start_order",
]
