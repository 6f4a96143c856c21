"""alnnode: an AI node that finds and classifies axillary lymph nodes on CT, and reports in DICOM."""

__version__ = "0.1.0"

# PS3.7 D.3.3.2: it identifies this software, not an installation. Every association and every file carries it.
IMPLEMENTATION_CLASS_UID = "2.25.123772203398513498310172374461037923089"
IMPLEMENTATION_VERSION_NAME = f"ALNNODE_{__version__}"[:16]

# Manufacturer (0008,0070) of every object that this software makes. It tells results of this software from marks of a reader.
MANUFACTURER = "alnnode"
# Beginnings of the Series Description (0008,103E) of its results, by which searches find them. The second is that of version 0.1.0.
RESULTS = ("AI nodes of series", "AI axillary nodes")
