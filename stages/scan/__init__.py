"""The scan stage: what is in an image, its source and its manifests, and what is known to be wrong with it."""

from stages.scan.database import Database, ensure_database
from stages.scan.stage import ScanInput, ScanRecord, ScanStage, scan_tree
from stages.scan.trivy import sweep

__all__ = ["Database", "ScanInput", "ScanRecord", "ScanStage", "ensure_database", "scan_tree", "sweep"]
