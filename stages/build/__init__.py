"""The build stage: from a commit to an image, without a Dockerfile."""

from stages.build.image import Builder
from stages.build.stage import BuildInput, BuildRecord, BuildStage

__all__ = ["BuildInput", "BuildRecord", "BuildStage", "Builder"]
