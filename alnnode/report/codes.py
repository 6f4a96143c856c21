"""Coded concepts (PS3.16; SNOMED CT, UCUM, LOINC), and private codes where no standard code exists.

Probability of metastasis, axillary level and a cautious assessment have no standard code. The pathology codes for metastatic and normal
nodes (111330, 111301) assert a diagnosis, which an algorithm must not.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from alnnode.records import Crop, Level, NodeSource, Side
from alnnode.records.comparison import Change, Growth

SCHEME = "99ALNNODE"

AXILLARY_LYMPH_NODE = Code("68171009", "SCT", "Axillary lymph node")
LYMPH_NODE = Code("59441001", "SCT", "Lymph node")
LATERALITY = {Side.RIGHT: Code("24028007", "SCT", "Right"), Side.LEFT: Code("7771000", "SCT", "Left")}
# OHIF compares these two meanings literally; they are those of CID 7470.
LONG_AXIS = Code("103339001", "SCT", "Long Axis")
SHORT_AXIS = Code("103340004", "SCT", "Short Axis")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
VOLUME = Code("118565006", "SCT", "Volume")
FAT_FRACTION = Code("129100", "DCM", "Fat fraction")
PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")
MEAN = Code("373098007", "SCT", "Mean")
MAXIMUM = Code("56851009", "SCT", "Maximum")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")

MILLIMETRE = Code("mm", "UCUM", "millimeter")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "percent")
DAY = Code("d", "UCUM", "day")

BOUNDED_BY = Code("75958009", "SCT", "Bounded by")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
COMMENT = Code("121106", "DCM", "Comment")
FINDING = Code("121071", "DCM", "Finding")
FINDINGS = Code("121070", "DCM", "Findings")
CONCLUSION = Code("121077", "DCM", "Conclusion")
CONCLUSIONS = Code("121076", "DCM", "Conclusions")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
IMAGING_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
DIAGNOSTIC_IMAGING_REPORT = Code("18748-4", "LN", "Diagnostic Imaging Report")
CT_PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")
# PS3.16 CID 7150, 7151, 7202, 7203, 217, 7010.
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical structure")
SOURCE_IMAGE = Code("121322", "DCM", "Source Image for Image Processing Operation")
SEGMENTATION_DERIVATION = Code("113076", "DCM", "Segmentation")
GRAD_CAM = Code("130403", "DCM", "Gradient-weighted class activation")
OF_INTEREST = Code("113000", "DCM", "Of Interest")
REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")
TITLE_MODIFIER = Code("113011", "DCM", "Document Title Modifier")
OTHER_FAILURE = Code("111220", "DCM", "Other failure")  # CID 7011
ENGLISH = Code("en", "RFC5646", "English")

ASSESSMENT = Code("ASSESSMENT", SCHEME, "Assessment of lymph node")
SUSPICIOUS = Code("AT-OR-ABOVE", SCHEME, "Probability at or above the operating point")
NOT_SUSPICIOUS = Code("BELOW", SCHEME, "Probability below the operating point")
CORTICAL_THICKNESS = Code("CORTEX-THICKNESS", SCHEME, "Cortical thickness of lymph node")
DETECTOR_SCORE = Code("DETECTOR-SCORE", SCHEME, "Confidence of the detector")
LOCATED_BY = Code("LOCATED-BY", SCHEME, "Located by")
LOCATOR = {
    NodeSource.ALGORITHM: Code("ALGORITHM", SCHEME, "Algorithm"),
    NodeSource.READER: Code("READER", SCHEME, "Reader"),
    NodeSource.ASSISTED: Code("READER-SOFTWARE", SCHEME, "Reader with software"),
    NodeSource.DEVICE: Code("121007", "DCM", "Device"),  # CID 270, Observer Type: a device other than this software
    NodeSource.TRUTH: Code("TRUTH", SCHEME, "Truth of a synthetic phantom"),
}
CHANGE = Code("CHANGE", SCHEME, "Compared with prior report")
CHANGES = {
    Change.SEEN: Code("SEEN-BEFORE", SCHEME, "Seen in prior report"),
    Change.NEW: Code("NEW", SCHEME, "Not in prior report"),
    Change.UNCERTAIN: Code("CHANGE-UNCLEAR", SCHEME, "Not determined whether in prior report"),
}
GROWTH = Code("SIZE-CHANGE", SCHEME, "Short axis compared with prior report")
GROWTHS = {
    Growth.LARGER: Code("LARGER", SCHEME, "Larger by more than the measurement error"),
    Growth.SMALLER: Code("SMALLER", SCHEME, "Smaller by more than the measurement error"),
    Growth.WITHIN_ERROR: Code("WITHIN-ERROR", SCHEME, "Within the measurement error"),
}
INTERVAL = Code("INTERVAL", SCHEME, "Interval since prior report")
PRIOR_SHORT_AXIS = Code("PRIOR-SHORT-AXIS", SCHEME, "Short axis in prior report")
SHORT_AXIS_CHANGE = Code("SHORT-AXIS-DELTA", SCHEME, "Change of short axis")
SHORT_AXIS_CHANGE_ERROR = Code("SHORT-AXIS-ERROR", SCHEME, "Measurement error of change of short axis, 95 %")
SHORT_AXIS_CHANGE_RELATIVE = Code("SHORT-AXIS-PCT", SCHEME, "Relative change of short axis")
PROBABILITY_CHANGE = Code("PROBABILITY-DIFF", SCHEME, "Change of probability of cancer, percentage points")
PRIOR_REPORT = Code("122075", "DCM", "Prior report for current patient")
LEVEL = Code("LEVEL", SCHEME, "Axillary level")
LEVELS = {level: Code(f"LEVEL-{level.value}", SCHEME, f"Axillary level {level.value}") for level in Level}
# The output of a model that was trained on synthetic images is not a probability of cancer.
PROBABILITY_OF_DEMONSTRATION = Code("PROBABILITY-DEMO", SCHEME, "Probability, demonstration model")
MEMBER_PROBABILITY = {
    Crop.FSC: Code("PROBABILITY-FSC", SCHEME, "Probability, fixed-size crop network"),
    Crop.ASC: Code("PROBABILITY-ASC", SCHEME, "Probability, adjustable-square crop network"),
}


def coding_scheme() -> Dataset:
    """Return the item on our private codes for the Coding Scheme Identification Sequence (PS3.3 C.12.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "alnnode private codes"
    item.CodingSchemeResponsibleOrganization = "alnnode"
    return item
