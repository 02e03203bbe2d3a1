"""The standard images' own gate: nobody builds on an image of the platform team that has not passed.

The same scanner, limits and waivers as for a workload. For each image of the lock the zone says how it was made (the
builder's key), what is in it and what is known to be wrong with it (the scanner's), and whether that may be built on
(the verifier's). A yes is also attached to the image; a NO is kept apart, under verdicts/, signed as well.

A verdict is found again by all that decides it: image, advisories, scanner, limits, end of life. What changes with the
clock alone is judged at each look: advisories grow old, waivers end, and so do images.
"""

from stages.standards.documents import StandardScan, StandardState, StandardVerdict
from stages.standards.stage import Signers, StandardsStage

__all__ = ["Signers", "StandardScan", "StandardState", "StandardVerdict", "StandardsStage"]
